"""Servers of the V2 protocol, over HTTP and over gRPC, that write down what they are sent.

They serve any model: it has the input `x` and the output `y`, INT64 of shape (rows, 1), and gives back what it gets.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

_SERVICE = "inference.GRPCInferenceService"
_WORKERS = 16


@dataclass(frozen=True)
class Received:
    """A request: the path over HTTP or the name of the RPC, and its headers with names in lower case."""

    what: str
    headers: dict[str, list[str]]
    body: Any

    @property
    def json(self) -> Any:
        """What it says, over HTTP: all of it, as nothing goes in binary form."""
        return json.loads(self.body)

    @property
    def is_inference(self) -> bool:
        """Whether a model was to be run."""
        return self.what.endswith("/infer") or self.what in ("ModelInfer", "ModelStreamInfer")


@dataclass
class Recorder:
    """A recording server.

    Attributes:
        url: where it is.
        received: every request, in the order in which they came.
        on_infer: called before an inference is answered, with the number that it is about.
        extensions: what the server says that it can do beyond the V2 protocol.
    """

    url: str
    received: list[Received] = field(default_factory=list)
    on_infer: Callable[[int], object] = lambda _number: None
    extensions: list[str] = field(default_factory=list)

    @property
    def inferences(self) -> list[Received]:
        """The requests to run a model."""
        return [request for request in self.received if request.is_inference]


@contextmanager
def recording(protocol: str) -> Iterator[Recorder]:
    """A server on a free port of the loopback, for ``http`` or ``grpc``, until the end of the block."""
    with _KINDS[protocol]() as recorder:
        yield recorder


@contextmanager
def _http() -> Iterator[Recorder]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): self.headers.get_all(name, []) for name in self.headers}
            request = Received(self.path, headers, body)
            recorder.received.append(request)
            said = _http_answer(request, recorder)
            text = json.dumps(said).encode()
            self.send_response(404 if "error" in said else 200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = answer  # noqa: N815 — what the base class calls

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 — the base class calls it so
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Clients may leave before they are answered."""

    with Server(("127.0.0.1", 0), Handler) as server:
        recorder = Recorder(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield recorder
        finally:
            server.shutdown()
            thread.join()


def _http_answer(request: Received, recorder: Recorder) -> dict[str, Any]:
    parts = request.what.split("/")
    if request.is_inference:
        asked = request.json
        (tensor,) = asked["inputs"]
        recorder.on_infer(tensor["data"][0])
        return {
            "model_name": parts[3],
            "model_version": "1",
            "id": asked["id"],
            "outputs": [{"name": "y", "datatype": "INT64", "shape": tensor["shape"], "data": tensor["data"]}],
        }
    if len(parts) == 4:
        x, y = ({"name": name, "datatype": "INT64", "shape": [-1, 1]} for name in "xy")
        return {"name": parts[3], "versions": ["1"], "inputs": [x], "outputs": [y]}
    if parts[-1] in ("ready", "v2"):
        return {"name": "recorder", "extensions": recorder.extensions}
    return {"error": "there is no such thing"}


@contextmanager
def _grpc() -> Iterator[Recorder]:
    def record(rpc: str, message: Any, context: Any) -> None:
        headers: dict[str, list[str]] = {}
        for name, value in context.invocation_metadata():
            headers.setdefault(name, []).append(value)
        recorder.received.append(Received(rpc, headers, message))

    def unary(rpc: str, answer: Callable[[Any], Any]) -> Any:
        def behave(message: Any, context: Any) -> Any:
            record(rpc, message, context)
            said = answer(message)
            return said if said is not None else context.abort(grpc.StatusCode.UNIMPLEMENTED, "")

        return grpc.unary_unary_rpc_method_handler(behave, _request(rpc).FromString, _serialised)

    def infer(message: Any) -> Any:
        recorder.on_infer(int.from_bytes(message.raw_input_contents[0][:8], "little"))
        return _grpc_answer(message)

    def stream(messages: Iterator[Any], context: Any) -> Iterator[Any]:
        for message in messages:
            record("ModelStreamInfer", message, context)
            for _ in range(2):
                yield service_pb2.ModelStreamInferResponse(infer_response=_grpc_answer(message))

    def describe(_message: Any) -> Any:
        return service_pb2.ServerMetadataResponse(name="recorder", extensions=recorder.extensions)

    answers = {**_GRPC_ANSWERS, "ModelInfer": infer, "ServerMetadata": describe}
    handlers = {rpc: unary(rpc, answer) for rpc, answer in answers.items()}
    handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
        stream, _request("ModelInfer").FromString, _serialised
    )
    with ThreadPoolExecutor(_WORKERS) as pool:
        server = grpc.server(pool, [grpc.method_handlers_generic_handler(_SERVICE, handlers)])
        recorder = Recorder(f"grpc://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        server.start()
        try:
            yield recorder
        finally:
            server.stop(grace=None).wait()


def _request(rpc: str) -> Any:
    return getattr(service_pb2, f"{rpc}Request")


def _serialised(message: Any) -> bytes:
    serialised: bytes = message.SerializeToString()
    return serialised


def _model_metadata(message: Any) -> Any:
    answer = service_pb2.ModelMetadataResponse(name=message.name, versions=["1"])
    answer.inputs.add(name="x", datatype="INT64", shape=[-1, 1])
    answer.outputs.add(name="y", datatype="INT64", shape=[-1, 1])
    return answer


def _grpc_answer(message: Any) -> Any:
    answer = service_pb2.ModelInferResponse(model_name=message.model_name, model_version="1", id=message.id)
    answer.outputs.add(name="y", datatype="INT64", shape=message.inputs[0].shape)
    answer.raw_output_contents.extend(message.raw_input_contents)
    return answer


_GRPC_ANSWERS: dict[str, Callable[[Any], Any]] = {
    "ServerReady": lambda _message: service_pb2.ServerReadyResponse(ready=True),
    "ModelMetadata": _model_metadata,
    "ModelConfig": lambda _message: None,
    "RepositoryIndex": lambda _message: None,
}
_KINDS = {"http": _http, "grpc": _grpc}
