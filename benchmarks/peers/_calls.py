"""Ready-made requests: one row as each server takes it, and how to read its answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks._h2load import framed
from benchmarks._shared import Array, Model
from benchmarks._wrk import Call
from google.protobuf.wrappers_pb2 import BytesValue
from tritonclient.grpc import service_pb2

_BYTES = {"Content-Type": "application/octet-stream"}
_JSON = {"Content-Type": "application/json"}


def raw(model: Model, folder: Path) -> Call:
    """The row's bytes."""
    return Call(f"/{model.name}", _BYTES, _file(folder, model, "raw", model.row.tobytes()), lambda r: _row(r.read()))


def bentoml(model: Model, folder: Path) -> Call:
    """Base64 as a field of JSON; the answer is the same as text."""
    body = json.dumps({"row": _base64(model)}).encode()
    return Call(f"/{model.name}", _JSON, _file(folder, model, "bentoml", body), lambda r: _row(_decoded(r.read())))


def mlserver(model: Model, folder: Path) -> Call:
    """A V2 request in JSON whose tensor is one element of BYTES, in base64."""
    tensor = {"name": model.input, "datatype": "BYTES", "shape": [1, 1], "data": [_base64(model)]}
    body = json.dumps({"inputs": [tensor]}).encode()

    def read(response: HTTPResponse) -> Array:
        return _row(_decoded(json.loads(response.read())["outputs"][0]["data"][0]))

    return Call(f"/v2/models/{model.name}/infer", _JSON, _file(folder, model, "mlserver", body), read)


def triton_grpc(model: Model, folder: Path) -> Call:
    """Triton's request over gRPC, which is MLServer's too, with binary tensors."""
    request = service_pb2.ModelInferRequest(model_name=model.name, raw_input_contents=[model.row.tobytes()])
    request.inputs.add(name=model.input, datatype="FP32", shape=model.row.shape)
    request.outputs.add(name=model.output)

    def read(answer: bytes) -> Array:
        return _row(service_pb2.ModelInferResponse.FromString(answer).raw_output_contents[0])

    file = _file(folder, model, "triton_grpc", framed(request.SerializeToString()))
    return Call("/inference.GRPCInferenceService/ModelInfer", {}, file, read)


def ray_grpc(model: Model, folder: Path) -> Call:
    """The row's bytes in protobuf's own message for bytes; the application is named by a header."""
    file = _file(folder, model, "ray_grpc", framed(BytesValue(value=model.row.tobytes()).SerializeToString()))

    def read(answer: bytes) -> Array:
        return _row(BytesValue.FromString(answer).value)

    return Call("/benchmarks.Model/infer", {"application": model.name}, file, read)


MakeCall = Callable[[Model, Path], Call]


def _file(folder: Path, model: Model, kind: str, body: bytes) -> Path:
    file = folder / f"{model.name}.{kind}"
    file.write_bytes(body)
    return file


def _base64(model: Model) -> str:
    return base64.b64encode(model.row.tobytes()).decode()


def _decoded(text: Any) -> bytes:
    return base64.b64decode(text)


def _row(answer: bytes) -> Array:
    return np.frombuffer(answer, np.float32).reshape(1, -1)
