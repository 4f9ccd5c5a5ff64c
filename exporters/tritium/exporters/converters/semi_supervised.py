"""Classifiers around a classifier."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._errors import ConversionError
from ._binary import binary_score
from ._kernels import squared_distances
from ._ops import Ops
from ._registry import Converter


def _self_training(estimator: Any, x: str, ops: Ops) -> list[str]:
    return list(ops.answers(estimator.estimator_, x).values())


def _fixed_threshold(estimator: Any, x: str, ops: Ops) -> list[str]:
    answers = ops.answers(estimator.estimator_, x)
    classes = estimator.estimator_.classes_
    if "probabilities" not in answers or estimator.response_method == "decision_function":
        raise ConversionError("A FixedThresholdClassifier has a graph if its estimator gives probabilities to it")
    positive = 1 if estimator.pos_label is None else int(np.flatnonzero(classes == estimator.pos_label)[0])
    threshold = 0.5 if estimator.threshold == "auto" else float(estimator.threshold)
    above = ops.GreaterOrEqual(ops.double(ops.columns(answers["probabilities"], [positive])), threshold)
    place = ops.Squeeze(ops.Where(above, np.array(positive), np.array(1 - positive)), np.array([1]))
    return [ops.labels(place, classes), answers["probabilities"]]


def _output_code(estimator: Any, x: str, ops: Ops) -> str:
    """The class whose code is nearest to what the estimators of its bits say."""
    bits = [binary_score(part, x, ops) for part in estimator.estimators_]
    apart = squared_distances(ops, ops.Concat(*bits, axis=1), estimator.code_book_)
    return ops.labels(ops.argmax(ops.Neg(apart)), estimator.classes_)


CONVERTERS = [
    Converter(estimator="sklearn.model_selection.FixedThresholdClassifier", convert=_fixed_threshold),
    Converter(estimator="sklearn.multiclass.OutputCodeClassifier", convert=_output_code),
    Converter(estimator="sklearn.semi_supervised.SelfTrainingClassifier", convert=_self_training),
]
