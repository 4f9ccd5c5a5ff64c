from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, PowerTransformer, RobustScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from tritium.exporters import export_sklearn
from tritium.repository import open_artifact

from .same import HELD_OUT, IRIS, KINDS, WINE, assert_same

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


@pytest.mark.parametrize("power", [None, 0.0, 2.0])
@pytest.mark.parametrize("method", ["yeo-johnson", "box-cox"])
def test_powers_answer_as_they_do_and_leave_gaps(method: str, power: float | None, tmp_path: Path) -> None:
    rows = np.where(np.random.default_rng(0).random(WINE.shape) < 0.1, np.nan, WINE).astype(np.float32)
    rows = np.exp(rows) if method == "box-cox" else rows
    model = PowerTransformer(method=method, standardize=power is None).fit(rows)
    if power is not None:
        model.lambdas_[:] = power
    published = export_sklearn(model, rows[~np.isnan(rows).any(axis=1)], name="powers", repository=tmp_path)
    got = open_artifact(published.folder / "model.onnx", "onnxruntime")({"features": rows}, ["transformed"])
    np.testing.assert_allclose(got["transformed"], model.transform(rows), atol=1e-5, rtol=1e-5)
