"""URLs, and how what the layer below raises becomes one of our errors."""

from __future__ import annotations

import http.client

import pytest
from tritonclient.utils import InferenceServerException

from tritium.client import (
    AccessDeniedError,
    Client,
    ConnectFailedError,
    DeadlineExceededError,
    InferenceFailedError,
    InputError,
    ModelNotFoundError,
    ModelNotReadyError,
    RequestRejectedError,
    ServerBusyError,
    ServerError,
    TransportError,
)
from tritium.client._transport import Endpoint, GrpcTransport, HttpTransport
from tritium.server import TritonServer

HTTP = Endpoint.parse("http://127.0.0.1:8000")
GRPC = Endpoint.parse("grpc://127.0.0.1:8001")


# Endpoint.parse


@pytest.mark.parametrize(
    ("url", "address", "secure"),
    [
        ("http://127.0.0.1:9000", "127.0.0.1:9000", False),
        ("http://localhost", "localhost:8000", False),
        ("http://localhost/", "localhost:8000", False),
        ("https://triton.example", "triton.example:443", True),
        ("grpc://triton", "triton:8001", False),
        ("grpcs://triton", "triton:443", True),
        ("grpcs://triton:1", "triton:1", True),
        ("HTTP://triton:65535", "triton:65535", False),
        ("http://[::1]:9000", "[::1]:9000", False),
        ("grpc://[2001:db8::7]", "[2001:db8::7]:8001", False),
    ],
)
def test_good_url_gives_address_and_security(url: str, address: str, secure: bool) -> None:
    endpoint = Endpoint.parse(url)
    assert (endpoint.address, endpoint.secure) == (address, secure)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9000", "grpcs://triton:443", "http://[::1]:9000"])
