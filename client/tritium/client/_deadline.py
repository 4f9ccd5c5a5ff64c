"""How long a call may take in all."""

from __future__ import annotations

import math
import time

from ._endpoint import Endpoint
from ._errors import DeadlineExceededError, InputError

# Three years: more than any clock here can be asked to wait would be an error in the system's own words.
_LONGEST_S = 1e8


class Deadline:
    """The end of a call's time, on the monotonic clock.

    Attributes:
        limit_s: what the caller allowed.
        ends_s: when it is over, as :func:`time.monotonic` counts.
    """

    __slots__ = ("ends_s", "limit_s")

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.ends_s = time.monotonic() + limit_s

    def left_s(self) -> float:
        """Seconds that are left; 0 or less if it is over."""
        return self.ends_s - time.monotonic()

    def shortened(self, limit_s: float) -> Deadline:
        """A deadline that is not later than this one, and at most so many seconds away."""
        return Deadline(min(limit_s, self.left_s()))

    def need_s(self, endpoint: Endpoint) -> float:
        """Seconds that are left.

        Raises:
            DeadlineExceededError: none are.
        """
        left_s = self.ends_s - time.monotonic()
        if left_s <= 0:
            raise self.exceeded(endpoint)
        return left_s

    def exceeded(self, endpoint: Endpoint) -> DeadlineExceededError:
        """The error for an answer that took too long. It names the limit that the caller knows."""
        return DeadlineExceededError(
            f"{endpoint} did not answer within {self.limit_s:g} s; raise timeout_s if it needs longer",
            url=str(endpoint),
        )


def positive(timeout_s: float, name: str = "timeout_s") -> float:
    """A number of seconds above 0.

    Raises:
        InputError: it is none.
    """
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0 < timeout_s < math.inf:
        raise InputError(f"The {name!r} parameter must be a number of seconds above 0, got {timeout_s!r} instead")
    return min(float(timeout_s), _LONGEST_S)
