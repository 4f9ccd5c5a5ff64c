"""Small models that show one behaviour each, and a server that runs them."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import psutil
import pytest
from onnx import TensorProto, helper

from tritium.client import Client, ServerError
from tritium.server import TritonServer
from tritium.server._runtime import needed_wheels

DTYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
}
# Batches form only if requests wait for each other.
PATIENT = "dynamic_batching { max_queue_delay_microseconds: 200000 preferred_batch_size: 5 }"


# A graph's tensors: name, ONNX element type, shape.
Tensor = tuple[str, int, Sequence[int | str] | None]
WriteModel = Callable[..., Path]
Serve = Callable[[bytes | Mapping[str, bytes], str | None], str]
# A tensor on the wire: name, Triton's dtype, shape, bytes.
WireTensor = tuple[str, str, Sequence[int], bytes]
_COUNTER = itertools.count()


def onnx_bytes(
    nodes: Sequence[Any],
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    initializers: Sequence[Any] = (),
    *,
    check: bool = True,
) -> bytes:
    """A whole ONNX file."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(*tensor) for tensor in inputs],
        [helper.make_tensor_value_info(*tensor) for tensor in outputs],
        list(initializers),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if check:
        onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def doubler(dims: Sequence[int | str] = ("batch", 2)) -> bytes:
    """y = x + x, in float32."""
    tensors = [("x", TensorProto.FLOAT, dims)], [("y", TensorProto.FLOAT, dims)]
    return onnx_bytes([helper.make_node("Add", ["x", "x"], ["y"])], *tensors)


def identity(element: int, dims: Sequence[int | str] = ("batch", "n")) -> bytes:
    """y = x, in that element type."""
    return onnx_bytes([helper.make_node("Identity", ["x"], ["y"])], [("x", element, dims)], [("y", element, dims)])


def config(inputs: str, outputs: str, *, batch: int = 8, more: str = "") -> str:
    """As in ``config("x FP32 2", "y FP32 -1,3")``."""

    def tensors(kind: str, text: str) -> str:
        lines = []
        for item in text.split(";"):
            name, dtype, dims = item.split()
            lines.append(f'{kind} {{ name: "{name}" data_type: TYPE_{dtype} dims: [{dims}] }}')
        return "\n".join(lines)

    return (
        f'backend: "onnxruntime"\nmax_batch_size: {batch}\n{tensors("input", inputs)}\n{tensors("output", outputs)}\n'
        f"instance_group {{ count: 1 kind: KIND_CPU }}\n{more}\n"
    )


ON_CPU = "instance_group { count: 1 kind: KIND_CPU }"
DOUBLER_CONFIG = """
backend: "onnxruntime"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: 2 }
output { name: "y" data_type: TYPE_FP32 dims: 2 }
instance_group { count: 1 kind: KIND_CPU }
"""

