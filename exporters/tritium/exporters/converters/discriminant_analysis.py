"""Linear discriminants."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._ops import Ops
from ._registry import Converter


def _classify(estimator: Any, x: str, ops: Ops) -> list[str]:
    scores = ops.Add(ops.MatMul(x, estimator.coef_.T.astype(float)), estimator.intercept_.astype(float))
    if len(estimator.classes_) > 2:
        return [ops.labels(ops.argmax(scores), estimator.classes_), ops.Softmax(scores, axis=1)]
    second = ops.Sigmoid(scores)
    place = ops.integer(ops.Squeeze(ops.Greater(scores, 0.0), np.array([1])))
    return [ops.labels(place, estimator.classes_), ops.Concat(ops.Sub(1.0, second), second, axis=1)]


def _discriminants(estimator: Any, x: str, ops: Ops) -> str:
    scalings = estimator.scalings_.astype(float)
    seen = x if estimator.solver == "eigen" else ops.Sub(x, estimator.xbar_.astype(float))
    return ops.columns(ops.MatMul(seen, scalings), range(estimator._max_components))


CONVERTERS = [
    Converter(
        estimator="sklearn.discriminant_analysis.LinearDiscriminantAnalysis",
        convert=_classify,
        transform=_discriminants,
    )
]
