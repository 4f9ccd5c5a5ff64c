"""The autoencoder: it rebuilds what it was not trained on, and scores what does not fit together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from tritium.exporters.zoo._tabular import diabetes

from .conftest import Reference


@pytest.fixture
def autoencoder(reference: Callable[[str], Reference]) -> Reference:
    return reference("diabetes_autoencoder")


def test_it_has_its_layers_and_was_trained_by_sgd(autoencoder: Reference) -> None:
    assert autoencoder.layers() == [(10, 20), (20, 10)]
    assert autoencoder.manifest.training["settings"]["optimizer"] == "sgd"


def test_it_rebuilds_held_out_measures_far_better_than_the_mean_does(autoencoder: Reference) -> None:
    data = diabetes()
    scaler = StandardScaler().fit(data.train)
    rebuilt = autoencoder(measures=data.held_out)["reconstruction"]
    assert rebuilt.shape == data.held_out.shape
    error = np.square(scaler.transform(rebuilt) - scaler.transform(data.held_out)).mean()
    assert error == pytest.approx(autoencoder.manifest.metrics["reconstruction_mse"], rel=1e-3)
    baseline = np.square(scaler.transform(data.held_out)).mean()
    assert baseline == pytest.approx(autoencoder.manifest.baselines["reconstruction_mse"], rel=1e-3)
    assert error < baseline / 20


def test_the_score_is_the_mean_squared_error_in_deviations(autoencoder: Reference) -> None:
    data = diabetes()
    scaler = StandardScaler().fit(data.train)
    outputs = autoencoder(measures=data.held_out)
    errors = scaler.transform(outputs["reconstruction"]) - scaler.transform(data.held_out)
    assert outputs["anomaly_score"].shape == (len(data.held_out), 1)
    np.testing.assert_allclose(outputs["anomaly_score"][:, 0], np.square(errors).mean(axis=1), rtol=1e-2, atol=1e-6)


def test_a_patient_who_cannot_be_scores_higher_than_every_real_one(autoencoder: Reference) -> None:
    data = diabetes()
    real = autoencoder(measures=data.held_out)["anomaly_score"]
    row = data.held_out[:1].copy()
    row[0, data.names.index("bmi")] *= 5
    assert autoencoder(measures=row)["anomaly_score"][0, 0] > real.max()
    assert autoencoder.manifest.metrics["mixed_up_roc_auc"] >= 0.9
