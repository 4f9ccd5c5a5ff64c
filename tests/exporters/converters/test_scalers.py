from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from tritium.exporters import export_sklearn
from tritium.repository import open_artifact

from .same import HELD_OUT, IRIS, KINDS, assert_same

SCALERS = [
    StandardScaler(),
    StandardScaler(with_mean=False),
    StandardScaler(with_std=False),
    MinMaxScaler(),
    MinMaxScaler((-1, 2), clip=True),
    MaxAbsScaler(),
    RobustScaler(),
    RobustScaler(with_centering=False, with_scaling=False),
]


@pytest.mark.parametrize("scaler", SCALERS, ids=str)
def test_scaled_values_are_the_very_same_floats(scaler: Any, tmp_path: Path) -> None:
    """A tree behind them compares them with thresholds that lie on such values."""
    scaler.fit(IRIS[~HELD_OUT])
    published = export_sklearn(scaler, IRIS[HELD_OUT] * 2, name="scaled", repository=tmp_path)
    rows = IRIS[HELD_OUT] * 2
    got = open_artifact(published.folder / "model.onnx", "onnxruntime")({"features": rows}, ["transformed"])
    np.testing.assert_array_equal(got["transformed"], scaler.transform(rows))


def test_a_tree_behind_a_scaler_decides_the_same(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), DecisionTreeClassifier(random_state=0)).fit(
        IRIS[~HELD_OUT], KINDS[~HELD_OUT]
    )
    assert_same(model, IRIS, tmp_path, {"label", "probabilities"})
