"""Scalers that round where scikit-learn rounds, so that trees behind them see the very same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ._ops import Ops
from ._registry import Converter


def _standard(estimator: Any, x: str, ops: Ops) -> str:
    """What was fitted is rounded first."""
    x = ops.single(x)
    if estimator.with_mean:
        x = ops.Sub(x, estimator.mean_.astype(np.float32))
    if estimator.with_std:
        x = ops.Div(x, estimator.scale_.astype(np.float32))
    return ops.double(x)


def _steps(*steps: tuple[str, str]) -> Callable[[Any, str, Ops], str]:
    """Operators with an attribute of the estimator each, rounded after each; one that is None is left out."""

    def convert(estimator: Any, x: str, ops: Ops) -> str:
        for operator, attribute in steps:
            values = getattr(estimator, attribute)
            if values is not None:
                x = ops.double(ops.single(getattr(ops, operator)(x, np.asarray(values, dtype=np.float64))))
        if getattr(estimator, "clip", False):
            low, high = estimator.feature_range
            x = ops.Min(ops.Max(x, float(low)), float(high))
        return x

    return convert


def _power(estimator: Any, x: str, ops: Ops) -> str:
    """Yeo and Johnson, "A new family of power transformations" (2000), or Box and Cox (1964); what is missing stays."""
    box_cox = estimator.method == "box-cox"
    columns = []
    for place, power in enumerate(np.asarray(estimator.lambdas_, dtype=np.float64)):
        column = ops.columns(x, [place])
        # A column that was empty when it was fitted stays as it is.
        if np.isnan(power):
            columns.append(column)
        elif box_cox:
            columns.append(_grown(ops, column, float(power)))
        else:
            above = _grown(ops, ops.Add(ops.Max(column, 0.0), 1.0), float(power))
            below = _grown(ops, ops.Sub(1.0, ops.Min(column, 0.0)), float(2 - power))
            whole = ops.Where(ops.GreaterOrEqual(column, 0.0), above, ops.Neg(below))
            columns.append(ops.Where(ops.IsNaN(column), column, whole))
    x = ops.Concat(*columns, axis=1)
    if estimator.standardize:
        scaler = estimator._scaler
        x = ops.Div(ops.Sub(x, scaler.mean_.astype(np.float64)), scaler.scale_.astype(np.float64))
    return x


def _grown(ops: Ops, x: str, power: float) -> str:
    if abs(power) < np.spacing(1.0):
        return ops.Log(x)
    return ops.Div(ops.Sub(ops.Pow(x, power), 1.0), power)


CONVERTERS = [
    Converter(estimator="sklearn.preprocessing.MaxAbsScaler", convert=_steps(("Div", "scale_"))),
    Converter(estimator="sklearn.preprocessing.MinMaxScaler", convert=_steps(("Mul", "scale_"), ("Add", "min_"))),
    Converter(estimator="sklearn.preprocessing.PowerTransformer", convert=_power),
    Converter(estimator="sklearn.preprocessing.RobustScaler", convert=_steps(("Sub", "center_"), ("Div", "scale_"))),
    Converter(estimator="sklearn.preprocessing.StandardScaler", convert=_standard),
]
