"""An autoencoder 10 → 20 → 10 on the measures of diabetes patients: what it cannot rebuild is unusual."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from torch import nn

from tritium.repository import Published, Repository, Tolerance

from .._export import Provenance
from .._torch import export_torch
from ..training import seeded, train
from ._modules import Standardize, perceptron
from ._registry import Progress
from ._tabular import diabetes
from ._threads import one_thread


class DiabetesAutoencoder(nn.Module):
    """The ten measures in, the same ten out as the network rebuilds them, and how far off it is."""

    def __init__(self, scaler: StandardScaler) -> None:
        super().__init__()
        self.standardize = Standardize(scaler)
        self.layers = perceptron(10, 20, 10)

    def forward(self, measures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """From (rows, 10) measures to (rows, 10) rebuilt ones, and (rows, 1) mean squared errors in deviations."""
        scaled = self.standardize(measures)
        rebuilt = self.layers(scaled)
        return self.standardize.inverse(rebuilt), (rebuilt - scaled).square().mean(dim=1, keepdim=True)


@one_thread()
def export(repository: Repository, recipe: str, progress: Progress) -> Published:
    """Train with SGD on the measures as their own target, measure on the held-out patients, publish."""
    data = diabetes()
    scaler = StandardScaler().fit(data.train)
    with seeded(0):
        model = DiabetesAutoencoder(scaler)
    scaled = scaler.transform(data.train)
    history = train(
        model.layers,
        scaled,
        scaled,
        loss=nn.functional.mse_loss,
        optimizer="sgd",
        learning_rate=0.2,
        batch_size=16,
        epochs=200,
        validation=0.15,
        patience=20,
        progress=progress,
    )
    error = _errors(model, data.held_out)
    mixed_up = _errors(model, _mixed_up(data.held_out))
    unusual = np.repeat([False, True], len(error))
    with tempfile.TemporaryDirectory() as folder:
        return export_torch(
            model,
            {"measures": data.held_out},
            outputs=["reconstruction", "anomaly_score"],
            files={"learning_curve.png": history.draw(Path(folder) / "learning_curve.png")},
            name="diabetes_autoencoder",
            repository=repository,
            # The measures go up to 300: what counts is the difference in relation to them.
            tolerance=Tolerance(atol=1e-5, rtol=1e-5),
            provenance=Provenance(
                source=__name__,
                data=data.provenance,
                metrics={
                    "reconstruction_mse": float(error.mean()),
                    "mixed_up_roc_auc": float(roc_auc_score(unusual, np.concatenate([error, mixed_up]))),
                },
                baselines={
                    # The mean of the training rows is 0 in deviations.
                    "reconstruction_mse": float(np.square(scaler.transform(data.held_out)).mean()),
                    "mixed_up_roc_auc": 0.5,
                },
                training=history.to_dict(),
                recipe=recipe,
            ),
        )


def _errors(model: nn.Module, measures: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        errors: NDArray[np.float32] = model(torch.from_numpy(measures))[1].numpy()[:, 0]
    return errors


def _mixed_up(measures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Patients who do not exist: each measure is somebody's, but no two need be of the same person."""
    return np.random.default_rng(0).permuted(measures, axis=0)
