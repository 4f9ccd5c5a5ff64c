"""One estimator a target, each alone or after the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._errors import ConversionError
from ._ops import Ops
from ._registry import Converter


def _regressor_chain(estimator: Any, x: str, ops: Ops) -> str:
    found: list[str] = []
    for part in estimator.estimators_:
        seen = ops.Concat(x, *found, axis=1) if found else x
        found.append(ops.double(ops.answers(part, seen)["prediction"]))
    return _in_order(estimator, found, ops)


def _classifier_chain(estimator: Any, x: str, ops: Ops) -> list[str]:
    method = getattr(estimator, "chain_method_", "predict")
    if method not in ("predict", "predict_proba"):
        raise ConversionError(f"A chain by {method} has no graph; use chain_method='predict' or 'predict_proba'")
    labels: list[str] = []
    probabilities: list[str] = []
    for part in estimator.estimators_:
        if len(part.classes_) != 2 or part.classes_.dtype.kind not in "biuf":
            raise ConversionError("A ClassifierChain has a graph if each target has two classes that are numbers")
        chosen = labels if method == "predict" else probabilities
        answers = ops.answers(part, ops.Concat(x, *chosen, axis=1) if chosen else x)
        labels.append(ops.double(ops.Reshape(answers["label"], np.array([-1, 1]))))
        if "probabilities" in answers:
            probabilities.append(ops.double(ops.columns(answers["probabilities"], [1])))
    found = [_in_order(estimator, labels, ops)]
    return [*found, _in_order(estimator, probabilities, ops)] if probabilities else found


def _multi_output_classifier(estimator: Any, x: str, ops: Ops) -> list[str]:
    answers = [ops.answers(part, x) for part in estimator.estimators_]
    labels = [ops.Unsqueeze(answer["label"], np.array([1])) for answer in answers]
    probabilities = [answer["probabilities"] for answer in answers if "probabilities" in answer]
    label = ops.Concat(*labels, axis=1)
    if len({len(part.classes_) for part in estimator.estimators_}) > 1 or not probabilities:
        return [label, *probabilities]
    return [label, ops.Concat(*[ops.Unsqueeze(item, np.array([1])) for item in probabilities], axis=1)]


def _in_order(estimator: Any, columns: list[str], ops: Ops) -> str:
    return ops.columns(ops.Concat(*columns, axis=1), np.argsort(estimator.order_))


CONVERTERS = [
    Converter(estimator="sklearn.multioutput.ClassifierChain", convert=_classifier_chain),
    Converter(estimator="sklearn.multioutput.MultiOutputClassifier", convert=_multi_output_classifier),
    Converter(estimator="sklearn.multioutput.RegressorChain", convert=_regressor_chain),
]
