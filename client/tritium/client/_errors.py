"""Every exception of the client, and the root that the whole of Tritium shares.

TritiumError
├── InputError (ValueError)              an argument of yours; nothing was sent
├── MissingExtraError (ImportError)      an optional package is not installed
├── CallError                            a call to a server failed
│   ├── TransportError                   no answer arrived
│   │   ├── ConnectFailedError           nobody listens, or the connection broke
│   │   ├── DeadlineExceededError (TimeoutError)
│   │   └── ProtocolError                what arrived is no answer to this request
│   └── ServerError                      the server answered with an error
│       ├── ModelNotFoundError
│       ├── ModelNotReadyError
│       ├── RequestRejectedError         the request itself is wrong: do not repeat it
│       ├── AccessDeniedError
│       ├── ServerBusyError              queue full or shutting down: try again later
│       └── InferenceFailedError         the model failed on this request
└── BulkError                            some rows of many failed; the others are in it
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class TritiumError(Exception):
    """The root of every error that Tritium raises on purpose.

    Attributes:
        exit_code: what the ``tritium`` command exits with: 1, the verdict is no; 2, wrong usage.
    """

    exit_code: int = 1


class InputError(TritiumError, ValueError):
    """An argument cannot be used. The message says what was wrong, what is valid and what to do."""

    exit_code: int = 2


class MissingExtraError(TritiumError, ImportError):
    """A package that only some parts of Tritium need is not installed."""

    exit_code: int = 2

    def __init__(self, package: str, extra: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(f"This needs the package {package!r}. Install it with: pip install 'tritium[{extra}]'")

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        """So that it can be sent to another process."""
        return type(self), (self.package, self.extra)


class CallError(TritiumError):
    """A call to a server failed.

    Attributes:
        url: the server that was asked last.
        model: the model that was asked for, if one was.
        request_id: the id of the request, which the server's log and trace have too.
        status: the HTTP status code, or the name of the gRPC status, if one arrived.
        valid: what would have been right, where that is known: names of models, or versions.
    """

    def __init__(
        self,
        message: str,
        *,
        url: str = "",
        model: str | None = None,
        request_id: str = "",
        status: str | None = None,
        valid: Sequence[str] = (),
    ) -> None:
        self.url = url
        self.model = model
        self.request_id = request_id
        self.status = status
        self.valid: tuple[str, ...] = tuple(valid)
        super().__init__(message)


class TransportError(CallError):
    """No answer arrived.

    Attributes:
        sent: whether the request may have reached the server, and so may have run there.
    """

    sent: bool = True


class ConnectFailedError(TransportError):
    """There is no server at the URL, or the connection broke."""


class DeadlineExceededError(TransportError, TimeoutError):
    """The answer took longer than ``timeout_s``."""


class ProtocolError(TransportError):
    """What arrived is no answer to this request: not HTTP, not the V2 protocol, cut short, or another request's."""


class ServerError(CallError):
    """The server answered with an error.

    Attributes:
        retry_after_s: seconds after which the server asks to be tried again, if it said so.
    """

    retry_after_s: float | None = None


class ModelNotFoundError(ServerError):
    """The server has no such model, or no such version of it."""


class ModelNotReadyError(ServerError):
    """The server knows the model but does not serve it now."""


class RequestRejectedError(ServerError):
    """The server finds the request itself wrong."""


class AccessDeniedError(ServerError):
    """The server refuses this caller."""


class ServerBusyError(ServerError):
    """The server is overloaded, or is shutting down."""


class InferenceFailedError(ServerError):
    """The model failed on this request."""


class BulkError(TritiumError):
    """Some rows of :meth:`Model.predict` have no results.

    Attributes:
        failed: the rows without results, as ranges in ascending order, and why; where calling was given up, the
            rows that were not sent are among them, with the error that ended it.
        results: what ``predict`` would have returned; rows that failed hold zeros, or None for strings. None if
            nothing arrived.
    """

    def __init__(self, message: str, *, failed: Sequence[tuple[range, TritiumError]] = (), results: Any = None) -> None:
        self.failed: tuple[tuple[range, TritiumError], ...] = tuple(failed)
        self.results = results
        super().__init__(message)

    @property
    def failed_rows(self) -> NDArray[np.int64]:
        """The index of every row without a result: int64, of shape (rows,), ascending."""
        rows = [np.arange(span.start, span.stop, dtype=np.int64) for span, _ in self.failed]
        return np.concatenate(rows) if rows else np.empty(0, np.int64)
