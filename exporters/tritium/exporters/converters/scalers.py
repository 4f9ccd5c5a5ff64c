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


CONVERTERS = [
    Converter(estimator="sklearn.preprocessing.MaxAbsScaler", convert=_steps(("Div", "scale_"))),
    Converter(estimator="sklearn.preprocessing.MinMaxScaler", convert=_steps(("Mul", "scale_"), ("Add", "min_"))),
    Converter(estimator="sklearn.preprocessing.RobustScaler", convert=_steps(("Sub", "center_"), ("Div", "scale_"))),
    Converter(estimator="sklearn.preprocessing.StandardScaler", convert=_standard),
]
