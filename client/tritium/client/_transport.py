"""The one place that talks to a server. Tritonclient does both protocols; its exceptions end here."""

from __future__ import annotations

import http.client
import re
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from tritonclient.utils import InferenceServerException

from . import _errors as errors
from ._tensors import Array

_DEFAULT_PORTS = {"http": 8000, "https": 443, "grpc": 8001, "grpcs": 443}
_ENDPOINT = re.compile(r"^(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/@]+)(:(?P<port>\d{1,5}))?$")


@dataclass(frozen=True)
class Endpoint:
    """A server's address: the scheme chooses the protocol and whether TLS is used."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Read ``http://``, ``https://``, ``grpc://`` or ``grpcs://`` with a host and, if need be, a port.

        Raises:
            InputError: the URL has no such scheme, no host, or a path.
        """
        try:
            parts = urlsplit(url)
        except ValueError as exc:
            raise errors.InputError(f"The 'url' parameter must be a URL, got {url!r} instead: {exc}") from exc
        if parts.scheme not in _DEFAULT_PORTS or not parts.netloc:
            raise errors.InputError(
                f"The 'url' parameter must start with http://, https://, grpc:// or grpcs://, got {url!r} instead; "
                "for example http://127.0.0.1:8000 or grpc://127.0.0.1:8001"
            )
        match = _ENDPOINT.match(parts.netloc)
        if match is None or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise errors.InputError(
                "The 'url' parameter must be scheme://host:port and nothing more, got "
                f"{re.sub(r'//.*@', '//…@', url)!r} instead"  # what stands there may be a password
            )
        port = int(match["port"] or _DEFAULT_PORTS[parts.scheme])
        if not 0 < port < 65536:
            raise errors.InputError(f"The port of the 'url' parameter must be 1 to 65535, got {port} instead")
        return cls(parts.scheme, match["host"], port)

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"{self.host}:{self.port}"

    @property
    def local(self) -> bool:
        """Whether it is on this machine's loopback."""
        return self.host in ("localhost", "[::1]") or self.host.startswith("127.")

    @property
    def secure(self) -> bool:
        """Whether TLS is used."""
        return self.scheme in ("https", "grpcs")

    def __str__(self) -> str:
        """The whole URL."""
        return f"{self.scheme}://{self.address}"


@dataclass(frozen=True)
class InferRequest:
    """One inference, ready to be sent.

    Attributes:
        inputs: name, Triton dtype and array of each input.
        outputs: names of the outputs wanted; empty for all.
    """

    model: str
    version: str
    inputs: Sequence[tuple[str, str, Array]]
    outputs: Sequence[str] = ()
    request_id: str = ""


class Transport(Protocol):
    """What the client needs of a protocol. Every method raises only what is in ``_errors``; timeouts in seconds."""

    def infer(self, request: InferRequest, timeout_s: float) -> dict[str, Array]:
        """Run a model; arrays by output name."""

    def call(self, rpc: str, *args: str, timeout_s: float) -> Any:
        """Any other call of tritonclient by its method name, answered as plain JSON types."""

    def close(self) -> None:
        """Close every connection."""


