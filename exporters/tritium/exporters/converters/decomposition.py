"""Decompositions whose transform is linear."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._ops import Ops
from ._registry import Converter


def _factor_analysis(estimator: Any, x: str, ops: Ops) -> str:
    weighted = estimator.components_ / estimator.noise_variance_
    covariance = np.linalg.inv(np.eye(len(estimator.components_)) + weighted @ estimator.components_.T)
    return ops.MatMul(ops.Sub(x, estimator.mean_.astype(float)), (weighted.T @ covariance).astype(float))


def _fast_ica(estimator: Any, x: str, ops: Ops) -> str:
    centred = ops.Sub(x, estimator.mean_.astype(float)) if estimator.whiten else x
    return ops.MatMul(centred, estimator.components_.T.astype(float))


def _sparse_pca(estimator: Any, x: str, ops: Ops) -> str:
    """The ridge regression of centred rows on the components, solved once for all."""
    components = estimator.components_.astype(float)
    gram = components @ components.T + estimator.ridge_alpha * np.eye(len(components))
    return ops.MatMul(ops.Sub(x, estimator.mean_.astype(float)), np.linalg.solve(gram, components).T)


CONVERTERS = [
    Converter(estimator="sklearn.decomposition.FactorAnalysis", convert=_factor_analysis),
    Converter(estimator="sklearn.decomposition.FastICA", convert=_fast_ica),
    Converter(estimator="sklearn.decomposition.MiniBatchSparsePCA", convert=_sparse_pca),
    Converter(estimator="sklearn.decomposition.SparsePCA", convert=_sparse_pca),
]
