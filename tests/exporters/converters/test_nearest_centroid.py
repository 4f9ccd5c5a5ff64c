from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sklearn.neighbors import NearestCentroid

from tritium.exporters import export_sklearn
from tritium.repository import open_artifact

from .same import GROWERS, HELD_OUT, IRIS, IRISES, WINE, assert_same


@pytest.mark.parametrize("given", [{}, {"priors": "empirical"}, {"shrink_threshold": 0.2}], ids=str)
@pytest.mark.parametrize("classes", [2, 3])
def test_the_nearest_centre_and_its_probability_are_the_same(
    given: dict[str, Any], classes: int, tmp_path: Path
) -> None:
    kept = classes > GROWERS
    model = NearestCentroid(**given).fit(WINE[kept][::2], GROWERS[kept][::2])
    assert_same(model, WINE[1::2], tmp_path, {"label", "probabilities"})


def test_another_metric_gives_the_label_alone(tmp_path: Path) -> None:
    model = NearestCentroid(metric="manhattan").fit(IRIS[~HELD_OUT], IRISES[~HELD_OUT])
    assert_same_labels(model, tmp_path)


def assert_same_labels(model: Any, folder: Path) -> None:
    published = export_sklearn(model, IRIS[HELD_OUT], name="same", repository=folder)
    run = open_artifact(published.folder / "model.onnx", "onnxruntime")
    got = run({"features": IRIS[HELD_OUT]}, ["label"])["label"]
    assert got.tolist() == model.predict(IRIS[HELD_OUT]).tolist()
