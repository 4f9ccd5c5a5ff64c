from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.multiclass import OutputCodeClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.svm import LinearSVC

from tritium.exporters import ConversionError, export_sklearn

from .same import GROWERS, WINE, assert_same


def test_a_self_taught_classifier_answers_as_it_does(tmp_path: Path) -> None:
    known = GROWERS[::2].copy()
    known[::3] = -1
    model = SelfTrainingClassifier(GaussianNB()).fit(WINE[::2], known)
    assert_same(model, WINE[1::2], tmp_path, {"label", "probabilities"})


@pytest.mark.parametrize("given", [{"threshold": 0.2}, {"threshold": 0.9, "pos_label": 0}, {}], ids=str)
def test_a_threshold_moves_labels_and_no_probabilities(given: dict[str, Any], tmp_path: Path) -> None:
    model = FixedThresholdClassifier(GaussianNB(), **given).fit(WINE[::2], (GROWERS[::2] == 1).astype(int))
    assert_same(model, WINE[1::2], tmp_path, {"label", "probabilities"})


@pytest.mark.parametrize("estimator", [LogisticRegression(), LinearSVC(), GaussianNB()], ids=str)
def test_codes_of_output_name_the_same_class(estimator: Any, tmp_path: Path) -> None:
    model = OutputCodeClassifier(estimator, code_size=3, random_state=1).fit(WINE[::2], GROWERS[::2])
    assert_same(model, WINE[1::2], tmp_path, {"label"})


def test_codes_of_a_decision_without_a_graph_are_refused(tmp_path: Path) -> None:
    model = OutputCodeClassifier(GradientBoostingClassifier(n_estimators=2), random_state=1).fit(WINE, GROWERS)
    with pytest.raises(ConversionError, match=r"decision function of GradientBoostingClassifier.*use a linear model"):
        export_sklearn(model, WINE[:9], name="x", repository=tmp_path)
