"""Functions of numpy as transformers."""

from __future__ import annotations

from typing import Any

from ._functions import apply
from ._ops import Ops
from ._registry import Converter


def _function(estimator: Any, x: str, ops: Ops) -> str:
    return ops.Identity(apply(ops, estimator.func, x, estimator.kw_args))


CONVERTERS = [Converter(estimator="sklearn.preprocessing.FunctionTransformer", convert=_function)]
