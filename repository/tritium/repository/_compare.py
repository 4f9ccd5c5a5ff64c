"""When two outputs are the same: the one judgement behind the gate, `verify` and the load tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritium.client import InputError

Array = NDArray[Any]


# Least and most of a tolerance; beyond these an answer that has nothing to do with the expected one passes, or none.
TOLERANCES = {"atol": (0.0, 1e3), "rtol": (0.0, 1.0), "agreement": (0.5, 1.0)}


@dataclass(frozen=True)
class Tolerance:
    """What may differ from what was expected.

    Attributes:
        atol: a float may differ by ``atol + rtol * |expected|``; everything else must be equal.
        rtol: see ``atol``.
        agreement: the share of rows that must be so. Below 1 for models that decide by thresholds, such as trees: a
            row that lies next to one can fall on its other side in float32.
    """

    atol: float = 1e-5
    rtol: float = 0.0
    agreement: float = 1.0

    def check(self) -> None:
        """Refuse what proves nothing.

        Raises:
            InputError: a number is negative, not finite, or so wide that a wrong answer passes.
        """
        for name, (least, most) in TOLERANCES.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise InputError(f"A Tolerance's {name!r} must be from {least:g} to {most:g}, got {value!r} instead")


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far apart an output is from what was expected.

    Attributes:
        output: the output's name.
        ok: whether it is within the tolerance.
        agreement: the share of rows in which every element is within the tolerance; 0 where the shapes differ.
        max_abs: the largest ``|got - expected|``, infinite where something is not finite or the shapes differ; None for
            what is no float.
        max_rel: the largest ``|got - expected| / |expected|``, where an ``|expected|`` below the absolute tolerance
            counts as that; None for what is no float.
        detail: where and how they differ; empty if they do not.
    """

    output: str
    ok: bool
    agreement: float
    max_abs: float | None = None
    max_rel: float | None = None
    detail: str = ""

    def __str__(self) -> str:
        """As in ``probabilities: max |Δ| 2.4e-07 (relative 1.1e-05)`` and ``label: agreement 100.0%``."""
        found = []
        if self.max_abs is not None and self.max_rel is not None:
            found.append(f"max |Δ| {_short(self.max_abs)} (relative {_short(self.max_rel)})")
        if self.max_abs is None or self.agreement < 1:
            found.append(f"agreement {self.agreement:.1%}")
        return f"{self.output}: {', '.join(found)}" + (f" ({self.detail})" if self.detail else "")

    def figures(self) -> dict[str, float]:
        """What was measured, by name, as a manifest keeps it."""
        measured = {"agreement": self.agreement, "max_abs": self.max_abs, "max_rel": self.max_rel}
        return {name: value for name, value in measured.items() if value is not None}


def is_float(array: Array) -> bool:
    """Whether an array holds floats, bfloat16 (which numpy takes for a foreign dtype) included."""
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def compare(
    expected: Mapping[str, Array],
    got: Mapping[str, Array],
    tolerance: Tolerance = Tolerance(),
) -> list[Difference]:
    """Compare each expected output with the one that was got, by name; the first axis counts the rows."""
    return [_compare_one(name, array, got.get(name), tolerance) for name, array in expected.items()]


def rows_within(expected: Array, got: Array, tolerance: Tolerance) -> NDArray[np.bool_]:
    """Which rows are within the tolerance; of shape (rows,), where what has no axis is one row."""
    within = _within(expected, got, tolerance)
    return np.atleast_1d(within.all(axis=tuple(range(1, within.ndim))))


def rows_alike(expected: Mapping[str, Array], got: Mapping[str, Array], tolerance: Tolerance) -> NDArray[np.bool_]:
    """Which rows are within the tolerance in every output; of shape (rows,)."""
    within = [rows_within(array, got[name], tolerance) for name, array in expected.items()]
    return np.asarray(np.logical_and.reduce(within))


def _compare_one(name: str, expected: Array, got: Array | None, tolerance: Tolerance) -> Difference:
    def apart(detail: str) -> Difference:
        worst = float("inf") if is_float(expected) else None
        return Difference(output=name, ok=False, agreement=0.0, max_abs=worst, max_rel=worst, detail=detail)

    if got is None:
        return apart("the output is missing")
    if got.dtype.kind != expected.dtype.kind and {got.dtype.kind, expected.dtype.kind} - set("OSU"):
        return apart(f"{got.dtype} instead of {expected.dtype}")
    if got.shape != expected.shape:
        return apart(f"shape {got.shape} instead of {expected.shape}")
    within = _within(expected, got, tolerance)
    rows = rows_within(expected, got, tolerance)
    agreement = float(rows.mean()) if rows.size else 1.0
    finite, max_abs, max_rel = True, None, None
    if is_float(expected):
        wanted = expected.astype(np.float64)
        difference = np.abs(got.astype(np.float64) - wanted)
        # A NaN must not hide in a maximum, nor among the rows that may disagree.
        finite = bool(np.isfinite(difference).all())
        max_abs = max_rel = float("inf")
        if finite:
            max_abs = float(difference.max(initial=0.0))
            floor = np.maximum(np.abs(wanted), max(tolerance.atol, np.finfo(np.float64).tiny))
            max_rel = float((difference / floor).max(initial=0.0))
    detail = ""
    if not within.all():
        at = tuple(int(i) for i in np.argwhere(~within)[0])
        wrong = within.size - int(within.sum())
        detail = f"{wrong} of {within.size} differ, first at {at}: {_plain(got[at])} instead of {_plain(expected[at])}"
    return Difference(
        output=name,
        ok=finite and agreement >= tolerance.agreement,
        agreement=agreement,
        max_abs=max_abs,
        max_rel=max_rel,
        detail=detail,
    )


def _within(expected: Array, got: Array, tolerance: Tolerance) -> NDArray[np.bool_]:
    """Element by element; a NaN is within no tolerance."""
    if is_float(expected):
        wanted = expected.astype(np.float64)
        difference = np.abs(got.astype(np.float64) - wanted)
        return np.asarray(difference <= tolerance.atol + tolerance.rtol * np.abs(wanted))
    return np.asarray(_text(expected) == _text(got) if expected.dtype.kind in "OSU" else expected == got)


def _plain(item: Any) -> str:
    return f"{float(item):.6g}" if is_float(np.asarray(item)) else repr(item)


def _short(value: float) -> str:
    return f"{value:.1e}" if value else "0"


def _text(array: Array) -> Array:
    """Strings and bytes on common ground."""
    flat = [item.encode() if isinstance(item, str) else bytes(item) for item in array.ravel()]
    result = np.empty(len(flat), dtype=object)
    result[:] = flat
    return result.reshape(array.shape)
