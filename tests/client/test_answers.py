"""What a server or the layer below says becomes one of our errors, whatever it is."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import grpc
import numpy as np
import pytest

from tritium.client import (
    AccessDeniedError,
    AsyncClient,
    Client,
    ConnectFailedError,
    DeadlineExceededError,
    InferenceFailedError,
    ModelNotFoundError,
    ModelNotReadyError,
    ProtocolError,
    RequestRejectedError,
    Retries,
    ServerBusyError,
    ServerError,
    TransportError,
    TritiumError,
)
from tritium.client._answers import server_error
from tritium.client._deadline import Deadline
from tritium.client._endpoint import Endpoint
from tritium.client._grpc_wire import failure
from tritium.client._http_reader import ResponseReader
from tritium.client._http_wire import HttpWire
from tritium.client._queries import Query, model_ready, server_metadata, statistics
from tritium.server import TritonServer

HTTP = Endpoint.parse("http://127.0.0.1:8000")
GRPC = Endpoint.parse("grpc://127.0.0.1:8001")

# The message, its HTTP status, its gRPC status, and what it means. The words are Triton's own.
ANSWERS = [
    ("Request for unknown model: 'm' is not found", 404, "NOT_FOUND", ModelNotFoundError),
    # Triton's HTTP endpoint answers some of these with 400.
    ("Request for unknown model: 'm' is not found", 400, "UNAVAILABLE", ModelNotFoundError),
    ("Request for unknown model: 'm' version 9 is not found", 404, "NOT_FOUND", ModelNotFoundError),
    ("requested model 'm' is not available", 400, "INVALID_ARGUMENT", ModelNotFoundError),
    ("Not Found", 404, "NOT_FOUND", ModelNotFoundError),
    ("Request for unknown model: 'm' has no available versions", 404, "NOT_FOUND", ModelNotReadyError),
    ("Request for unknown model: 'm' version 1 is not at ready state", 503, "UNAVAILABLE", ModelNotReadyError),
    ("unexpected inference output 'z' for model 'm'", 400, "INVALID_ARGUMENT", RequestRejectedError),
    ("[request id: 7] input byte size mismatch for input 'x'", 400, "INVALID_ARGUMENT", RequestRejectedError),
    ("Exceeds maximum queue size", 503, "UNAVAILABLE", ServerBusyError),
    ("Request timeout expired", 503, "UNAVAILABLE", ServerBusyError),
    ("Server is stopping, scheduler for model has stopped", 503, "UNAVAILABLE", ServerBusyError),
    ("slow down", 429, "RESOURCE_EXHAUSTED", ServerBusyError),
    ("who are you", 401, "UNAUTHENTICATED", AccessDeniedError),
    ("This protocol is restricted", 403, "PERMISSION_DENIED", AccessDeniedError),
    ("Stub process 'm_0_0' is not healthy.", 500, "INTERNAL", InferenceFailedError),
    ("RuntimeError: indices out of bounds", 500, "INTERNAL", InferenceFailedError),
    # The model's own words must not be taken for Triton's.
    ("FileNotFoundError: the model's vocabulary was not found", 500, "INTERNAL", InferenceFailedError),
    ("Bad Gateway", 502, "UNKNOWN", ServerError),
]


class Failed(grpc.RpcError):  # type: ignore[misc]
    """What gRPC raises."""

    def __init__(self, status: grpc.StatusCode, details: str, trailers: tuple[tuple[str, str], ...] = ()) -> None:
        self._status, self._details, self._trailers = status, details, trailers

    def code(self) -> grpc.StatusCode:
        return self._status

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._trailers


def answered(status: int, body: bytes, *headers: str) -> ResponseReader:
    """A response, read as one from a connection is."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *headers, "", ""]
    data = "\r\n".join(lines).encode() + body
    reader = ResponseReader()
    done = False
    while not done:
        space = reader.space()
        count = min(len(space), len(data))
        space[:count], data = data[:count], data[count:]
        done = reader.filled(count)
    return reader


def of_http(status: int, body: bytes, *headers: str, query: Query | None = None) -> ServerError:
    with pytest.raises(ServerError) as caught:
        HttpWire(HTTP, {}).result(query or statistics("m"), answered(status, body, *headers))
    return caught.value


