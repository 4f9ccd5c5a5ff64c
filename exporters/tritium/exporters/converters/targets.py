"""Regressors of transformed targets."""

from __future__ import annotations

from typing import Any

from ._functions import invert
from ._ops import Ops
from ._registry import Converter


def _transformed_target(estimator: Any, x: str, ops: Ops) -> str:
    prediction = ops.double(ops.answers(estimator.regressor_, x)["prediction"])
    return invert(ops, estimator.transformer_, prediction)


CONVERTERS = [Converter(estimator="sklearn.compose.TransformedTargetRegressor", convert=_transformed_target)]
