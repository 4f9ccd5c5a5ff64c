from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sklearn.feature_selection import RFE, RFECV, SequentialFeatureSelector
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline

from .same import GROWERS, WINE, assert_same


def test_eliminated_features_leave_the_classifier_of_the_others(tmp_path: Path) -> None:
    model = RFECV(LogisticRegression(), cv=3, step=4).fit(WINE[::2], GROWERS[::2])
    assert_same(model, WINE[1::2], tmp_path, {"label", "probabilities"})


def test_eliminated_features_leave_the_regressor_of_the_others(tmp_path: Path) -> None:
    model = RFE(Ridge(), n_features_to_select=3).fit(WINE[::2, 1:], WINE[::2, 0])
    assert_same(model, WINE[1::2, 1:], tmp_path, {"prediction"})


@pytest.mark.parametrize(
    "step", [RFE(Ridge(), n_features_to_select=3), SequentialFeatureSelector(Ridge(), n_features_to_select=2, cv=2)]
)
def test_a_step_before_the_last_selects(step: Any, tmp_path: Path) -> None:
    model = make_pipeline(step, Ridge()).fit(WINE[::2, 1:], WINE[::2, 0])
    assert_same(model, WINE[1::2, 1:], tmp_path, {"prediction"})