def of_grpc(status: str, details: str, trailers: tuple[tuple[str, str], ...] = ()) -> TritiumError:
    return failure(Failed(grpc.StatusCode[status], details, trailers), GRPC, "m", Deadline(0.5))


@pytest.mark.parametrize(("message", "status", "_grpc", "kind"), ANSWERS)
def test_http_answer_becomes_its_error(message: str, status: int, _grpc: str, kind: type[ServerError]) -> None:
    assert type(of_http(status, json.dumps({"error": message}).encode())) is kind


@pytest.mark.parametrize(("message", "_http", "status", "kind"), ANSWERS)
def test_grpc_answer_becomes_its_error(message: str, _http: int, status: str, kind: type[ServerError]) -> None:
    assert type(of_grpc(status, message)) is kind


def test_error_carries_url_model_and_status() -> None:
    error = of_grpc("UNAVAILABLE", "Exceeds maximum queue size")
    assert isinstance(error, ServerError)
    assert (error.url, error.model, error.status) == ("grpc://127.0.0.1:8001", "m", "UNAVAILABLE")
    assert str(error) == "'m' at grpc://127.0.0.1:8001 answered: Exceeds maximum queue size"


def test_id_that_triton_puts_before_its_words_is_left_out_of_the_message() -> None:
    error = server_error("[request id: 7] Request for unknown model: 'm'", "400", HTTP, "m")
    assert isinstance(error, ModelNotFoundError)
    assert str(error) == "'m' at http://127.0.0.1:8000 answered: Request for unknown model: 'm'"


def test_error_without_words_says_so() -> None:
    assert "answered: no message" in str(of_grpc("UNKNOWN", ""))


@pytest.mark.parametrize(("after", "seconds"), [("2", 2.0), ("soon", None), (None, None)])
def test_time_after_which_to_come_back_is_kept(after: str | None, seconds: float | None) -> None:
    headers = [] if after is None else [f"Retry-After: {after}"]
    error = of_http(429, b'{"error": "slow down"}', *headers)
    trailers = () if after is None else (("retry-after", after),)
    over_grpc = of_grpc("RESOURCE_EXHAUSTED", "slow down", trailers)
    assert isinstance(over_grpc, ServerError)
    assert error.retry_after_s == over_grpc.retry_after_s == seconds


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (503, b"<html><body>upstream is down</body></html>", ServerBusyError, "HTTP 503 and a page"),
        (404, b"<html>no such page</html>", ServerError, "not as a Triton server does"),
        (404, b'{"detail": "Not Found"}', ServerError, "Not Found"),
        (422, b'{"detail": [{"loc": ["body", "x"], "msg": "required"}]}', RequestRejectedError, "body.x: required"),
        (500, b"Internal Server Error", InferenceFailedError, "Internal Server Error"),
        (401, b"", AccessDeniedError, "no message"),
        (400, b'["a list"]', RequestRejectedError, "a list"),
        (400, b"\xff\xfe", RequestRejectedError, "answered"),
        (500, b"x" * 1_000_000, InferenceFailedError, "xxx"),
    ],
    ids=["page", "page-404", "detail", "details", "text", "nothing", "list", "no-text", "long"],
)
def test_answer_of_another_form_becomes_an_error_that_is_one_short_line(
    status: int, body: bytes, kind: type[ServerError], words: str
) -> None:
    error = of_http(status, body)
    assert type(error) is kind
    assert words in str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 3_000


def test_answer_without_json_is_no_answer() -> None:
    with pytest.raises(ProtocolError, match="not as a Triton server does"):
        HttpWire(HTTP, {}).result(server_metadata(), answered(200, b"hello"))


@pytest.mark.parametrize(("status", "ready"), [(200, True), (400, False), (404, False), (503, False)])
def test_readiness_is_the_status_alone(status: int, ready: bool) -> None:
    assert HttpWire(HTTP, {}).result(model_ready("m"), answered(status, b"")) is ready


# gRPC


