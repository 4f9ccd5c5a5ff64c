"""Bins."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._ops import Ops
from ._registry import Converter


def _k_bins(estimator: Any, x: str, ops: Ops) -> str:
    parts = []
    for place, (edges, bins) in enumerate(zip(estimator.bin_edges_, estimator.n_bins_, strict=True)):
        # A value on an edge belongs to the bin above it.
        passed = ops.GreaterOrEqual(ops.columns(x, [place]), np.asarray(edges[np.newaxis, 1:-1], dtype=np.float64))
        number = ops.sum(ops.double(passed))
        parts.append(number if estimator.encode == "ordinal" else ops.Equal(number, np.arange(float(bins))[np.newaxis]))
    return ops.double(ops.Concat(*parts, axis=1))


CONVERTERS = [Converter(estimator="sklearn.preprocessing.KBinsDiscretizer", convert=_k_bins)]