class HttpTransport:
    """Binary tensors over HTTP/1.1.

    Tritonclient's HTTP client may not be shared between threads, so each thread has its own, and gevent an event loop
    (a few descriptors) for it, which stay until the process ends: call from a pool of threads, not from a new one each.
    """

    def __init__(self, endpoint: Endpoint, headers: Mapping[str, str]) -> None:
        # Imported here: this pulls in gevent, which a gRPC user has no need of.
        import tritonclient.http

        self._api = tritonclient.http
        self._endpoint = endpoint
        self._headers = dict(headers)
        self._local = threading.local()
        self._opened: weakref.WeakSet[Any] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._closed = False

    def infer(self, request: InferRequest, timeout_s: float) -> dict[str, Array]:
        """Run a model; arrays by output name."""
        with self._client(request.model, timeout_s) as client:
            # tritonclient writes the length of each request's JSON into the headers that it is given.
            result = _infer(self._api, client.infer, request, headers=dict(self._headers))
            return _arrays(result, [output["name"] for output in result.get_response()["outputs"]])

    def call(self, rpc: str, *args: str, timeout_s: float) -> Any:
        """Any other call of tritonclient by its method name, answered as plain JSON types."""
        with self._client(args[0] if args else None, timeout_s) as client:
            return getattr(client, rpc)(*args, headers=dict(self._headers))

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            self._closed = True
            opened = list(self._opened)
        for client in opened:
            client.close()

    @contextmanager
    def _client(self, model: str | None, timeout_s: float) -> Iterator[Any]:
        """This thread's client, under a deadline that covers the whole call."""
        import gevent

        if self._closed:
            raise _closed()
        client = getattr(self._local, "client", None)
        if client is None:
            client = self._local.client = self._open()
        deadline = gevent.Timeout(timeout_s)
        try:
            with deadline:
                yield client
        except gevent.Timeout as exc:
            if exc is not deadline:
                raise
            # The late answer may still come on this connection: it must never meet another request.
            self._drop(client)
            raise deadline_exceeded(self._endpoint, timeout_s) from exc
        except InferenceServerException as exc:
            raise _server_error(exc, self._endpoint, model) from exc
        except ValueError as exc:  # tritonclient could not read the answer as JSON
            raise _no_triton(self._endpoint, model) from exc
        except (OSError, EOFError, http.client.HTTPException) as exc:
            self._drop(client)
            raise _no_connection(self._endpoint, exc) from exc

    def _open(self) -> Any:
        import ssl

        endpoint = self._endpoint
        client = self._api.InferenceServerClient(
            endpoint.address,
            ssl=endpoint.secure,
            ssl_context_factory=ssl.create_default_context if endpoint.secure else None,
            # The deadline around the call decides; these must not end it earlier.
            connection_timeout=3600.0,
            network_timeout=3600.0,
        )
        with self._lock:
            self._opened.add(client)
        return client

    def _drop(self, client: Any) -> None:
        self._local.client = None
        client.close()


class GrpcTransport:
    """Tensors over gRPC. One channel serves all threads."""

    def __init__(self, endpoint: Endpoint, headers: Mapping[str, str]) -> None:
        import tritonclient.grpc

        self._api = tritonclient.grpc
        self._endpoint = endpoint
        self._headers = {name.lower(): value for name, value in headers.items()}
        options = [
            ("grpc.max_send_message_length", self._api.MAX_GRPC_MESSAGE_SIZE),
            ("grpc.max_receive_message_length", self._api.MAX_GRPC_MESSAGE_SIZE),
        ]
        if endpoint.local:
            # gRPC would send even this through the proxy that `http_proxy` names.
            options.append(("grpc.enable_http_proxy", 0))
        self._client = self._api.InferenceServerClient(endpoint.address, ssl=endpoint.secure, channel_args=options)

    def infer(self, request: InferRequest, timeout_s: float) -> dict[str, Array]:
        """Run a model; arrays by output name."""
        with self._errors(request.model, timeout_s):
            result = _infer(self._api, self._client.infer, request, headers=self._headers, client_timeout=timeout_s)
            return _arrays(result, [output.name for output in result.get_response().outputs])

    def call(self, rpc: str, *args: str, timeout_s: float) -> Any:
        """Any other call of tritonclient by its method name, answered as plain JSON types."""
        as_json = {"as_json": True} if rpc.startswith("get_") else {}
        with self._errors(args[0] if args else None, timeout_s):
            answer = getattr(self._client, rpc)(*args, headers=self._headers, client_timeout=timeout_s, **as_json)
        # Over HTTP these two answer without the wrapper that gRPC puts around them.
        if rpc == "get_model_config":
            return answer["config"]
        if rpc == "get_model_repository_index":
            return answer.get("models", [])
        return answer

    def close(self) -> None:
        """Close the channel."""
        self._client.close()

    @contextmanager
    def _errors(self, model: str | None, timeout_s: float) -> Iterator[None]:
        try:
            yield
        except InferenceServerException as exc:
            status = str(exc.status() or "")
            message = exc.message() or ""
            if "DEADLINE_EXCEEDED" in status:
                raise deadline_exceeded(self._endpoint, timeout_s) from exc
            if "UNAVAILABLE" in status and _NO_SERVER.search(message):
                raise _no_connection(self._endpoint, exc) from exc
            raise _server_error(exc, self._endpoint, model) from exc
        except ValueError as exc:
            # grpc's own words for a closed channel.
            if "closed channel" not in str(exc):
                raise
            raise _closed() from exc