@pytest.mark.parametrize("status", [status for status in grpc.StatusCode if status is not grpc.StatusCode.OK], ids=str)
@pytest.mark.parametrize("details", ["", "Socket closed", "failed to connect to all addresses", "anything"])
def test_every_status_of_grpc_is_mapped(status: grpc.StatusCode, details: str) -> None:
    assert isinstance(of_grpc(status.name, details), TritiumError)


@pytest.mark.parametrize(
    ("message", "sent"),
    [
        ("failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:8001: Connection refused", False),
        ("DNS resolution failed for triton:8001: C-ares status is not ARES_SUCCESS", False),
        ("Tls handshake failed (TSI_PROTOCOL_FAILURE)", False),
        ("recvmsg:Connection reset by peer", True),
        ("Socket closed", True),
        ("GOAWAY received", True),
    ],
)
def test_broken_grpc_connection_is_a_connect_failed_error_that_says_whether_it_was_sent(
    message: str, sent: bool
) -> None:
    error = of_grpc("UNAVAILABLE", message)
    assert isinstance(error, ConnectFailedError)
    assert error.sent is sent


def test_grpc_deadline_is_a_deadline_exceeded_error() -> None:
    error = of_grpc("DEADLINE_EXCEEDED", "Deadline Exceeded")
    assert isinstance(error, DeadlineExceededError)
    assert "within 0.5 s" in str(error)


# the layers below HTTP


def all_kinds(root: type[BaseException]) -> list[type[BaseException]]:
    return [root, *(kind for child in root.__subclasses__() for kind in all_kinds(child))]


OF_PYTHON = {kind for kind in all_kinds(OSError) if kind.__module__ in ("builtins", "socket", "ssl")}
BELOW = sorted(OF_PYTHON - {TimeoutError}, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", BELOW, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("moment", ["connect", "send", "receive"])
def test_every_error_of_a_socket_is_mapped(
    kind: type[OSError], moment: str, server: TritonServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise kind(5, "it broke")

    class Broken(socket.socket):
        connect = fail if moment == "connect" else socket.socket.connect
        send = fail if moment == "send" else socket.socket.send
        recv_into = fail if moment == "receive" else socket.socket.recv_into

    with Client(server.http_url, retries=Retries(attempts=1)) as client:
        monkeypatch.setattr(socket, "socket", Broken)
        with pytest.raises(TransportError) as caught:
            client.is_ready()
    assert isinstance(caught.value, ConnectFailedError)
    assert caught.value.sent is (moment != "connect")


def test_what_the_system_does_not_take_at_once_is_sent_all_the_same(
    server: TritonServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Narrow(socket.socket):
        def send(self, data: Any, flags: int = 0) -> int:
            # Triton finds no model if a request's first line comes in pieces.
            return super().send(data[:-7], flags)

    monkeypatch.setattr(socket, "socket", Narrow)
    with Client(server.http_url) as client:
        assert client.model("digits_mlp")(np.zeros((2, 784), np.float32)).shape[0] == 2


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_address_where_nobody_listens_is_a_connect_failed_error(scheme: str, refusing_address: str) -> None:
    with Client(f"{scheme}://{refusing_address}") as client, pytest.raises(ConnectFailedError) as caught:
        client.is_ready()
    assert refusing_address in str(caught.value)
    assert caught.value.sent is False


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_server_that_never_answers_is_a_deadline_exceeded_error(scheme: str, silent_address: str) -> None:
    with Client(f"{scheme}://{silent_address}", timeout_s=0.05) as client, pytest.raises(DeadlineExceededError):
        client.is_ready()


@pytest.mark.parametrize(
    ("scheme", "port"), [("http", "grpc"), ("grpc", "http"), ("https", "http")], ids=lambda word: str(word)
)
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_port_of_another_protocol_is_a_transport_error(
    scheme: str, port: str, asynchronous: bool, server: TritonServer
) -> None:
    address = (server.http_url if port == "http" else server.grpc_url).partition("://")[2]

    async def ask() -> None:
        async with AsyncClient(f"{scheme}://{address}") as client:
            await client.is_ready()

    with pytest.raises(TransportError):
        if asynchronous:
            asyncio.run(ask())
        else:
            with Client(f"{scheme}://{address}") as client:
                client.is_ready()
