"""What may differ by the precision of a model's weights and tensors, and which of them are numbers at all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritium.repository import Tolerance, is_float

# A few units in the last place, over a few layers.
_TOLERANCES = {
    "bfloat16": Tolerance(atol=2e-2, rtol=4e-2),
    "float16": Tolerance(atol=2e-3, rtol=5e-3),
}
_TOLERANCE = Tolerance(atol=1e-5, rtol=1e-5)


def default_tolerance(dtypes: Iterable[str]) -> Tolerance:
    """What the least precise of some numpy dtypes, by name, asks for."""
    names = set(dtypes)
    return next((tolerance for name, tolerance in _TOLERANCES.items() if name in names), _TOLERANCE)


def finite_rows(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows, along the first axis, hold finite numbers only, or what is no float at all: of shape (rows,)."""
    if not is_float(array):
        return np.ones(len(array), bool)
    return np.asarray(np.isfinite(array.astype(np.float64)).all(axis=tuple(range(1, array.ndim))))
