"""Restricted Boltzmann machines."""

from __future__ import annotations

from typing import Any

from ._ops import Ops
from ._registry import Converter


def _bernoulli_rbm(estimator: Any, x: str, ops: Ops) -> str:
    seen = ops.MatMul(x, estimator.components_.T.astype(float))
    return ops.Sigmoid(ops.Add(seen, estimator.intercept_hidden_.astype(float)))


CONVERTERS = [Converter(estimator="sklearn.neural_network.BernoulliRBM", convert=_bernoulli_rbm)]
