"""What is told of a call to those who watch: an id, W3C trace context, a record for the hook. Pure."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from ._errors import InputError


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One call, after it is over: what ``on_request`` is given.

    Attributes:
        operation: ``infer``, ``stream``, or what was asked beside inference, as gRPC calls it: ``ModelMetadata``, ….
        model: the model that was asked for, if one was.
        version: the version that was asked for; empty if the server chose.
        request_id: the id of an inference, which the server's log and trace have too.
        url: the server that was asked last.
        attempts: how often it was sent.
        duration_s: seconds from the call to its result, with all tries and pauses.
        waited_s: seconds of that in pauses before further tries.
        error: what it ended with; None if all is well.
    """

    operation: str
    model: str | None
    version: str
    request_id: str
    url: str
    attempts: int
    duration_s: float
    waited_s: float
    error: BaseException | None


def new_request_id() -> str:
    """An id that nobody else has: 64 random bits in hexadecimal. Forked processes draw others."""
    return f"{random.getrandbits(64):016x}"


def checked_request_id(request_id: str) -> str:
    """A caller's id.

    Raises:
        InputError: it could not be told from the rest of a log line or a header.
    """
    if not isinstance(request_id, str) or not request_id.isprintable() or len(request_id) > 256:
        raise InputError(
            f"The 'request_id' parameter must be printable text of at most 256 characters, got {request_id!r}"
        )
    return request_id


def trace_context() -> Mapping[str, str]:
    """The W3C headers of the span that is open now; none without OpenTelemetry, or without a span.

    Who uses OpenTelemetry has imported it; so it is not imported here.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return _NO_HEADERS
    if not trace.get_current_span().get_span_context().is_valid:
        return _NO_HEADERS
    from opentelemetry import propagate

    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers


_NO_HEADERS: Mapping[str, str] = {}
