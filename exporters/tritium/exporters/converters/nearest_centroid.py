"""The class whose centre is nearest."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._kernels import distances, squared_distances
from ._ops import Ops
from ._registry import Converter


def _nearest_centroid(estimator: Any, x: str, ops: Ops) -> list[str]:
    classes = estimator.classes_
    spread = np.asarray(estimator.within_class_std_dev_, dtype=np.float64)
    spread = np.where(spread == 0, 1.0, spread)
    centres = np.asarray(estimator.centroids_, dtype=np.float64)
    if estimator.metric != "euclidean":
        return [ops.labels(ops.argmax(ops.Neg(distances(ops, x, centres, estimator.metric))), classes)]
    scaled = squared_distances(ops, ops.Div(x, spread), centres / spread)
    scores = ops.Sub(2 * np.log(estimator.class_prior_), scaled)
    even = np.isclose(estimator.class_prior_, 1 / len(classes)).all()
    place = ops.argmax(ops.Neg(squared_distances(ops, x, centres)) if even else scores)
    if len(classes) > 2:
        probabilities = ops.Softmax(scores, axis=1)
    else:
        # Of two classes scikit-learn takes the sigmoid of the difference.
        second = ops.Sigmoid(ops.Sub(ops.columns(scores, [1]), ops.columns(scores, [0])))
        probabilities = ops.Concat(ops.Sub(1.0, second), second, axis=1)
    return [ops.labels(place, classes), probabilities]


CONVERTERS = [Converter(estimator="sklearn.neighbors.NearestCentroid", convert=_nearest_centroid)]
