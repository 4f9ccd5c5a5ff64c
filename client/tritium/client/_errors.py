"""Every exception of the client, and the root that the whole of Tritium shares.

TritiumError
├── InputError (ValueError)              an argument of yours; nothing was sent
├── MissingExtraError (ImportError)      an optional package is not installed
├── TransportError                       no answer arrived
│   ├── ConnectFailedError
│   └── DeadlineExceededError (TimeoutError)
└── ServerError                          the server answered with an error
    ├── ModelNotFoundError
    ├── ModelNotReadyError
    ├── RequestRejectedError             the request itself is wrong: do not repeat it
    ├── AccessDeniedError
    ├── ServerBusyError                  queue full or shutting down: try again later
    └── InferenceFailedError             the model failed on this request
"""

from __future__ import annotations


class TritiumError(Exception):
    """The root of every error that Tritium raises on purpose.

    Attributes:
        exit_code: what the ``tritium`` command exits with: 1, the verdict is no; 2, wrong usage.
    """

    exit_code = 1


class InputError(TritiumError, ValueError):
    """An argument cannot be used. The message says what was wrong, what is valid and what to do."""

    exit_code = 2


class MissingExtraError(TritiumError, ImportError):
    """A package that only some parts of Tritium need is not installed."""

    exit_code = 2

    def __init__(self, package: str, extra: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(f"This needs the package {package!r}. Install it with: pip install 'tritium[{extra}]'")


class TransportError(TritiumError):
    """No answer arrived.

    Attributes:
        url: the server that was asked.
    """

    def __init__(self, message: str, *, url: str) -> None:
        self.url = url
        super().__init__(message)


class ConnectFailedError(TransportError):
    """There is no server at the URL, or the connection broke."""


class DeadlineExceededError(TransportError, TimeoutError):
    """The answer took longer than ``timeout_s``."""


class ServerError(TritiumError):
    """The server answered with an error.

    Attributes:
        url: the server that was asked.
        model: the model that was asked for, if one was.
        status: the HTTP status code, or the name of the gRPC status.
    """

    def __init__(self, message: str, *, url: str, model: str | None = None, status: str | None = None) -> None:
        self.url = url
        self.model = model
        self.status = status
        super().__init__(message)


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
