"""When two outputs are the same: the one judgement behind the gate, `verify` and the load tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Tolerance:
    """What a float may differ: ``|got - expected| <= atol + rtol * |expected|``. Everything else must be equal."""

    atol: float = 1e-5
    rtol: float = 0.0


@dataclass(frozen=True)
class Difference:
    """How far apart an output is from what was expected.

    Attributes:
        output: the output's name.
        measure: ``max |Δ|`` for floats, ``agreement`` (the share of equal elements) for everything else.
        value: its value; infinite or 0 where the shapes differ.
        ok: whether it is within the tolerance.
        detail: where and how they differ; empty if they do not.
    """

    output: str
    measure: str
    value: float
    ok: bool
    detail: str = ""

    def __str__(self) -> str:
        """As in ``probabilities: max |Δ| 2.4e-07``."""
        value = f"{self.value:.1e}" if self.measure == "max |Δ|" else f"{self.value:.1%}"
        return f"{self.output}: {self.measure} {value}" + (f" ({self.detail})" if self.detail else "")


def is_float(array: Array) -> bool:
    """Whether an array holds floats, bfloat16 (which numpy takes for a foreign dtype) included."""
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def compare(
    expected: Mapping[str, Array],
    got: Mapping[str, Array],
    tolerance: Tolerance = Tolerance(),
) -> list[Difference]:
    """Compare each expected output with the one that was got, by name."""
    return [_compare_one(name, array, got.get(name), tolerance) for name, array in expected.items()]


def _compare_one(name: str, expected: Array, got: Array | None, tolerance: Tolerance) -> Difference:
    floats = is_float(expected)
    measure, worst = ("max |Δ|", float("inf")) if floats else ("agreement", 0.0)
    if got is None:
        return Difference(name, measure, worst, ok=False, detail="the output is missing")
    if got.dtype.kind != expected.dtype.kind and {got.dtype.kind, expected.dtype.kind} - set("OSU"):
        return Difference(name, measure, worst, ok=False, detail=f"{got.dtype} instead of {expected.dtype}")
    if got.shape != expected.shape:
        return Difference(name, measure, worst, ok=False, detail=f"shape {got.shape} instead of {expected.shape}")
    if floats:
        difference = np.abs(got.astype(np.float64) - expected.astype(np.float64))
        # A NaN is within no tolerance, and must not hide in the maximum.
        bad = ~(difference <= tolerance.atol + tolerance.rtol * np.abs(expected.astype(np.float64)))
        value = float("inf") if np.isnan(difference).any() else float(difference.max(initial=0.0))
    else:
        bad = _text(expected) != _text(got) if expected.dtype.kind in "OSU" else expected != got
        value = 1.0 - float(bad.mean()) if bad.size else 1.0
    if not bad.any():
        return Difference(name, measure, value, ok=True)
    at = tuple(int(i) for i in np.argwhere(bad)[0])
    detail = f"{int(bad.sum())} of {bad.size} differ, first at {at}: {got[at]!r} instead of {expected[at]!r}"
    return Difference(name, measure, value, ok=False, detail=detail)


def _text(array: Array) -> Array:
    """Strings and bytes on common ground."""
    flat = [item.encode() if isinstance(item, str) else bytes(item) for item in array.ravel()]
    result = np.empty(len(flat), dtype=object)
    result[:] = flat
    return result.reshape(array.shape)
