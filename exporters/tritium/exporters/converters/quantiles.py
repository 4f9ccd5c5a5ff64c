"""Quantiles."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._curves import interpolate
from ._ops import Ops
from ._registry import Converter

# Acklam's rational approximation of the normal distribution's quantiles, in the middle and in the tails; its relative
# error is below 1.2e-9.
_MIDDLE = (
    (
        -39.69683028665376,
        220.9460984245205,
        -275.9285104469687,
        138.357751867269,
        -30.66479806614716,
        2.506628277459239,
    ),
    (-54.47609879822406, 161.5858368580409, -155.6989798598866, 66.80131188771972, -13.28068155288572, 1.0),
)
_TAIL = (
    (
        -7.784894002430293e-3,
        -0.3223964580411365,
        -2.400758277161838,
        -2.549732539343734,
        4.374664141464968,
        2.938163982698783,
    ),
    (7.784695709041462e-3, 0.3224671290700398, 2.445134137142996, 3.754408661907416, 1.0),
)
_BREAK = 0.02425
# scikit-learn's bounds of a probability, so that its quantile is finite.
_SMALLEST = 1e-7


def _quantile_transformer(estimator: Any, x: str, ops: Ops) -> str:
    references = np.asarray(estimator.references_, dtype=np.float64)
    parts = []
    for place, quantiles in enumerate(np.asarray(estimator.quantiles_, dtype=np.float64).T):
        column = ops.columns(x, [place])
        # From below and from above: where quantiles repeat, their middle counts.
        up = interpolate(ops, column, quantiles, references)
        down = ops.Neg(interpolate(ops, ops.Neg(column), -quantiles[::-1], -references[::-1]))
        middle = ops.Mul(ops.Add(up, down), 0.5)
        normal = estimator.output_distribution == "normal"
        margin = _SMALLEST if normal else 0.0
        low = ops.Where(ops.LessOrEqual(ops.Sub(column, margin), quantiles[0]), 0.0, middle)
        share = ops.Where(ops.GreaterOrEqual(ops.Add(column, margin), quantiles[-1]), 1.0, low)
        missing = ops.IsNaN(column)
        value = _normal(ops, share) if normal else share
        parts.append(ops.Where(missing, column, value))
    return ops.Concat(*parts, axis=1)


def _normal(ops: Ops, share: str) -> str:
    """The normal distribution's quantiles of probabilities."""
    inside = ops.Min(ops.Max(share, _SMALLEST - np.spacing(1.0)), 1 - (_SMALLEST - np.spacing(1.0)))
    centred = ops.Sub(inside, 0.5)
    square = ops.Mul(centred, centred)
    middle = ops.Mul(centred, ops.Div(_polynomial(ops, square, _MIDDLE[0]), _polynomial(ops, square, _MIDDLE[1])))
    smaller = ops.Min(inside, ops.Sub(1.0, inside))
    root = ops.Sqrt(ops.Mul(ops.Log(smaller), -2.0))
    tail = ops.Div(_polynomial(ops, root, _TAIL[0]), _polynomial(ops, root, _TAIL[1]))
    tail = ops.Where(ops.Less(centred, 0.0), tail, ops.Neg(tail))
    return ops.Where(ops.Less(smaller, _BREAK), tail, middle)


def _polynomial(ops: Ops, x: str, coefficients: tuple[float, ...]) -> str:
    value = ops.Mul(x, coefficients[0])
    for coefficient in coefficients[1:-1]:
        value = ops.Mul(ops.Add(value, coefficient), x)
    return ops.Add(value, coefficients[-1])


CONVERTERS = [Converter(estimator="sklearn.preprocessing.QuantileTransformer", convert=_quantile_transformer)]
