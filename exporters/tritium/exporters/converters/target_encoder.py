"""Categories as the mean target that they go with."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._errors import ConversionError
from ._ops import Ops
from ._registry import Converter


def _target_encoder(estimator: Any, x: str, ops: Ops) -> str:
    classes = len(estimator.classes_) if estimator.target_type_ == "multiclass" else 1
    means = np.ravel(estimator.target_mean_)
    parts = []
    for place, encoding in enumerate(estimator.encodings_):
        feature, mean = place // classes, float(means[place % classes])
        categories = estimator.categories_[feature]
        if categories.dtype.kind == "O" and not all(isinstance(item, str) for item in categories):
            raise ConversionError("A TargetEncoder has a graph if no category is missing; fill them with a word")
        column = ops.columns(x, [feature])
        # What was never seen stands for the mean: a row without a hit gets nothing added to it.
        hit = ops.double(ops.Equal(column, _comparable(categories)[np.newaxis]))
        parts.append(ops.Add(ops.MatMul(hit, (np.asarray(encoding, dtype=float) - mean)[:, np.newaxis]), mean))
    return ops.Concat(*parts, axis=1)


def _comparable(categories: Any) -> Any:
    return categories.astype(object) if categories.dtype.kind in "OU" else categories.astype(np.float64)


CONVERTERS = [Converter(estimator="sklearn.preprocessing.TargetEncoder", convert=_target_encoder)]
