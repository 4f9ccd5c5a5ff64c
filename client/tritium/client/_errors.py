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

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class TritiumError(Exception):
    """The root of every error that Tritium raises on purpose.

    Attributes:
        exit_code: what the ``tritium`` command exits with: 1, the verdict is no; 2, wrong usage.
        url: the server that was asked last, if one was.
        model: the model that it is about, if it is about one.
        request_id: the id of the request, which the server's log and trace have too, if one was sent.
        status: the HTTP status code, or the name of the gRPC status, if one arrived.
        valid: what would have been right, where that is known: names of models, versions, inputs or outputs.
    """

    exit_code: int = 1

    def __init__(
        self,
        message: str = "",
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
    """A call to a server failed."""


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
    """Some rows of :meth:`Model.predict` have no results; the attributes of every error are those of the first failure.

    Attributes:
        failed: the rows without results, as ranges in ascending order, and why; where calling was given up, the
            rows that were not sent are among them, with the error that ended it.
        results: what ``predict`` would have returned; rows that failed hold zeros, or None for strings. None if
            nothing arrived.
    """

    def __init__(self, message: str, *, failed: Sequence[tuple[range, TritiumError]] = (), results: Any = None) -> None:
        self.failed: tuple[tuple[range, TritiumError], ...] = tuple(failed)
        self.results = results
        first = self.failed[0][1] if self.failed else TritiumError()
        super().__init__(
            message,
            url=first.url,
            model=first.model,
            request_id=first.request_id,
            status=first.status,
            valid=first.valid,
        )

    @property
    def failed_rows(self) -> NDArray[np.int64]:
        """The index of every row without a result: int64, of shape (rows,), ascending."""
        rows = [np.arange(span.start, span.stop, dtype=np.int64) for span, _ in self.failed]
        return np.concatenate(rows) if rows else np.empty(0, np.int64)


def closest(name: str, names: Sequence[str]) -> str:
    """A suggestion for a name that is not there, as the end of a message."""
    close = difflib.get_close_matches(name, names, n=1)
    return f". Did you mean {close[0]!r}?" if close else ""
