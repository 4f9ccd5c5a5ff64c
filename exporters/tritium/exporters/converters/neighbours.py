"""Neighbours: the nearest, and those within a radius."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._errors import ConversionError
from ._kernels import distances
from ._ops import Ops
from ._registry import Converter


def _nearest_classifier(estimator: Any, x: str, ops: Ops) -> list[str]:
    places, weights = _nearest(estimator, x, ops)
    several = estimator.outputs_2d_
    classes = estimator.classes_ if several else [estimator.classes_]
    numbers = np.asarray(estimator._y).reshape(len(estimator._y), -1)
    shares = []
    for number, known in zip(numbers.T, classes, strict=True):
        member = np.equal.outer(number, np.arange(len(known))).astype(float)
        shares.append(ops.sum(ops.Mul(ops.Gather(member, places), weights), keepdims=False))
    labels = [ops.labels(ops.argmax(share), known) for share, known in zip(shares, classes, strict=True)]
    if not several:
        return [*labels, *shares]
    label = ops.Concat(*[ops.Unsqueeze(item, np.array([1])) for item in labels], axis=1)
    if len({len(known) for known in classes}) > 1:
        return [label, *shares]
    return [label, ops.Concat(*[ops.Unsqueeze(share, np.array([1])) for share in shares], axis=1)]


def _nearest_regressor(estimator: Any, x: str, ops: Ops) -> str:
    places, weights = _nearest(estimator, x, ops)
    targets = np.asarray(estimator._y, dtype=np.float64).reshape(len(estimator._y), -1)
    return ops.sum(ops.Mul(ops.Gather(targets, places), weights), keepdims=False)


def _nearest(estimator: Any, x: str, ops: Ops) -> tuple[str, str]:
    """The nearest fitted rows, of shape (rows, neighbours), and their shares, of shape (rows, neighbours, 1)."""
    apart = _apart(estimator, x, ops)
    near, places = ops.several("TopK", 2, apart, np.array([estimator.n_neighbors]), largest=0)
    weights = _of_distances(estimator, near, ops.Add(ops.Mul(near, 0.0), 1.0), ops)
    return places, ops.Unsqueeze(ops.Div(weights, ops.sum(weights)), np.array([2]))


def _classifier(estimator: Any, x: str, ops: Ops) -> list[str]:
    if estimator.outputs_2d_:
        raise ConversionError("A RadiusNeighborsClassifier of several targets has no graph; fit one for each")
    if estimator.outlier_label is None:
        raise ConversionError(
            "This RadiusNeighborsClassifier raises for a row without neighbours, where a model must answer; set its "
            "outlier_label, such as to 'most_frequent'"
        )
    classes = estimator.classes_
    weights = _weights(estimator, x, ops)
    votes = ops.MatMul(weights, np.equal.outer(estimator._y, np.arange(len(classes))).astype(float))
    total = ops.sum(votes)
    alone = ops.Equal(total, 0.0)
    outlier = np.equal(classes, estimator.outlier_label_[0]).astype(float)[np.newaxis]
    probabilities = ops.Where(alone, outlier, ops.Div(votes, ops.Where(alone, 1.0, total)))
    if outlier.any():
        return [ops.labels(ops.argmax(probabilities), classes), probabilities]
    place = ops.Where(ops.Squeeze(alone, np.array([1])), np.array(len(classes)), ops.argmax(probabilities))
    return [ops.labels(place, np.append(classes, estimator.outlier_label_[0])), probabilities]


def _regressor(estimator: Any, x: str, ops: Ops) -> str:
    weights = _weights(estimator, x, ops)
    targets = np.asarray(estimator._y, dtype=np.float64).reshape(len(estimator._y), -1)
    return ops.Div(ops.MatMul(weights, targets), ops.sum(weights))


def _transformer(estimator: Any, x: str, ops: Ops) -> str:
    apart = _apart(estimator, x, ops)
    near = ops.LessOrEqual(apart, float(estimator.radius))
    return ops.double(near) if estimator.mode == "connectivity" else ops.Where(near, apart, 0.0)


def _weights(estimator: Any, x: str, ops: Ops) -> str:
    """How much each fitted row counts, of shape (rows, fitted rows)."""
    apart = _apart(estimator, x, ops)
    return _of_distances(estimator, apart, ops.double(ops.LessOrEqual(apart, float(estimator.radius))), ops)


def _of_distances(estimator: Any, apart: str, near: str, ops: Ops) -> str:
    """Weights by distances, where `near` is 1 for those that count and 0 for the others."""
    if estimator.weights in ("uniform", None):
        return near
    if estimator.weights != "distance":
        raise ConversionError(f"The weights of {type(estimator).__name__} must be 'uniform' or 'distance'")
    # A fitted row that is the row itself counts alone.
    same = ops.double(ops.Equal(apart, 0.0))
    some = ops.Greater(ops.sum(same), 0.0)
    return ops.Where(some, same, ops.Div(near, ops.Where(ops.Equal(apart, 0.0), 1.0, apart)))


def _apart(estimator: Any, x: str, ops: Ops) -> str:
    """Distances to all fitted rows."""
    fitted = estimator._fit_X
    return distances(ops, x, fitted.toarray() if hasattr(fitted, "toarray") else fitted, estimator.metric, estimator.p)


CONVERTERS = [
    Converter(estimator="sklearn.neighbors.KNeighborsClassifier", convert=_nearest_classifier),
    Converter(estimator="sklearn.neighbors.KNeighborsRegressor", convert=_nearest_regressor),
    Converter(estimator="sklearn.neighbors.RadiusNeighborsClassifier", convert=_classifier),
    Converter(estimator="sklearn.neighbors.RadiusNeighborsRegressor", convert=_regressor),
    Converter(estimator="sklearn.neighbors.RadiusNeighborsTransformer", convert=_transformer),
]
