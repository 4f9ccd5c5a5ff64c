"""Servers that wrk loads with one ready-made request, and whose answers are checked before and after."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from benchmarks._shared import Array, BenchError, Model
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from tritium.server import TritonServer

HERE = Path(__file__).resolve().parent
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Call:
    """A ready-made request, its body in a file for the load generator, and how to read the answer: HTTP's or gRPC's."""

    path: str
    headers: Mapping[str, str]
    body: Path
    read: Callable[[Any], Array]


@dataclass(frozen=True)
class Side:
    """One server, and how to ask it for each model."""

    name: str
    port: int
    calls: Mapping[str, Call]


def check(sides: Sequence[Side], models: Sequence[Model]) -> None:
    """Every side answers rightly, or nothing of the run counts."""
    for side in sides:
        for model in models:
            model.check(ask(side, model.name), side.name)


def ask(side: Side, model: str) -> Array:
    """The answer to the very request that wrk sends."""
    call = side.calls[model]
    connection = HTTPConnection(HOST, side.port, timeout=30)
    try:
        connection.request("POST", call.path, call.body.read_bytes(), dict(call.headers))
        response = connection.getresponse()
        if response.status != 200:
            raise BenchError(f"{side.name} answers {model} with {response.status}: {response.read().decode()}")
        return call.read(response)
    except (OSError, HTTPException) as exc:
        raise BenchError(f"{side.name} does not answer {model}: {exc}") from exc
    finally:
        connection.close()


def wrk(side: Side, model: str, connections: int, duration_s: int, *, strict: bool = True) -> dict[str, int]:
    """Load one side; the figures of wrk.lua. Strictly, an error ends the run, and so does it if there was no answer.

    One thread of wrk at every level: it takes about 10 µs a request, so it could send more than twice what any side
    answers, and a second one would only take more of the cores that the servers share with it.
    """
    call = side.calls[model]
    command = ["wrk", "-t1", f"-c{connections}", f"-d{duration_s}s", "--timeout", "10s", "-s", str(HERE / "wrk.lua")]
    command += [argument for name, value in call.headers.items() for argument in ("-H", f"{name}: {value}")]
    command += [f"http://{HOST}:{side.port}{call.path}", "--", str(call.body)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=duration_s + 60)
    if done.returncode:
        raise BenchError(f"wrk ended with exit code {done.returncode}: {done.stderr or done.stdout}")
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    if strict and (found["errors"] or not found["requests"]):
        raise BenchError(f"{side.name} failed at {model}, {connections} under way:\n{done.stdout}")
    return found


def triton_side(name: str, server: TritonServer, models: Sequence[Model], folder: Path) -> Side:
    """A Triton, asked over HTTP with binary tensors."""
    port = int(server.http_url.rpartition(":")[2])
    return Side(name, port, {model.name: triton_call(model, folder) for model in models})


def triton_call(model: Model, folder: Path) -> Call:
    """Triton's request over HTTP, with binary tensors."""
    tensor = InferInput(model.input, list(model.row.shape), "FP32").set_data_from_numpy(model.row)
    wanted = [InferRequestedOutput(model.output)]
    body, header_length = InferenceServerClient.generate_request_body([tensor], outputs=wanted)
    file = folder / f"{model.name}.triton"
    file.write_bytes(body)
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(header_length)}

    def read(response: HTTPResponse) -> Array:
        length = int(response.headers["Inference-Header-Content-Length"])
        answer = InferenceServerClient.parse_response_body(response.read(), header_length=length)
        result: Array = answer.as_numpy(model.output)
        return result

    return Call(f"/v2/models/{model.name}/infer", headers, file, read)
