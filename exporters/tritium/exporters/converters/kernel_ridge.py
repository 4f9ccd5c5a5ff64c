"""Ridge regression with a kernel."""

from __future__ import annotations

from typing import Any

from ._kernels import kernel
from ._ops import Ops
from ._registry import Converter


def _kernel_ridge(estimator: Any, x: str, ops: Ops) -> str:
    names = ("gamma", "degree", "coef0")
    parameters = {**{name: getattr(estimator, name) for name in names}, **(estimator.kernel_params or {})}
    seen = kernel(ops, x, estimator.X_fit_, estimator.kernel, parameters)
    return ops.MatMul(seen, estimator.dual_coef_.reshape(len(estimator.dual_coef_), -1).astype(float))


CONVERTERS = [Converter(estimator="sklearn.kernel_ridge.KernelRidge", convert=_kernel_ridge)]
