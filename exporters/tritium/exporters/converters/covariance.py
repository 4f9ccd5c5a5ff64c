"""Outliers by their distance from a robust ellipse."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._ops import Ops
from ._registry import Converter


def _elliptic_envelope(estimator: Any, x: str, ops: Ops) -> list[str]:
    centred = ops.Sub(x, estimator.location_.astype(float))
    squares = ops.sum(ops.Mul(ops.MatMul(centred, estimator.get_precision().astype(float)), centred))
    score = ops.Sub(-float(estimator.offset_), squares)
    return [ops.Where(ops.GreaterOrEqual(score, 0.0), np.array(1), np.array(-1)), score]


CONVERTERS = [Converter(estimator="sklearn.covariance.EllipticEnvelope", convert=_elliptic_envelope)]
