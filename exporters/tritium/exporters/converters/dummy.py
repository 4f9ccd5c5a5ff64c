"""What always gives the same answer."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._errors import ConversionError
from ._ops import Array, Ops
from ._registry import Converter


def _dummy_classifier(estimator: Any, x: str, ops: Ops) -> list[str]:
    if estimator.strategy in ("stratified", "uniform") or estimator.n_outputs_ > 1:
        raise ConversionError(
            f"A DummyClassifier with strategy={estimator.strategy!r} and {estimator.n_outputs_} targets has no graph: "
            "a model answers the same each time, and this one has one target; use 'prior' or 'most_frequent'"
        )
    rows = np.ones((1, estimator.n_features_in_))
    label, probabilities = estimator.predict(rows), estimator.predict_proba(rows)
    place = _each_row(ops, x, np.searchsorted(estimator.classes_, label).astype(np.int64))
    return [ops.labels(place, estimator.classes_), _each_row(ops, x, np.asarray(probabilities, dtype=np.float64))]


def _dummy_regressor(estimator: Any, x: str, ops: Ops) -> str:
    return _each_row(ops, x, np.asarray(estimator.constant_, dtype=np.float64).reshape(1, -1))


def _each_row(ops: Ops, x: str, answer: Array) -> str:
    rows = ops.Slice(ops.Shape(x), np.array([0]), np.array([1]))
    shape = ops.Concat(rows, np.array(answer.shape[1:], dtype=np.int64), axis=0) if answer.ndim > 1 else rows
    return ops.Expand(answer, shape)


CONVERTERS = [
    Converter(estimator="sklearn.dummy.DummyClassifier", convert=_dummy_classifier),
    Converter(estimator="sklearn.dummy.DummyRegressor", convert=_dummy_regressor),
]
