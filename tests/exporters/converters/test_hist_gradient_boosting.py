from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from .same import WINE, assert_same

GENERATOR = np.random.default_rng(0)
ROWS = np.column_stack([GENERATOR.integers(0, 12, 178), GENERATOR.integers(0, 3, 178), WINE]).astype(np.float32)
WITH_GAPS = np.where(GENERATOR.random(ROWS.shape) < 0.1, np.nan, ROWS).astype(np.float32)
TARGETS = np.isin(ROWS[:, 0], [1, 5, 7, 8]) * 2.0 + ROWS[:, 2] + (ROWS[:, 1] == 2)


@pytest.mark.parametrize("rows", [ROWS, WITH_GAPS], ids=["whole", "with gaps"])
@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
def test_a_regressor_with_categories_answers_as_it_does(rows: Any, loss: str, tmp_path: Path) -> None:
    model = HistGradientBoostingRegressor(
        loss=loss, max_iter=15, min_samples_leaf=5, categorical_features=[0, 1], random_state=0
    ).fit(rows[::2], TARGETS[::2] - TARGETS.min())
    assert any(tree.nodes["is_categorical"].any() for trees in model._predictors for tree in trees)
    assert_same(model, rows[1::2], tmp_path, {"prediction"})


@pytest.mark.parametrize("classes", [2, 3])
def test_a_classifier_with_categories_answers_as_it_does(classes: int, tmp_path: Path) -> None:
    kinds = np.digitize(TARGETS, [0.5, 2.0][: classes - 1])
    model = HistGradientBoostingClassifier(
        max_iter=8, min_samples_leaf=5, categorical_features=[0, 1], random_state=0
    ).fit(WITH_GAPS[::2], kinds[::2])
    assert_same(model, WITH_GAPS[1::2], tmp_path, {"label", "probabilities"})


def test_a_category_that_was_never_seen_counts_as_missing(tmp_path: Path) -> None:
    model = HistGradientBoostingRegressor(max_iter=15, min_samples_leaf=5, categorical_features=[0, 1])
    model.fit(ROWS[::2], TARGETS[::2])
    rows = ROWS[1::2].copy()
    rows[:20, 0] = 77
    assert_same(model, rows, tmp_path, {"prediction"})
