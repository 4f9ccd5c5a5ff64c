"""Isotonic regression."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._errors import ConversionError
from ._curves import interpolate
from ._ops import Ops
from ._registry import Converter


def _isotonic(estimator: Any, x: str, ops: Ops) -> str:
    if estimator.out_of_bounds == "raise":
        raise ConversionError(
            "An IsotonicRegression with out_of_bounds='raise' raises where a model must answer; use 'clip'"
        )
    x = ops.Reshape(x, np.array([-1, 1]))
    places = np.asarray(estimator.X_thresholds_, dtype=np.float64)
    value = interpolate(ops, x, places, estimator.y_thresholds_)
    if estimator.out_of_bounds == "nan":
        outside = ops.Or(ops.Less(x, places[0]), ops.Greater(x, places[-1]))
        value = ops.Where(outside, np.float64("nan"), value)
    return value


CONVERTERS = [Converter(estimator="sklearn.isotonic.IsotonicRegression", convert=_isotonic)]
