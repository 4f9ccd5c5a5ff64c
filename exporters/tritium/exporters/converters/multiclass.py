"""One classifier a class, or a pair of classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._errors import ConversionError
from ._binary import binary_score
from ._ops import Ops
from ._registry import Converter


def _one_vs_rest(estimator: Any, x: str, ops: Ops) -> list[str]:
    """scikit-learn goes by the decision functions, and by the probabilities where there are none."""
    answers = [_of_one(part, x, ops) for part in estimator.estimators_]
    names = {name for answer in answers for name in answer if name in ("probabilities", "scores")}
    if len(names) != 1:
        raise ConversionError("A OneVsRestClassifier has a graph if all its estimators are classifiers of one kind")
    (name,) = names
    each = ops.Concat(*[answer[name] for answer in answers], axis=1)
    probabilities = name == "probabilities"
    if estimator.multilabel_:
        return [ops.integer(ops.Greater(each, 0.5 if probabilities else 0.0)), each]
    if len(estimator.classes_) == 2:
        place = ops.integer(ops.Squeeze(ops.Greater(each, 0.5 if probabilities else 0.0), np.array([1])))
        both = ops.Concat(ops.Sub(1.0, each), each, axis=1) if probabilities else each
        return [ops.labels(place, estimator.classes_), both]
    scores = [_exact(part, x, ops) for part in estimator.estimators_]
    place = ops.argmax(ops.Concat(*scores, axis=1) if all(scores) else each)
    return [ops.labels(place, estimator.classes_), ops.Div(each, ops.sum(each)) if probabilities else each]


def _of_one(part: Any, x: str, ops: Ops) -> dict[str, str]:
    """The probability or the score of one class, of shape (rows, 1)."""
    if type(part).__name__ == "_ConstantPredictor":
        raise ConversionError("A OneVsRestClassifier has no graph if a class was in all rows, or in none; leave it out")
    answers = ops.answers(part, x)
    return {name: ops.double(ops.columns(array, [-1])) for name, array in answers.items() if name != "label"}


def _exact(part: Any, x: str, ops: Ops) -> str:
    """A linear decision in float64, in which no two classes reach the same probability of 1."""
    if not hasattr(part, "coef_") or not hasattr(part, "decision_function"):
        return ""
    return ops.Add(ops.MatMul(x, part.coef_.T.astype(float)), part.intercept_.astype(float))


def _one_vs_one(estimator: Any, x: str, ops: Ops) -> list[str]:
    """Each pair votes for one of its classes; how sure all are breaks ties, and never outweighs a vote."""
    size = len(estimator.classes_)
    pairs = [(i, j) for i in range(size) for j in range(i + 1, size)]
    first, second = (np.eye(size)[[pair[side] for pair in pairs]] for side in (0, 1))
    chosen = ops.Concat(
        *[ops.double(ops.Reshape(ops.answers(part, x)["label"], np.array([-1, 1]))) for part in estimator.estimators_],
        axis=1,
    )
    sure = ops.MatMul(
        ops.Concat(*[binary_score(part, x, ops) for part in estimator.estimators_], axis=1), second - first
    )
    votes = ops.Add(ops.MatMul(ops.Sub(1.0, chosen), first), ops.MatMul(chosen, second))
    scores = ops.Add(votes, ops.Div(sure, ops.Mul(ops.Add(ops.Abs(sure), 1.0), 3.0)))
    if size > 2:
        return [ops.labels(ops.argmax(scores), estimator.classes_), scores]
    threshold = 0.0 if hasattr(estimator.estimators_[0], "decision_function") else 0.5
    above = ops.Greater(ops.columns(scores, [1]), threshold)
    place = ops.integer(ops.Squeeze(above, np.array([1])))
    return [ops.labels(place, estimator.classes_), ops.columns(scores, [1])]


CONVERTERS = [
    Converter(estimator="sklearn.multiclass.OneVsOneClassifier", convert=_one_vs_one),
    Converter(estimator="sklearn.multiclass.OneVsRestClassifier", convert=_one_vs_rest),
]