# For what only one of the backends has.
native_only = pytest.mark.parametrize("onnx_server", ["native"], indirect=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository for the tests of one module."""
    return tmp_path_factory.mktemp("repository")


@pytest.fixture(scope="module")
def write_model(folder: Path) -> WriteModel:
    """Put a model into the module's repository: its name, its file's content, its config (None: none)."""

    def write(name: str, content: bytes, config: str | None, *, file: str = "model.onnx") -> Path:
        version = folder / name / "1"
        version.mkdir(parents=True)
        (version / file).write_bytes(content)
        if config is not None:
            (folder / name / "config.pbtxt").write_text(config, encoding="utf-8")
        return version

    return write


@pytest.fixture(scope="module", params=["native", "python"])
def onnx_server(folder: Path, write_model: WriteModel, request: pytest.FixtureRequest) -> Iterator[TritonServer]:
    """A server with each ONNX backend in turn, over one model; tests load what they need with `serve`."""
    name = f"doubler_{request.param}"
    write_model(name, doubler(), DOUBLER_CONFIG)
    open_groups = ["shared-memory"]  # raw clients of some tests use it
    with TritonServer(folder, models=[name], onnx_backend=request.param, open_groups=open_groups) as running:
        assert running.onnx_backend == request.param
        yield running
        assert running.wait(0) is None, "\n".join(["Triton died:", *running.log.read_text().splitlines()[-40:]])


@pytest.fixture(params=["http", "grpc"])
def onnx_client(onnx_server: TritonServer, request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client of that server, over each protocol in turn."""
    with onnx_server.client(protocol=request.param) as client:
        yield client


@contextmanager
def serving(server: TritonServer) -> Iterator[Serve]:
    """A function that writes a model, or several files by their paths, loads it and gives its name.

    What it loaded is unloaded in the end.
    """
    names: list[str] = []

    def write_and_load(content: bytes | Mapping[str, bytes], config: str | None) -> str:
        name = f"model_{next(_COUNTER)}"
        folder = server.repository.path / name
        files = {"1/model.onnx": content} if isinstance(content, bytes) else content
        for path, data in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        if config is not None:
            (folder / "config.pbtxt").write_text(config, encoding="utf-8")
        server.load(name)
        names.append(name)
        return name

    yield write_and_load
    for name in names:
        server.unload(name)


@pytest.fixture
def serve(onnx_server: TritonServer) -> Iterator[Serve]:
    """As `serving`, for that server and one test."""
    with serving(onnx_server) as write_and_load:
        yield write_and_load


@pytest.fixture(scope="session")
def wheels(request: pytest.FixtureRequest) -> Path:
    """A folder with the runtime's two wheels, as somebody without a network would bring them along."""
    cache: pytest.Cache = request.config.cache
    target = Path(cache.mkdir(f"runtime-wheels-{sys.version_info.major}.{sys.version_info.minor}"))
    wanted = needed_wheels()
    if not all(list(target.glob(wheel.pattern)) for wheel in wanted):
        names = [f"{wheel.project}=={wheel.version}" for wheel in wanted]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        subprocess.run([*command, "--dest", str(target), *names], check=True, capture_output=True)
    return target


def batch_sizes(client: Client, model: str) -> dict[int, int]:
    """How often the model ran with each batch size."""
    stats = client.model(model).statistics()["model_stats"][0]
    return {int(batch["batch_size"]): int(batch["compute_infer"]["count"]) for batch in stats.get("batch_stats", ())}


def at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Make calls at the same moment; what each returns, or Triton's error, in order."""
    start = threading.Barrier(len(calls))

    def make(call: Callable[[], Any]) -> Any:
        start.wait(10)
        try:
            return call()
        except ServerError as exc:
            return exc

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(make, calls))


def together(client: Client, model: str, inputs: Sequence[Any], **options: Any) -> list[Any]:
    """Send requests at the same moment; answers or exceptions, in order."""
    handle = client.model(model)
    _ = handle.metadata
    return at_once([partial(handle, array, **options) for array in inputs])


class Answer(NamedTuple):
    """What a server said to a request: the HTTP status, its error, the bytes of each output."""

    status: int
    error: str
    outputs: dict[str, bytes]


def post(
    server: TritonServer, model: str, tensors: Sequence[WireTensor], *, outputs: Sequence[str] = (), **fields: Any
) -> Answer:
    """Send bytes as they are, over HTTP: for what a client would not send. `fields` are the request's own."""
    inputs = [
        {"name": name, "datatype": dtype, "shape": list(shape), "parameters": {"binary_data_size": len(data)}}
        for name, dtype, shape, data in tensors
    ]
    fields["parameters"] = {"binary_data_output": True, **fields.get("parameters", {})}
    if outputs:
        fields["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in outputs]
    head = json.dumps(fields | {"inputs": inputs}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    with closing(HTTPConnection(server.http_url.removeprefix("http://"), timeout=30)) as connection:
        body = b"".join([head, *(data for *_, data in tensors)])
        connection.request("POST", f"/v2/models/{model}/infer", body, headers)
        response = connection.getresponse()
        content = response.read()
    answer_bytes = int(response.getheader("Inference-Header-Content-Length") or len(content))
    answer = json.loads(content[:answer_bytes])
    got, at = {}, answer_bytes
    for output in answer.get("outputs", ()):
        size_bytes = output["parameters"]["binary_data_size"]
        got[output["name"]] = content[at : at + size_bytes]
        at += size_bytes
    return Answer(response.status, answer.get("error", ""), got)


def wait_until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait for a condition; fail if it does not come."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come in time"
        time.sleep(0.02)


def who_shows(secret: str) -> list[str]:
    """The programs of this machine that have a secret among their arguments."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it ended meanwhile
            found += [process.name()] if any(secret in argument for argument in process.cmdline()) else []
    return found
