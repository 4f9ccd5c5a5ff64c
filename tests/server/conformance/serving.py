"""Cases through a real Triton: a repository of them, a server, and every answer compared."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from onnx import ValueInfoProto, helper
from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup

from tritium.client import Client, TensorSpec, TritiumError, triton_dtype
from tritium.repository import Serving, config_text, model_config
from tritium.server import TritonServer

from .cases import Array, Case

# How many models are loaded and asked at the same time.
_AT_A_TIME = 2


def failures(cases: Sequence[Case], folder: Path, *, backend: str) -> Iterator[tuple[Case, str | None]]:
    """Serve cases, and say of each what went wrong, or None.

    Each model is loaded, asked over HTTP and over gRPC, and unloaded, so that the server stays small. If it dies, all
    that were on it have failed, and another takes over.

    Args:
        cases: what to serve.
        folder: an empty one, for the model repository.
        backend: as `TritonServer` takes it.
    """
    for case in cases:
        write_model(case, folder)
    rest = [cases[first : first + _AT_A_TIME] for first in range(0, len(cases), _AT_A_TIME)]
    while rest:
        with (
            TritonServer(folder, models=[model_name(cases[0])], onnx_backend=backend) as server,
            server.client(protocol="http") as http,
            server.client(protocol="grpc") as grpc,
            ThreadPoolExecutor(_AT_A_TIME) as pool,
        ):
            while rest and server.wait(0) is None:
                group = rest.pop(0)
                yield from zip(group, pool.map(partial(failure, http=http, grpc=grpc), group), strict=True)


def failure(case: Case, http: Client, grpc: Client) -> str | None:
    """What is wrong with a case, or None."""
    name, doing = model_name(case), "load"
    try:
        # Over HTTP a load would block one of the server's few threads.
        grpc.load(name)
        doing = "http"
        case.check(infer(http, case))
        doing = "grpc"
        case.check(infer(grpc, case))
        doing = "unload"
        grpc.unload(name)
    except (TritiumError, AssertionError) as exc:
        return f"{doing}: {str(exc).strip()}"
    return None


def infer(client: Client, case: Case) -> list[Array]:
    """Ask the case's model, and put the answer into the case's own shapes: Triton has no scalars, but ``[1]``."""
    sent = {name: array.reshape(array.shape or (1,)) for name, array in case.inputs.items()}
    answer = client.model(model_name(case))(sent)
    arrays = [answer] if len(case.outputs) == 1 else [answer[name] for name in case.outputs]
    return [
        array.reshape(()) if expected.shape == () and array.shape == (1,) else array
        for array, expected in zip(arrays, case.outputs.values(), strict=True)
    ]


def model_name(case: Case) -> str:
    """A name that Triton accepts, whose length is bounded; the case's can be longer."""
    return f"{case.name[:50]}_{zlib.crc32(case.name.encode()):08x}"


def write_model(case: Case, repository: Path) -> None:
    """Put a case into a model repository, as one writes a config for a model that has no batch axis."""
    name = model_name(case)
    config = model_config(
        name,
        backend="onnxruntime",
        inputs=_specs(case.model.graph.input, case.inputs),
        outputs=_specs(case.model.graph.output, case.outputs),
        serving=Serving(max_batch_size=0),
    )
    config.instance_group[0].kind = ModelInstanceGroup.KIND_CPU
    version = repository / name / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(case.model.SerializeToString())
    (repository / name / "config.pbtxt").write_text(config_text(config), encoding="utf-8")


def _specs(values: Sequence[ValueInfoProto], arrays: Mapping[str, Array]) -> list[TensorSpec]:
    return [_spec(value, arrays[value.name]) for value in values if value.name in arrays]


def _spec(value: ValueInfoProto, array: Array) -> TensorSpec:
    tensor = value.type.tensor_type
    # An open length and none at all are both -1 to Triton; a model may also leave the whole shape open.
    shape = tuple(dim.dim_value or -1 for dim in tensor.shape.dim) if tensor.HasField("shape") else (-1,) * array.ndim
    return TensorSpec(value.name, triton_dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)), shape)
