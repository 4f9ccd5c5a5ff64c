"""Distances and kernels between rows and the points that an estimator keeps, in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .._errors import ConversionError
from ._ops import Array, Ops


def squared_distances(ops: Ops, x: str, points: Array) -> str:
    """Squared Euclidean distances, of shape (rows, points)."""
    points = np.asarray(points, dtype=np.float64)
    products = ops.MatMul(x, -2 * points.T)
    squares = ops.Add(ops.Add(ops.sum(ops.Mul(x, x)), products), (points**2).sum(axis=1))
    return ops.Relu(squares)


_MINKOWSKI: Mapping[float, str] = {1: "manhattan", 2: "euclidean"}
_OTHERS = ("cosine", "euclidean", "minkowski with p=1 or p=2", "sqeuclidean")


def distances(ops: Ops, x: str, points: Array, metric: Any, p: float = 2) -> str:
    """Distances, of shape (rows, points).

    Raises:
        ConversionError: there is no such metric.
    """
    name = _MINKOWSKI.get(p, metric) if metric == "minkowski" else metric
    if name in ("euclidean", "l2"):
        return ops.Sqrt(squared_distances(ops, x, points))
    if name == "sqeuclidean":
        return squared_distances(ops, x, points)
    if name == "cosine":
        return ops.Sub(1.0, _cosine(ops, x, np.asarray(points, dtype=np.float64), {}))
    apart = {"manhattan": ops.ReduceSum, "l1": ops.ReduceSum, "cityblock": ops.ReduceSum, "chebyshev": ops.ReduceMax}
    if name not in apart:
        raise ConversionError(f"The metric {metric!r} has no graph; use one of {sorted([*apart, *_OTHERS])}")
    return apart[name](ops.Abs(_differences(ops, x, points)), np.array([2]), keepdims=0)


def kernel(ops: Ops, x: str, points: Array, name: Any, parameters: Mapping[str, Any]) -> str:
    """A kernel of `sklearn.metrics.pairwise`, of shape (rows, points).

    Args:
        ops: for the graph.
        x: the rows.
        points: what they are compared with.
        name: the kernel's.
        parameters: ``gamma``, ``degree`` and ``coef0``; scikit-learn's defaults hold for those that are None.

    Raises:
        ConversionError: there is no such kernel.
    """
    if name == "precomputed":
        return x
    if name not in _KERNELS:
        raise ConversionError(f"The kernel {name!r} has no graph; use one of {sorted(_KERNELS)}")
    points = np.asarray(points, dtype=np.float64)
    given = {key: value for key, value in parameters.items() if value is not None}
    gamma = 1.0 if name == "chi2" else 1 / points.shape[1]
    return _KERNELS[name](ops, x, points, {"gamma": gamma, "degree": 3, "coef0": 1, **given})


def _differences(ops: Ops, x: str, points: Array) -> str:
    return ops.Sub(ops.Unsqueeze(x, np.array([1])), np.asarray(points, dtype=np.float64)[np.newaxis])


def _linear(ops: Ops, x: str, points: Array, _: Mapping[str, float]) -> str:
    return ops.MatMul(x, points.T)


def _affine(ops: Ops, x: str, points: Array, given: Mapping[str, float]) -> str:
    return ops.Add(ops.MatMul(x, given["gamma"] * points.T), float(given["coef0"]))


def _polynomial(ops: Ops, x: str, points: Array, given: Mapping[str, float]) -> str:
    return ops.Pow(_affine(ops, x, points, given), float(given["degree"]))


def _sigmoid(ops: Ops, x: str, points: Array, given: Mapping[str, float]) -> str:
    return ops.Tanh(_affine(ops, x, points, given))


def _rbf(ops: Ops, x: str, points: Array, given: Mapping[str, float]) -> str:
    return ops.Exp(ops.Mul(squared_distances(ops, x, points), -float(given["gamma"])))


def _laplacian(ops: Ops, x: str, points: Array, given: Mapping[str, float]) -> str:
    return ops.Exp(ops.Mul(distances(ops, x, points, "manhattan"), -float(given["gamma"])))


def _cosine(ops: Ops, x: str, points: Array, _: Mapping[str, float]) -> str:
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    lengths = ops.Sqrt(ops.sum(ops.Mul(x, x)))
    # A row of zeros is at right angles to everything, as in scikit-learn.
    safe = ops.Where(ops.Equal(lengths, 0.0), 1.0, lengths)
    return ops.MatMul(ops.Div(x, safe), (points / np.where(norms == 0, 1, norms)).T)


def _additive_chi2(ops: Ops, x: str, points: Array, _: Mapping[str, float]) -> str:
    differences = _differences(ops, x, points)
    sums = ops.Add(ops.Unsqueeze(x, np.array([1])), points[np.newaxis])
    safe = ops.Where(ops.Equal(sums, 0.0), 1.0, sums)
    terms = ops.Div(ops.Mul(differences, differences), safe)
    return ops.Neg(ops.sum(terms, axis=2, keepdims=False))


def _chi2(ops: Ops, x: str, points: Array, given: Mapping[str, float]) -> str:
    return ops.Exp(ops.Mul(_additive_chi2(ops, x, points, given), float(given["gamma"])))


_KERNELS: Mapping[str, Callable[[Ops, str, Array, Mapping[str, float]], str]] = {
    "additive_chi2": _additive_chi2,
    "chi2": _chi2,
    "cosine": _cosine,
    "laplacian": _laplacian,
    "linear": _linear,
    "poly": _polynomial,
    "polynomial": _polynomial,
    "rbf": _rbf,
    "sigmoid": _sigmoid,
}
