"""Embeddings of new rows by their neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._errors import ConversionError
from ._kernels import distances, squared_distances
from ._ops import Ops
from ._registry import Converter
from ._solve import solve

_MOST_NEIGHBOURS = 30


def _isomap(estimator: Any, x: str, ops: Ops) -> str:
    if estimator.n_neighbors is None:
        raise ConversionError("An Isomap has a graph if it takes a number of neighbours; set n_neighbors, not radius")
    apart = distances(ops, x, estimator.nbrs_._fit_X, estimator.metric, estimator.p)
    near, places = ops.several("TopK", 2, apart, np.array([estimator.n_neighbors]), largest=0)
    paths = ops.Gather(estimator.dist_matrix_.astype(float), places)
    shortest = ops.ReduceMin(ops.Add(paths, ops.Unsqueeze(near, np.array([2]))), np.array([1]), keepdims=0)
    return _centred_kernel_pca(estimator.kernel_pca_, ops.Mul(ops.Mul(shortest, shortest), -0.5), ops)


def _centred_kernel_pca(estimator: Any, kernel: str, ops: Ops) -> str:
    centerer = estimator._centerer
    means = ops.ReduceMean(kernel, np.array([1]), keepdims=1)
    centred = ops.Add(ops.Sub(ops.Sub(kernel, centerer.K_fit_rows_.astype(float)), means), float(centerer.K_fit_all_))
    values = np.asarray(estimator.eigenvalues_, dtype=np.float64)
    scales = np.divide(1, np.sqrt(values), out=np.zeros_like(values), where=values > 0)
    return ops.MatMul(centred, estimator.eigenvectors_.astype(float) * scales)


def _locally_linear(estimator: Any, x: str, ops: Ops) -> str:
    """Rows as mixtures of their neighbours, and the same mixtures of the neighbours' embeddings."""
    size = estimator.n_neighbors
    if size > _MOST_NEIGHBOURS:
        raise ConversionError(f"A LocallyLinearEmbedding has a graph with {_MOST_NEIGHBOURS} neighbours or fewer")
    points = np.asarray(estimator.nbrs_._fit_X, dtype=np.float64)
    _, places = ops.several("TopK", 2, squared_distances(ops, x, points), np.array([size]), largest=0)
    apart = ops.Sub(ops.Gather(points, places), ops.Unsqueeze(x, np.array([1])))
    gram = ops.MatMul(apart, ops.Transpose(apart, perm=[0, 2, 1]))
    trace = ops.ReduceSum(ops.Mul(gram, np.eye(size)[np.newaxis]), np.array([1, 2]), keepdims=1)
    ridge = ops.Mul(ops.Where(ops.Greater(trace, 0.0), trace, 1.0), float(estimator.reg))
    system = ops.Add(gram, ops.Mul(ridge, np.eye(size)[np.newaxis]))
    ones = ops.Add(ops.Mul(trace, 0.0), np.ones((1, size, 1)))
    weights = solve(ops, system, ones, size)
    weights = ops.Div(weights, ops.sum(weights))
    return ops.sum(ops.Mul(ops.Gather(estimator.embedding_.astype(float), places), weights), keepdims=False)


CONVERTERS = [
    Converter(estimator="sklearn.manifold.Isomap", convert=_isomap),
    Converter(estimator="sklearn.manifold.LocallyLinearEmbedding", convert=_locally_linear),
]