def test_endpoint_reads_as_its_url(url: str) -> None:
    assert str(Endpoint.parse(url)) == url


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "must start with http://, https://, grpc:// or grpcs://"),
        ("127.0.0.1:8000", "must start with"),
        ("localhost", "must start with"),
        ("ftp://triton", "must start with"),
        ("http://", "must start with"),
        ("http:///v2", "must start with"),
        ("http://triton:0", "must be 1 to 65535, got 0"),
        ("http://triton:65536", "must be 1 to 65535, got 65536"),
        ("http://triton:123456", "scheme://host:port and nothing more"),
        ("http://triton:", "scheme://host:port and nothing more"),
        ("http://triton:http", "scheme://host:port and nothing more"),
        ("http://triton/v2", "scheme://host:port and nothing more"),
        ("http://triton?x=1", "scheme://host:port and nothing more"),
        ("http://triton#x", "scheme://host:port and nothing more"),
        ("http://user@triton", "scheme://host:port and nothing more"),
        ("grpc://two words", "scheme://host:port and nothing more"),
        ("http://::1:8000", "scheme://host:port and nothing more"),
        ("http://[::1", "The 'url' parameter must be"),
    ],
)
def test_bad_url_is_refused(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Endpoint.parse(url)


def test_password_in_a_url_is_not_repeated_in_the_error() -> None:
    with pytest.raises(InputError) as caught:
        Endpoint.parse("http://user:s3cr3t@triton")
    assert "s3cr3t" not in str(caught.value)


# errors of the server

# The message, its HTTP status, its gRPC status, and what it means. The words are Triton's own.
ANSWERS = [
    ("Request for unknown model: 'm' is not found", "404", "NOT_FOUND", ModelNotFoundError),
    # Triton's HTTP endpoint answers some of these with 400.
    ("Request for unknown model: 'm' is not found", "400", "UNAVAILABLE", ModelNotFoundError),
    ("Request for unknown model: 'm' version 9 is not found", "404", "NOT_FOUND", ModelNotFoundError),
    ("requested model 'm' is not available", "400", "INVALID_ARGUMENT", ModelNotFoundError),
    ("Not Found", "404", "NOT_FOUND", ModelNotFoundError),
    ("Request for unknown model: 'm' has no available versions", "404", "NOT_FOUND", ModelNotReadyError),
    ("Request for unknown model: 'm' version 1 is not at ready state", "503", "UNAVAILABLE", ModelNotReadyError),
    ("unexpected inference output 'z' for model 'm'", "400", "INVALID_ARGUMENT", RequestRejectedError),
    ("input byte size mismatch for input 'x' for model 'm'", "400", "INVALID_ARGUMENT", RequestRejectedError),
    ("Exceeds maximum queue size", "503", "UNAVAILABLE", ServerBusyError),
    ("Request timeout expired", "503", "UNAVAILABLE", ServerBusyError),
    ("Server is stopping, scheduler for model has stopped", "503", "UNAVAILABLE", ServerBusyError),
    ("slow down", "429", "RESOURCE_EXHAUSTED", ServerBusyError),
    ("who are you", "401", "UNAUTHENTICATED", AccessDeniedError),
    ("This protocol is restricted", "403", "PERMISSION_DENIED", AccessDeniedError),
    ("Stub process 'm_0_0' is not healthy.", "500", "INTERNAL", InferenceFailedError),
    ("RuntimeError: indices out of bounds", "500", "INTERNAL", InferenceFailedError),
    # The model's own words must not be taken for Triton's.
    ("FileNotFoundError: the model's vocabulary was not found", "500", "INTERNAL", InferenceFailedError),
    ("Bad Gateway", "502", "UNKNOWN", ServerError),
]


@pytest.mark.parametrize(("message", "status", "_grpc", "kind"), ANSWERS)
def test_http_answer_becomes_its_error(message: str, status: str, _grpc: str, kind: type[ServerError]) -> None:
    with pytest.raises(ServerError) as caught, HttpTransport(HTTP, {})._client("m", 10.0):
        raise InferenceServerException(message, status=status)
    assert type(caught.value) is kind


@pytest.mark.parametrize(("message", "_http", "status", "kind"), ANSWERS)
def test_grpc_answer_becomes_its_error(message: str, _http: str, status: str, kind: type[ServerError]) -> None:
    with pytest.raises(ServerError) as caught, GrpcTransport(GRPC, {})._errors("m", 10.0):
        raise InferenceServerException(message, status=f"StatusCode.{status}")
    assert type(caught.value) is kind


def test_error_carries_url_model_and_status() -> None:
    with pytest.raises(ServerError) as caught, GrpcTransport(GRPC, {})._errors("m", 10.0):
        raise InferenceServerException("Exceeds maximum queue size", status="StatusCode.UNAVAILABLE")
    error = caught.value
    assert (error.url, error.model, error.status) == ("grpc://127.0.0.1:8001", "m", "UNAVAILABLE")
    assert str(error) == "'m' at grpc://127.0.0.1:8001 answered: Exceeds maximum queue size"


def test_error_keeps_its_cause() -> None:
    cause = InferenceServerException("no", status="400")
    with pytest.raises(RequestRejectedError) as caught, HttpTransport(HTTP, {})._client("m", 10.0):
        raise cause
    assert caught.value.__cause__ is cause


def test_error_without_message_and_status_is_a_server_error() -> None:
    with pytest.raises(ServerError, match="no message"), HttpTransport(HTTP, {})._client(None, 10.0):
        raise InferenceServerException(None)


# errors on the way


@pytest.mark.parametrize(
    "cause",
    [
        ConnectionRefusedError(111, "Connection refused"),
        ConnectionResetError(104, "Connection reset by peer"),
        BrokenPipeError(32, "Broken pipe"),
        OSError(113, "No route to host"),
        EOFError("eof"),
        http.client.BadStatusLine("not HTTP"),
    ],
    ids=lambda cause: type(cause).__name__,
)
def test_broken_http_connection_is_a_connect_failed_error(cause: Exception) -> None:
    with pytest.raises(ConnectFailedError, match=r"No connection to http://127\.0\.0\.1:8000") as caught:  # noqa: SIM117
        with HttpTransport(HTTP, {})._client("m", 10.0):
            raise cause
    assert caught.value.url == "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    "message",
    [
        "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:8001: Connection refused",
        "recvmsg:Connection reset by peer",
        "Socket closed",
        "DNS resolution failed for triton:8001: C-ares status is not ARES_SUCCESS",
        "Tls handshake failed (TSI_PROTOCOL_FAILURE)",
        "GOAWAY received",
    ],
)
def test_broken_grpc_connection_is_a_connect_failed_error(message: str) -> None:
    with pytest.raises(ConnectFailedError), GrpcTransport(GRPC, {})._errors("m", 10.0):
        raise InferenceServerException(message, status="StatusCode.UNAVAILABLE")


def test_grpc_deadline_is_a_deadline_exceeded_error() -> None:
    with pytest.raises(DeadlineExceededError, match=r"within 0\.5 s"), GrpcTransport(GRPC, {})._errors("m", 0.5):
        raise InferenceServerException("Deadline Exceeded", status="StatusCode.DEADLINE_EXCEEDED")


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_address_where_nobody_listens_is_a_connect_failed_error(scheme: str, refusing_address: str) -> None:
    with Client(f"{scheme}://{refusing_address}") as client, pytest.raises(ConnectFailedError) as caught:
        client.is_ready()
    assert refusing_address in str(caught.value)


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_server_that_never_answers_is_a_deadline_exceeded_error(scheme: str, silent_address: str) -> None:
    with Client(f"{scheme}://{silent_address}", timeout_s=0.05) as client, pytest.raises(DeadlineExceededError):
        client.is_ready()


@pytest.mark.parametrize(
    ("scheme", "port"), [("http", "grpc"), ("grpc", "http"), ("https", "http")], ids=lambda word: str(word)
)
def test_port_of_another_protocol_is_a_transport_error(scheme: str, port: str, server: TritonServer) -> None:
    url = server.http_url if port == "http" else server.grpc_url
    with Client(f"{scheme}://{url.partition('://')[2]}") as client, pytest.raises(TransportError):
        client.is_ready()
