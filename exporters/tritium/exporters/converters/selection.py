"""Selected features, and what an estimator says of them."""

from __future__ import annotations

from typing import Any

from ._ops import Ops
from ._registry import Converter


def _selected(estimator: Any, x: str, ops: Ops) -> str:
    return ops.columns(x, estimator.get_support(indices=True))


def _eliminated(estimator: Any, x: str, ops: Ops) -> list[str]:
    return list(ops.answers(estimator.estimator_, _selected(estimator, x, ops)).values())


CONVERTERS = [
    Converter(estimator="sklearn.feature_selection.RFE", convert=_eliminated, transform=_selected),
    Converter(estimator="sklearn.feature_selection.RFECV", convert=_eliminated, transform=_selected),
    Converter(estimator="sklearn.feature_selection.SequentialFeatureSelector", convert=_selected),
]
