"""What a server's answer means: which of our errors it is, if it is one. Pure, and the same for both protocols."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime

from . import _errors as errors
from ._endpoint import Endpoint
from ._metadata import ModelStatus

# Triton tells errors apart by words more finely than by status; the first pattern that fits decides.
_BY_MESSAGE: Sequence[tuple[str, type[errors.ServerError]]] = (
    (r"no available versions|is not at ready state|is not ready", errors.ModelNotReadyError),
    (r"^Request for unknown model|^requested model '.*' is not available", errors.ModelNotFoundError),
    (r"unable to find .*shared memory", errors.RequestRejectedError),
    # Over gRPC Triton says it as if it were busy; trying again would be in vain.
    (r"^This (API|protocol) is restricted", errors.AccessDeniedError),
    (r"exceeds maximum queue size|server is (exiting|stopping)|timeout expired", errors.ServerBusyError),
)
_BY_STATUS: Mapping[str, type[errors.ServerError]] = {
    "400": errors.RequestRejectedError,
    "401": errors.AccessDeniedError,
    "403": errors.AccessDeniedError,
    "404": errors.ModelNotFoundError,
    "422": errors.RequestRejectedError,
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


def server_error(
    message: str,
    status: str,
    endpoint: Endpoint,
    model: str | None,
    *,
    kind: type[errors.ServerError] | None = None,
    retry_after_s: float | None = None,
) -> errors.ServerError:
    """The error that a server answered with; `kind` where more than its words and status say which."""
    # Triton repeats the id that the error has anyway.
    message = re.sub(r"^\[request id: [^\]]*\] ", "", message)
    # A model's own words may be the same; they come with the statuses of its failure.
    if kind is None and status not in ("500", "INTERNAL", "UNKNOWN"):
        kind = next((kind for pattern, kind in _BY_MESSAGE if re.search(pattern, message, re.IGNORECASE)), None)
    kind = kind or _BY_STATUS.get(status, errors.ServerError)
    subject = f"{model!r} at {endpoint}" if model else str(endpoint)
    error = kind(f"{subject} answered: {message or 'no message'}", url=str(endpoint), model=model, status=status)
    error.retry_after_s = retry_after_s
    return error


def retry_after_s(value: str) -> float | None:
    """How many seconds a Retry-After header means, a number of them or a date; None if it means nothing."""
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def no_server(endpoint: Endpoint, cause: BaseException | str, *, sent: bool) -> errors.ConnectFailedError:
    """The error for a connection that is not to be had, or broke."""
    error = errors.ConnectFailedError(
        f"No connection to {endpoint} ({cause}). Is the server running, and is this its {endpoint.protocol} port?",
        url=str(endpoint),
    )
    error.sent = sent
    return error


def no_answer(endpoint: Endpoint, cause: BaseException | str) -> errors.ProtocolError:
    """The error for what arrived and is no answer."""
    return errors.ProtocolError(
        f"{endpoint} answers, but not as a Triton server does ({cause}). Is this its {endpoint.protocol} port?",
        url=str(endpoint),
    )


def client_closed() -> errors.InputError:
    """The error for a use after the end."""
    return errors.InputError("This client is closed; make a new one")


def explained(exc: errors.ServerError, statuses: Sequence[ModelStatus]) -> errors.ServerError:
    """The same error about a model that is not served, with what there is instead."""
    names = sorted({status.name for status in statuses})
    if exc.model in names:
        ready = [status.version for status in statuses if status.name == exc.model and status.state == "READY"]
        valid = [version for version in ready if version]
        known = f"It serves version {', '.join(valid)}" if valid else "It is in the repository but not loaded"
        if ready and not valid:
            known = "It has no numbered versions"
    else:
        valid = names
        known = f"There are {', '.join(names)}" if names else "There are no models"
        known += errors.closest(exc.model or "", names)
    error = type(exc)(
        f"{exc}. {known}", url=exc.url, model=exc.model, request_id=exc.request_id, status=exc.status, valid=valid
    )
    error.retry_after_s = exc.retry_after_s
    return error
