from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier, DummyRegressor

from tritium.exporters import ConversionError, export_sklearn
from tritium.repository import open_artifact

from .same import IRIS, IRISES, WINE, assert_same


@pytest.mark.parametrize("strategy", ["prior", "most_frequent", "constant"])
def test_a_dummy_classifier_says_the_same_to_all_rows(strategy: str, tmp_path: Path) -> None:
    given = {"constant": "virginica"} if strategy == "constant" else {}
    model = DummyClassifier(strategy=strategy, **given).fit(IRIS[40:], IRISES[40:])
    assert_same_dummy(model, tmp_path)


def assert_same_dummy(model: Any, folder: Path) -> None:
    published = export_sklearn(model, IRIS[:20], name="dummy", repository=folder)
    run = open_artifact(published.folder / "model.onnx", "onnxruntime")
    got = run({"features": IRIS[:7]}, ["label", "probabilities"])
    assert got["label"].tolist() == model.predict(IRIS[:7]).tolist()
    np.testing.assert_allclose(got["probabilities"], model.predict_proba(IRIS[:7]), atol=1e-7)


@pytest.mark.parametrize("given", [{"strategy": "mean"}, {"strategy": "quantile", "quantile": 0.2}], ids=str)
def test_a_dummy_regressor_says_the_same_to_all_rows(given: dict[str, Any], tmp_path: Path) -> None:
    assert_same(DummyRegressor(**given).fit(WINE[:, 2:], WINE[:, :2] + 3), WINE[:20, 2:], tmp_path, {"prediction"})


def test_a_draw_by_chance_is_refused(tmp_path: Path) -> None:
    model = DummyClassifier(strategy="uniform", random_state=0).fit(IRIS, IRISES)
    with pytest.raises(ConversionError, match=r"a model answers the same each time.*use 'prior'"):
        export_sklearn(model, IRIS[:9], name="x", repository=tmp_path)
