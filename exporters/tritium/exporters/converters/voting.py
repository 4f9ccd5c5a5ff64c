"""Votes of several classifiers."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._ops import Ops
from ._registry import Converter


def _voting_classifier(estimator: Any, x: str, ops: Ops) -> list[str]:
    weights = estimator._weights_not_none or [1.0] * len(estimator.estimators_)
    soft = estimator.voting == "soft"
    shares: list[str] = []
    for part, weight in zip(estimator.estimators_, weights, strict=True):
        answers = ops.answers(part, x)
        if soft:
            votes = ops.double(answers["probabilities"])
        else:
            numbers = np.arange(len(estimator.classes_))[np.newaxis]
            votes = ops.double(ops.Equal(ops.Unsqueeze(answers["label"], np.array([1])), numbers))
        shares.append(ops.Mul(votes, float(weight) / sum(weights)))
    total = ops.Sum(*shares)
    label = ops.labels(ops.argmax(total), estimator.classes_)
    return [label, total] if soft else [label]


CONVERTERS = [Converter(estimator="sklearn.ensemble.VotingClassifier", convert=_voting_classifier)]
