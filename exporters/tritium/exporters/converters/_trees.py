"""Thresholds of trees."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ._ops import Array


def float32_below(thresholds: Array | float) -> NDArray[np.float32]:
    """The largest float32 that is not above: the same float32 values are at most that."""
    exact = np.asarray(thresholds, dtype=np.float64)
    rounded = exact.astype(np.float32)
    return np.asarray(np.where(rounded > exact, np.nextafter(rounded, np.float32(-np.inf)), rounded))
