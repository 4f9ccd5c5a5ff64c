"""What the classifiers of the zoo are measured by, and the baseline that they must beat."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def accuracy(truth: NDArray[Any], given: NDArray[Any]) -> float:
    """The share of rows that are right; `given` has a class for each row, or a score for each row and class."""
    classes = given.argmax(axis=1) if given.ndim == 2 else given
    return float((classes == truth).mean())


def majority_accuracy(train: NDArray[Any], held_out: NDArray[Any]) -> float:
    """What always saying the most frequent class of the training rows would reach."""
    classes, counts = np.unique(train, return_counts=True)
    return float((held_out == classes[counts.argmax()]).mean())
