"""The client: a server's address and what can be asked of it."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from ._errors import (
    DeadlineExceededError,
    InputError,
    ModelNotFoundError,
    ModelNotReadyError,
    ServerError,
    TritiumError,
)
from ._model import Model, _closest
from ._tensors import Array
from ._transport import Endpoint, InferRequest, deadline_exceeded, open_transport

_EXPLANATION_S = 1.0


@dataclass(frozen=True)
class ModelStatus:
    """One version of a model, as the server's repository index has it.

    Attributes:
        state: ``READY``, ``LOADING``, ``UNLOADING`` or ``UNAVAILABLE``; empty for a model that was never loaded.
        reason: why it is in that state, if the server says so.
    """

    name: str
    version: str
    state: str
    reason: str


class Client:
    """A Triton Inference Server, over HTTP or gRPC.

    >>> with Client("http://127.0.0.1:8000") as client:
    ...     digits = client.model("digits_cnn")
    ...     probabilities = digits(image)

    One client may be shared between threads.

    Args:
        url: ``http://``, ``https://``, ``grpc://`` or ``grpcs://``, a host and a port; the scheme chooses the
            protocol, and https and grpcs check the server's certificate.
        timeout_s: seconds that a call may take in all, unless it says otherwise.
        headers: sent with every call, for instance an API key.

    Raises:
        InputError: the URL or the timeout cannot be used.
    """

    def __init__(self, url: str, *, timeout_s: float = 30.0, headers: Mapping[str, str] | None = None) -> None:
        self._endpoint = Endpoint.parse(url)
        self._timeout_s = _positive(timeout_s)
        self._transport = open_transport(self._endpoint, headers or {})

    def __repr__(self) -> str:
        """As in ``Client('http://127.0.0.1:8000')``; headers may be secrets and are left out."""
        return f"Client({self.url!r})"

    def __enter__(self) -> Client:
        """The client itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection."""
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._transport.close()

    @property
    def url(self) -> str:
        """The server's URL, port included."""
        return str(self._endpoint)

    def model(self, name: str, version: str | int | None = None) -> Model:
        """A handle on a model; ``version`` None lets the server choose. Asks the server nothing yet."""
        if not name or "/" in name:
            raise InputError(f"The 'name' parameter of model must be the name of a model, got {name!r} instead")
        if version is not None and not re.fullmatch("[0-9]+", str(version)):
            raise InputError(f"The 'version' parameter of model must be a whole number, got {version!r} instead")
        return Model(self, name, "" if version is None else str(version))

    def models(self) -> list[ModelStatus]:
        """Every model in the server's repository, with the state of each version."""
        index = self._ask("get_model_repository_index")
        return [ModelStatus(m["name"], m.get("version", ""), m.get("state", ""), m.get("reason", "")) for m in index]

    def is_ready(self, model: str | None = None) -> bool:
        """Whether the server, or a model on it, says that it is ready.

        Raises:
            TransportError: no server answered.
        """
        rpc, args = ("is_model_ready", (model,)) if model else ("is_server_ready", ())
        return bool(self._ask(rpc, *args))

    def load_model(self, name: str, *, timeout_s: float = 300.0) -> None:
        """Load a model, or load it again with the versions that its folder has now.

        If that fails, the versions that were being served go on being served.

        Raises:
            ServerError: the model does not load; the message has the server's reason.
        """
        self._transport.call("load_model", name, timeout_s=timeout_s)

    def unload_model(self, name: str) -> None:
        """Take a model out of service. Returns before the last requests are answered."""
        self._transport.call("unload_model", name, timeout_s=self._timeout_s)

    def _statuses(self, timeout_s: float) -> list[ModelStatus]:
        index = self._ask("get_model_repository_index", timeout_s=timeout_s)
        return [ModelStatus(m["name"], m.get("version", ""), m.get("state", ""), m.get("reason", "")) for m in index]

    def _ask(self, rpc: str, *args: str, timeout_s: float | None = None) -> Any:
        try:
            return self._transport.call(rpc, *args, timeout_s=self._timeout_s if timeout_s is None else timeout_s)
        except (ModelNotFoundError, ModelNotReadyError) as exc:
            raise self._explained(exc) from exc

    def _infer(self, request: InferRequest, ends_s: float, limit_s: float) -> dict[str, Array]:
        try:
            return self._transport.infer(request, self._left(ends_s, limit_s))
        except DeadlineExceededError as exc:
            # What is said is the limit that the caller knows, not what was left of it.
            raise deadline_exceeded(self._endpoint, limit_s) from exc
        except (ModelNotFoundError, ModelNotReadyError) as exc:
            raise self._explained(exc) from exc

    def _limit(self, timeout_s: float | None) -> float:
        """What a call may take: what it says itself, or the client's own."""
        return self._timeout_s if timeout_s is None else _positive(timeout_s)

    def _left(self, ends_s: float, limit_s: float) -> float:
        """What is left of a call's time until `ends_s` on the monotonic clock."""
        left_s = ends_s - time.monotonic()
        if left_s <= 0:
            raise deadline_exceeded(self._endpoint, limit_s)
        return left_s

    def _explained(self, exc: ServerError) -> ServerError:
        """The same error with what there is instead, where the server tells."""
        try:
            # The answer is there already; a better message must not cost much more.
            statuses = self._statuses(min(self._timeout_s, _EXPLANATION_S))
        except TritiumError:
            return exc
        names = sorted({status.name for status in statuses})
        if exc.model in names:
            served = [status.version for status in statuses if status.name == exc.model and status.state == "READY"]
            known = f"It serves version {', '.join(served)}" if served else "It is in the repository but not loaded"
        else:
            known = f"There are {', '.join(names)}" if names else "There are no models"
            known += _closest(exc.model or "", names)
        return type(exc)(f"{exc}. {known}", url=exc.url, model=exc.model, status=exc.status)


def _positive(timeout_s: float) -> float:
    if not 0 < timeout_s < math.inf:
        raise InputError(f"The 'timeout_s' parameter must be a number of seconds above 0, got {timeout_s!r} instead")
    return float(timeout_s)
