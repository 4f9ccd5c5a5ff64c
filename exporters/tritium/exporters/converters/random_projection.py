"""Random projections."""

from __future__ import annotations

from typing import Any

from ._ops import Ops
from ._registry import Converter


def _sparse_random_projection(estimator: Any, x: str, ops: Ops) -> str:
    return ops.MatMul(x, estimator.components_.toarray().T.astype(float))


CONVERTERS = [
    Converter(estimator="sklearn.random_projection.SparseRandomProjection", convert=_sparse_random_projection)
]
