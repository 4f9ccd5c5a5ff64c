from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tritium.client import MissingExtraError
from tritium.exporters import export_sklearn
from tritium.repository import Manifest

from .same import GROWERS, WINE, assert_same, quiet

lightgbm = pytest.importorskip("lightgbm")
xgboost = pytest.importorskip("xgboost")
pytest.importorskip("onnxmltools")
GAPS = np.where(np.random.default_rng(0).random(WINE.shape) < 0.1, np.nan, WINE).astype(np.float32)


def made(name: str, **given: Any) -> Any:
    quiet_option = {"verbose": -1} if name.startswith("LGBM") else {}
    package = lightgbm if name.startswith("LGBM") else xgboost
    return getattr(package, name)(n_estimators=8, n_jobs=1, **quiet_option, **given)


@pytest.mark.parametrize("name", ["LGBMClassifier", "XGBClassifier"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("rows", [WINE, GAPS], ids=["whole", "with gaps"])
def test_boosted_classifiers_answer_as_they_do(name: str, classes: int, rows: Any, tmp_path: Path) -> None:
    model = made(name).fit(rows[::2], np.minimum(GROWERS[::2], classes - 1))
    assert_same(model, rows[1::2], tmp_path, {"label", "probabilities"})


@pytest.mark.parametrize("name", ["LGBMRegressor", "XGBRegressor"])
def test_boosted_regressors_answer_as_they_do_behind_a_scaler(name: str, tmp_path: Path) -> None:
    with quiet():
        model = make_pipeline(StandardScaler(), made(name)).fit(GAPS[::2, 1:], WINE[::2, 0])
    assert_same(model, GAPS[1::2, 1:], tmp_path, {"prediction"})


def test_the_manifest_names_the_versions_of_what_made_it(tmp_path: Path) -> None:
    model = made("XGBRegressor").fit(WINE[::2, 1:], WINE[::2, 0])
    published = export_sklearn(model, WINE[1::2, 1:], name="x", repository=tmp_path)
    made_by = Manifest.load(published.folder).frameworks
    assert {"onnxmltools", "scikit-learn"} <= made_by.keys()
    # Its distributions are several, such as xgboost-cpu.
    assert [version for name, version in made_by.items() if name.startswith("xgboost")] == [xgboost.__version__]


def test_a_missing_converter_is_named_with_the_command_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = made("XGBRegressor").fit(WINE[::2, 1:], WINE[::2, 0])
    monkeypatch.setitem(sys.modules, "onnxmltools", None)
    with pytest.raises(MissingExtraError, match=r"'onnxmltools'.*tritium\[boosting\]"):
        export_sklearn(model, WINE[1::2, 1:], name="x", repository=tmp_path)
