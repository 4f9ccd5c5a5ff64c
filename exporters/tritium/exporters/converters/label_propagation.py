"""Labels that spread from row to row."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._errors import ConversionError
from ._kernels import kernel, squared_distances
from ._ops import Ops
from ._registry import Converter


def _label_propagation(estimator: Any, x: str, ops: Ops) -> list[str]:
    shares = np.asarray(estimator.label_distributions_, dtype=np.float64)
    if estimator.kernel == "rbf":
        weighted = ops.MatMul(kernel(ops, x, estimator.X_, "rbf", {"gamma": estimator.gamma}), shares)
    elif estimator.kernel == "knn":
        apart = squared_distances(ops, x, estimator.X_)
        _, nearest = ops.several("TopK", 2, apart, np.array([estimator.n_neighbors]), largest=0)
        weighted = ops.sum(ops.Gather(shares, nearest), axis=1, keepdims=False)
    else:
        raise ConversionError(f"The kernel of {type(estimator).__name__} must be 'rbf' or 'knn' to have a graph")
    probabilities = ops.Div(weighted, ops.sum(weighted))
    return [ops.labels(ops.argmax(probabilities), estimator.classes_), probabilities]


CONVERTERS = [
    Converter(estimator="sklearn.semi_supervised.LabelPropagation", convert=_label_propagation),
    Converter(estimator="sklearn.semi_supervised.LabelSpreading", convert=_label_propagation),
]
