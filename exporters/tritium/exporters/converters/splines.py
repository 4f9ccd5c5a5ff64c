"""B-splines as piecewise polynomials."""

from __future__ import annotations

from math import factorial
from typing import Any

import numpy as np

from .._errors import ConversionError
from ._ops import Ops
from ._registry import Converter


def _spline_transformer(estimator: Any, x: str, ops: Ops) -> str:
    if estimator.extrapolation == "error":
        raise ConversionError(
            "A SplineTransformer with extrapolation='error' raises where a model must answer; use 'constant', "
            "'linear', 'continue' or 'periodic'"
        )
    parts = [_one(estimator, spline, ops.columns(x, [place]), ops) for place, spline in enumerate(estimator.bsplines_)]
    if estimator.handle_missing == "zeros":
        parts = [ops.Where(ops.IsNaN(ops.columns(x, [place])), 0.0, part) for place, part in enumerate(parts)]
    return ops.Concat(*parts, axis=1)


def _one(estimator: Any, spline: Any, x: str, ops: Ops) -> str:
    """All splines of one column, of shape (rows, splines)."""
    degree = spline.k
    # What lies before the first of these knots and after the last only shapes the splines between them.
    knots = spline.t[degree : len(spline.t) - degree]
    # Taylor's coefficients at the start of each piece, the highest first, of shape (pieces, splines).
    coefficients = [spline(knots[:-1], nu=power) / factorial(power) for power in range(degree, -1, -1)]
    low, high = knots[0], knots[-1]
    inside = x
    if estimator.extrapolation == "periodic":
        turns = ops.Floor(ops.Div(ops.Sub(x, low), high - low))
        inside = ops.Sub(x, ops.Mul(turns, high - low))
    elif estimator.extrapolation != "continue":
        inside = ops.Min(ops.Max(x, low), high)
    passed = ops.integer(ops.GreaterOrEqual(inside, knots[np.newaxis, 1:-1]))
    piece = (
        ops.sum(passed, keepdims=False) if len(knots) > 2 else ops.Mul(ops.sum(ops.integer(inside), keepdims=False), 0)
    )
    along = ops.Sub(inside, ops.Unsqueeze(ops.Gather(knots[:-1], piece), np.array([1])))
    value = ops.Gather(coefficients[0], piece)
    slope = None
    for row in coefficients[1:]:
        slope = value if slope is None else ops.Add(ops.Mul(slope, along), value)
        value = ops.Add(ops.Mul(value, along), ops.Gather(row, piece))
    if estimator.extrapolation == "linear" and slope is not None:
        value = ops.Add(value, ops.Mul(slope, ops.Sub(x, inside)))
    splines = spline.c.shape[1]
    return value if estimator.include_bias else ops.columns(value, np.arange(splines - 1))


CONVERTERS = [Converter(estimator="sklearn.preprocessing.SplineTransformer", convert=_spline_transformer)]
