from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, MissingIndicator, SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_union

from tritium.exporters import ConversionError, export_sklearn

from .same import WINE, assert_same, quiet

GAPS = np.where(np.random.default_rng(0).random(WINE.shape) < 0.1, np.nan, WINE).astype(np.float32)


@pytest.mark.parametrize(
    "given",
    [{}, {"estimator": Ridge()}, {"n_nearest_features": 3}, {"add_indicator": True}, {"min_value": -1, "max_value": 1}],
    ids=str,
)
def test_rounds_of_imputation_answer_as_they_do(given: dict[str, Any], tmp_path: Path) -> None:
    model = IterativeImputer(max_iter=3, random_state=0, **given)
    with quiet():
        model.fit(GAPS[::2])
    assert_same(model, GAPS[1::2], tmp_path, {"transformed"}, atol=1e-4)


def test_an_estimator_of_another_kind_is_converted_too(tmp_path: Path) -> None:
    model = IterativeImputer(RandomForestRegressor(2, max_depth=2, random_state=0), max_iter=1, random_state=0)
    with quiet():
        model.fit(GAPS[::2, :4])
    assert_same(model, GAPS[1::2, :4], tmp_path, {"transformed"})


def test_a_draw_by_chance_is_refused(tmp_path: Path) -> None:
    model = IterativeImputer(max_iter=1, sample_posterior=True, random_state=0)
    with quiet():
        model.fit(GAPS)
    with pytest.raises(ConversionError, match=r"sample_posterior is False"):
        export_sklearn(model, GAPS[:9], name="x", repository=tmp_path)


@pytest.mark.parametrize("features", ["missing-only", "all"])
def test_missing_values_are_shown(features: str, tmp_path: Path) -> None:
    model = MissingIndicator(features=features, error_on_new=False).fit(GAPS[:30])
    assert_same(model, GAPS[1::2], tmp_path, {"transformed"})


def test_an_imputer_with_indicators_is_refused_in_favour_of_both(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"use make_union\(SimpleImputer\(\), MissingIndicator\(\)\)"):
        export_sklearn(SimpleImputer(add_indicator=True).fit(GAPS), GAPS[:9], name="x", repository=tmp_path)
    both = make_union(SimpleImputer(), MissingIndicator()).fit(GAPS)
    np.testing.assert_array_equal(both.transform(GAPS), SimpleImputer(add_indicator=True).fit_transform(GAPS))
    assert_same(both, GAPS[1::2], tmp_path, {"transformed"})
