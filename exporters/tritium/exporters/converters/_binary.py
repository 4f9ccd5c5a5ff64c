"""Classifiers of two classes inside of meta-estimators."""

from __future__ import annotations

from typing import Any

from .._errors import ConversionError
from ._ops import Ops


def binary_score(part: Any, x: str, ops: Ops) -> str:
    """What meta-estimators ask of a classifier of two classes: its decision, or else its probability.

    Args:
        part: fitted.
        x: its input.
        ops: for the graph.

    Returns:
        Of shape (rows, 1).

    Raises:
        ConversionError: it has a decision function, and no graph of it.
    """
    if type(part).__name__ == "_ConstantPredictor":
        return ops.Add(ops.Mul(ops.sum(x), 0.0), float(part.y_[0]))
    if hasattr(part, "decision_function") and hasattr(part, "coef_"):
        return ops.Add(ops.MatMul(x, part.coef_.T.astype(float)), part.intercept_.astype(float))
    answers = ops.answers(part, x)
    if "prediction" in answers:
        return ops.double(answers["prediction"])
    if hasattr(part, "decision_function") and "scores" not in answers:
        raise ConversionError(
            f"It goes by the decision function of {type(part).__name__}, which has no graph; use a linear model, or a "
            "classifier that has only probabilities"
        )
    return ops.double(answers["scores"] if "scores" in answers else ops.columns(answers["probabilities"], [1]))
