"""What kind of estimator one is, and so which outputs its model has."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from tritium.client import InputError

from ._errors import ConversionError
from ._export import Array


@dataclass(frozen=True)
class Kind:
    """A kind of estimator.

    Attributes:
        types: what scikit-learn calls it (`estimator_type` in an estimator's tags); none for all that have the methods.
        outputs: for each output its name and the method that gives it; where there are several, the first that the
            estimator has. The first output is what makes the kind; the others may be missing.
    """

    types: tuple[str, ...]
    outputs: Sequence[Sequence[tuple[str, str]]]


_LABEL = [("label", "predict")]
# The first that fits is taken.
KINDS: Mapping[str, Kind] = {
    "classifier": Kind(
        ("classifier",), [_LABEL, [("probabilities", "predict_proba"), ("scores", "decision_function")]]
    ),
    "outlier detector": Kind(("outlier_detector",), [_LABEL, [("score", "decision_function")]]),
    "regressor": Kind(("regressor",), [[("prediction", "predict")]]),
    "clusterer": Kind(("clusterer",), [_LABEL, [("distances", "transform")]]),
    "mixture": Kind(("density_estimator",), [_LABEL, [("probabilities", "predict_proba")]]),
    "transformer": Kind((), [[("transformed", "transform")]]),
}


def kind_of(estimator: Any) -> tuple[str, dict[str, str]]:
    """An estimator's kind, and by output the method that gives it.

    Raises:
        ConversionError: it answers nothing about rows that it was not fitted on.
    """
    from sklearn.utils import get_tags

    estimator_type = get_tags(estimator).estimator_type
    for name, kind in KINDS.items():
        found = [
            next(((output, method) for output, method in choices if hasattr(estimator, method)), None)
            for choices in kind.outputs
        ]
        if found[0] and (not kind.types or estimator_type in kind.types):
            return name, dict(item for item in found if item)
    raise ConversionError(_why_not(estimator))


def answers(estimator: Any, rows: Any) -> dict[str, Array]:
    """What an estimator answers, by output; floats as float32, whole numbers and booleans as int64.

    Args:
        estimator: fitted.
        rows: as it takes them.

    Returns:
        ``label`` has the shape (rows,), or (rows, targets) for several targets; everything else has two axes or more.
        Classifiers with several targets have ``probabilities`` of shape (rows, targets, classes), or, where the targets
        have different numbers of classes, one output ``probabilities_<target>`` each.

    Raises:
        ConversionError: it has no method that a model could have.
        InputError: it does not take the rows, or answers what no tensor holds.
    """
    _, methods = kind_of(estimator)
    found: dict[str, Array] = {}
    for output, method in methods.items():
        try:
            with quiet():
                answer = getattr(estimator, method)(rows)
        except Exception as exc:
            raise InputError(f"This {type(estimator).__name__} does not take the held-out rows: {exc}") from exc
        found.update(_tensors(output, answer))
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Warnings of scikit-learn and its converter are for those who fit, not for those who export."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _tensors(output: str, answer: Any) -> dict[str, Array]:
    if isinstance(answer, list):
        parts = [np.asarray(part) for part in answer]
        if len({part.shape for part in parts}) > 1:
            return {f"{output}_{target}": _tensor(output, part) for target, part in enumerate(parts)}
        answer = np.stack(parts, axis=1)
    return {output: _tensor(output, answer)}


def _tensor(output: str, answer: Any) -> Array:
    array = np.asarray(answer.toarray() if hasattr(answer, "toarray") else answer)
    if array.dtype.kind in "biu":
        array = array.astype(np.int64)
    elif array.dtype.kind == "f":
        # Classes that were floats: labels are whole numbers all the same, as the converters have them.
        whole = output == "label" and bool(np.array_equal(array, np.round(array)))
        array = array.astype(np.int64 if whole else np.float32)
    elif not all(isinstance(item, str) for item in array.ravel()):
        raise ConversionError(
            f"The output {output!r} holds {array.dtype} values that are no text; a model can answer with numbers or "
            "text. Fit on such targets, or drop that column"
        )
    else:
        array = array.astype(object)
    if array.ndim == 1 and output != "label":
        array = array[:, np.newaxis]
    return array


def _why_not(estimator: Any) -> str:
    name = type(estimator).__name__
    if hasattr(estimator, "fit_predict"):
        return (
            f"{name} only labels the rows that it was fitted on: it has no predict for new ones. Fit a classifier on "
            "its labels, such as KNeighborsClassifier, and export that, or use a clusterer with predict, such as KMeans"
        )
    if hasattr(estimator, "fit_transform"):
        return (
            f"{name} only embeds the rows that it was fitted on: it has no transform for new ones. Use a transformer "
            "that has one, such as PCA or KernelPCA"
        )
    return (
        f"{name} has neither predict nor transform, so a model of it would have no outputs. Export the estimator or "
        "Pipeline that uses it"
    )
