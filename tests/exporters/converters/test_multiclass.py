from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.svm import SVC, LinearSVC

from tritium.exporters import ConversionError, export_sklearn

from .same import GROWERS, WINE, assert_same

ESTIMATORS = [
    (LogisticRegression(), "probabilities"),
    (GaussianNB(), "probabilities"),
    (LinearSVC(), "scores"),
    (SVC(), "scores"),
]
NAMES = np.array(["Ada", "Ben", "Cem"], dtype=object)[GROWERS]
FLAGS = np.column_stack([GROWERS == 0, WINE[:, 0] > 0, WINE[:, 1] > 0]).astype(np.int64)


@pytest.mark.parametrize(("estimator", "output"), ESTIMATORS, ids=lambda item: str(item))
@pytest.mark.parametrize("targets", [GROWERS, GROWERS == 1, FLAGS], ids=["three classes", "two", "several at once"])
def test_each_class_against_the_rest_answers_as_it_does(
    estimator: Any, output: str, targets: Any, tmp_path: Path
) -> None:
    model = OneVsRestClassifier(estimator).fit(WINE[::2], targets[::2])
    assert_same(model, WINE[1::2], tmp_path, {"label", output})


@pytest.mark.parametrize("estimator", [LogisticRegression(), GaussianNB(), LinearSVC(), SVC()], ids=str)
@pytest.mark.parametrize("targets", [GROWERS, GROWERS == 1, NAMES], ids=["three classes", "two", "names"])
def test_each_pair_of_classes_votes_as_it_does(estimator: Any, targets: Any, tmp_path: Path) -> None:
    model = OneVsOneClassifier(estimator).fit(WINE[::2], targets[::2])
    assert_same(model, WINE[1::2], tmp_path, {"label", "scores"})


@pytest.mark.filterwarnings("ignore:Label . is present in all training examples")
def test_a_class_of_all_rows_is_refused(tmp_path: Path) -> None:
    model = OneVsRestClassifier(LogisticRegression()).fit(WINE, np.column_stack([FLAGS[:, 0], np.ones(len(WINE), int)]))
    with pytest.raises(ConversionError, match="a class was in all rows, or in none"):
        export_sklearn(model, WINE[:9], name="x", repository=tmp_path)
