"""What `Client` and `AsyncClient` share: everything but the asking and the waiting."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from ._answers import no_answer
from ._contract import Contract
from ._deadline import Deadline, positive
from ._endpoint import Endpoint
from ._errors import CallError, DeadlineExceededError, InputError, ServerError, TritiumError
from ._metadata import ModelMetadata, ModelStatus
from ._options import ApiKey, BearerToken, Headers, Limits, Retries, Tls, checked_headers
from ._replicas import Attempts, Replica, Replicas
from ._request import Place
from ._tensors import Array
from ._trace import RequestRecord

T = TypeVar("T")
R = TypeVar("R")
E = TypeVar("E", bound=TritiumError)

# What a better message about an error may cost beyond the error itself.
EXPLANATION_S = 1.0
# What is asked for such a message, or is no fault where it is not there.
UNEXPLAINED = frozenset(("ModelConfig", "RepositoryIndex", "ServerMetadata"))
# How soon after a model was asked about again because of its version it is so once more: during a rollout replicas
# serve two versions, and every other answer is of the other one.
_REFRESH_S = 5.0
# How often a server that is not ready yet is asked.
POLL_S = 0.05
# How a server says that it has no such endpoint, which is no fault of the model's.
_NOT_OFFERED = frozenset(("403", "404", "405", "501", "PERMISSION_DENIED", "UNIMPLEMENTED"))


class Call(Protocol):
    """What those who watch are told of a call, and whether it may be made twice: a request or a query."""

    @property
    def operation(self) -> str:
        """What is done."""

    @property
    def model(self) -> str | None:
        """The model that it is about."""

    @property
    def version(self) -> str:
        """The version of it."""

    @property
    def request_id(self) -> str:
        """The id that the server sees."""

    @property
    def repeatable(self) -> bool:
        """Whether it may be made twice."""


class BaseClient(Generic[T]):
    """The settings of a client, and its servers. `T` is the way to one of them."""

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        timeout_s: float = 30.0,
        headers: Mapping[str, str] | None = None,
        auth: ApiKey | BearerToken | None = None,
        tls: Tls | None = None,
        retries: Retries | None = None,
        limits: Limits | None = None,
        on_request: Callable[[RequestRecord], object] | None = None,
    ) -> None:
        urls = [url] if isinstance(url, str) else list(url)
        if not urls:
            raise InputError("The 'url' parameter must be a URL or several, got none")
        self._endpoints = [Endpoint.parse(item) for item in urls]
        if len({endpoint.protocol for endpoint in self._endpoints}) > 1:
            raise InputError(f"The 'url' parameter must name servers of one protocol, got {', '.join(urls)}")
        if tls is not None and not all(endpoint.secure for endpoint in self._endpoints):
            raise InputError("The 'tls' parameter needs https:// or grpcs:// URLs")
        self._timeout_s = positive(timeout_s)
        self._retries = retries or Retries()
        self._on_request = on_request
        self._contracts: dict[tuple[str, str], Contract] = {}
        self._refreshed_s: dict[str, float] = {}
        self._server: dict[str, Any] | None = None
        self._regions: list[Any] = []
        sent = checked_headers(headers, auth, over_grpc=self._over_grpc)
        self._headers, self._tls = sent, tls or Tls()
        transports = self._transports(sent, self._tls, limits or Limits())
        self._replicas: Replicas[T] = Replicas(transports, self._retries)

    def _transports(self, headers: Headers, tls: Tls, limits: Limits) -> list[T]:
        raise NotImplementedError

    def __repr__(self) -> str:
        """As in ``Client('http://127.0.0.1:8000')``; headers and credentials may be secrets and are left out."""
        return f"{type(self).__name__}({', '.join(map(repr, self.urls))})"

    @property
    def url(self) -> str:
        """The server's URL, port included; the first, if there are several."""
        return str(self._endpoints[0])

    @property
    def urls(self) -> tuple[str, ...]:
        """The URLs of all servers."""
        return tuple(map(str, self._endpoints))

    @property
    def _over_grpc(self) -> bool:
        return self._endpoints[0].protocol == "gRPC"

    def _deadline(self, timeout_s: float | None) -> Deadline:
        """How long a call may take: what it says itself, or the client's own."""
        return Deadline(self._timeout_s if timeout_s is None else positive(timeout_s))

    def _contract_of(self, metadata: Any, config: Any, version: str) -> Contract:
        known = self._read(lambda: ModelMetadata.from_json(metadata, config))
        extensions = (self._server or {}).get("extensions") or ()
        return Contract(known, config, extensions, version, binary=self._over_grpc)

    def _forget(self, model: str) -> None:
        """A model is not as it was: what is known of it is asked for again."""
        for key in [key for key in self._contracts if key[0] == model]:
            self._contracts.pop(key, None)

    def _refresh(self, model: str) -> None:
        """A model showed itself to be another one: forget what is known of it, if that has not just been done."""
        now_s = time.monotonic()
        if now_s - self._refreshed_s.get(model, -_REFRESH_S) >= _REFRESH_S:
            self._refreshed_s[model] = now_s
            self._forget(model)

    def _need(self, extension: str) -> None:
        """Refuse what this server has not.

        Raises:
            InputError: it does not offer that extension of the V2 protocol.
        """
        offered = (self._server or {}).get("extensions") or ()
        if extension not in offered:
            raise InputError(
                f"{self.url} has no {extension}; it offers {', '.join(sorted(offered)) or 'no extensions'}"
            )

    @property
    def _may_cancel(self) -> bool:
        """Whether the server lives on when a stream is cancelled; Triton 2.51 may die of it (server#7368)."""
        server = self._server or {}
        major, _, rest = str(server.get("version", "")).partition(".")
        minor = rest.partition(".")[0]
        old = major.isdecimal() and minor.isdecimal() and (int(major), int(minor)) <= (2, 51)
        return not (server.get("name") == "triton" and old)

    def _statuses(self, index: Any) -> list[ModelStatus]:
        return self._read(lambda: [ModelStatus.from_json(item) for item in index])

    def _read(self, parse: Callable[[], R]) -> R:
        """Make sense of an answer that is JSON, but may be anybody's."""
        try:
            return parse()
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise no_answer(self._endpoints[0], f"{type(exc).__name__}: {exc}") from exc

    def _secrets(self) -> dict[str, Any]:
        """What another process needs to ask the same server."""
        tls = {key: None if path is None else str(Path(path).resolve()) for key, path in vars(self._tls).items()}
        return {"headers": dict(self._headers), "tls": tls}

    def _never_ready(self, model: str | None, deadline: Deadline, reason: CallError | None) -> DeadlineExceededError:
        """The error for what was waited for in vain."""
        what = self.url if model is None else f"{model!r} at {self.url}"
        why = f": {reason}" if reason else ""
        return DeadlineExceededError(
            f"{what} was not ready within {deadline.limit_s:g} s{why}", url=self.url, model=model
        )

    def _locate(self, array: Array) -> Place | None:
        """Where in this client's shared memory an array lies."""
        for region in self._regions:
            place: Place | None = region.locate(array)
            if place is not None:
                return place
        return None


def record(
    call: Call, replica: Replica[Any], attempts: Attempts[Any] | None, began_s: float, error: BaseException | None
) -> RequestRecord:
    """What the hook is told of a call that is over; its first try was the only one where there are no attempts."""
    return RequestRecord(
        operation=call.operation,
        model=call.model,
        version=call.version,
        request_id=call.request_id,
        url=str(replica.transport.endpoint),
        attempts=attempts.count if attempts else 1,
        duration_s=time.perf_counter() - began_s,
        waited_s=attempts.waited_s if attempts else 0.0,
        error=error,
    )


def told(exc: E, call: Call) -> E:
    """An error with what was not known where it was raised."""
    exc.model = exc.model or call.model
    exc.request_id = exc.request_id or call.request_id
    return exc


def not_offered(exc: ServerError) -> bool:
    """Whether an error says only that the server has no such endpoint."""
    return exc.status in _NOT_OFFERED