def open_transport(endpoint: Endpoint, headers: Mapping[str, str]) -> Transport:
    """The transport for a URL's scheme."""
    kind = HttpTransport if endpoint.scheme.startswith("http") else GrpcTransport
    return kind(endpoint, headers)


def _infer(api: Any, send: Callable[..., Any], request: InferRequest, **options: Any) -> Any:
    inputs = []
    for name, dtype, array in request.inputs:
        tensor = api.InferInput(name, list(array.shape), dtype)
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return send(
        request.model,
        inputs,
        model_version=request.version,
        outputs=[api.InferRequestedOutput(name) for name in request.outputs] or None,
        request_id=request.request_id,
        **options,
    )


def _arrays(result: Any, names: Sequence[str]) -> dict[str, Array]:
    return {name: result.as_numpy(name) for name in names}


# What gRPC says when nobody listens, or the peer went away; Triton's own UNAVAILABLE reads otherwise.
_NO_SERVER = re.compile(
    r"failed to connect|connection (refused|reset)|connect failed|socket closed|name resolution|dns|broken pipe|"
    r"goaway|recvmsg|handshak|no route",
    re.IGNORECASE,
)

# Triton tells errors apart by words more finely than by status; the first pattern that fits decides.
_BY_MESSAGE: Sequence[tuple[str, type[errors.ServerError]]] = (
    (r"no available versions|is not at ready state|is not ready", errors.ModelNotReadyError),
    (r"^Request for unknown model|^requested model '.*' is not available", errors.ModelNotFoundError),
    (r"exceeds maximum queue size|server is (exiting|stopping)|timeout expired", errors.ServerBusyError),
)
_BY_STATUS: Mapping[str, type[errors.ServerError]] = {
    "400": errors.RequestRejectedError,
    "401": errors.AccessDeniedError,
    "403": errors.AccessDeniedError,
    "404": errors.ModelNotFoundError,
    "429": errors.ServerBusyError,
    "500": errors.InferenceFailedError,
    "503": errors.ServerBusyError,
    "INTERNAL": errors.InferenceFailedError,
    "INVALID_ARGUMENT": errors.RequestRejectedError,
    "NOT_FOUND": errors.ModelNotFoundError,
    "PERMISSION_DENIED": errors.AccessDeniedError,
    "RESOURCE_EXHAUSTED": errors.ServerBusyError,
    "UNAUTHENTICATED": errors.AccessDeniedError,
    "UNAVAILABLE": errors.ServerBusyError,
}


def _server_error(exc: InferenceServerException, endpoint: Endpoint, model: str | None) -> errors.ServerError:
    message = exc.message() or "no message"
    if "while decoding the response" in message:
        return _no_triton(endpoint, model)
    status = (exc.status() or "").removeprefix("StatusCode.") or None
    kind = next((kind for pattern, kind in _BY_MESSAGE if re.search(pattern, message, re.I)), None)
    kind = kind or _BY_STATUS.get(status or "", errors.ServerError)
    subject = f"{model!r} at {endpoint}" if model else str(endpoint)
    return kind(f"{subject} answered: {message}", url=str(endpoint), model=model, status=status)


def _no_triton(endpoint: Endpoint, model: str | None) -> errors.ServerError:
    return errors.ServerError(
        f"{endpoint} answers, but not as a Triton server does. Is this its HTTP port, and not that of its metrics?",
        url=str(endpoint),
        model=model,
    )


def _closed() -> errors.InputError:
    return errors.InputError("This client is closed; make a new one")


def deadline_exceeded(endpoint: Endpoint, timeout_s: float) -> errors.DeadlineExceededError:
    """The error for an answer that took too long."""
    return errors.DeadlineExceededError(
        f"{endpoint} did not answer within {timeout_s:g} s; raise timeout_s if the model needs longer",
        url=str(endpoint),
    )


def _no_connection(endpoint: Endpoint, cause: Exception) -> errors.ConnectFailedError:
    return errors.ConnectFailedError(
        f"No connection to {endpoint} ({cause}). Is the server running, and is this its "
        f"{'HTTP' if endpoint.scheme.startswith('http') else 'gRPC'} port?",
        url=str(endpoint),
    )
