"""What settings must be."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from numbers import Integral, Real


def is_number(value: object) -> bool:
    """Whether it is a finite real number, Python's or numpy's; booleans are none."""
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def is_whole(value: object) -> bool:
    """Whether it is a whole number by its type, Python's or numpy's; booleans are none."""
    return not isinstance(value, bool) and isinstance(value, Integral)


def suggestion(value: object, valid: Iterable[str]) -> str:
    """The end of a message about a value that is none of the valid ones, with the closest of them if one is close."""
    close = difflib.get_close_matches(str(value).lower(), list(valid), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
