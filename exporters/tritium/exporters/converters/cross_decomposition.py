"""Latent variables of two matrices."""

from __future__ import annotations

from typing import Any

from ._ops import Ops
from ._registry import Converter


def _predict(estimator: Any, x: str, ops: Ops) -> str:
    return ops.Add(ops.MatMul(ops.Sub(x, estimator._x_mean), estimator.coef_.T), estimator.intercept_)


def _weigh(estimator: Any, x: str, ops: Ops) -> str:
    scaled = ops.Div(ops.Sub(x, estimator._x_mean), estimator._x_std)
    return ops.MatMul(scaled, estimator.x_weights_)


CONVERTERS = [
    Converter(estimator="sklearn.cross_decomposition.CCA", convert=_predict),
    Converter(estimator="sklearn.cross_decomposition.PLSCanonical", convert=_predict),
    Converter(estimator="sklearn.cross_decomposition.PLSRegression", convert=_predict),
    Converter(estimator="sklearn.cross_decomposition.PLSSVD", convert=_weigh),
]
