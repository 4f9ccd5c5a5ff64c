"""From two measures of a tumour to the probability that it is malignant: what both sigmoid models of the zoo do."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from torch import nn

from tritium.repository import Published, Repository

from .._export import Provenance
from .._torch import export_torch
from ..training import seeded, train
from ._metrics import accuracy, majority_accuracy
from ._modules import Standardize, perceptron
from ._registry import Progress
from ._tabular import MALIGNANT, cancer
from ._threads import one_thread

# Of all pairs, the one with the best cross-validated logistic regression on the training rows.
COLUMNS = ["worst perimeter", "worst smoothness"]


class Sigmoid(nn.Module):
    """Two measures in, a probability out; each layer but the first takes a sigmoid of the one before it."""

    def __init__(self, sizes: tuple[int, ...], scaler: StandardScaler) -> None:
        super().__init__()
        self.logit = nn.Sequential(Standardize(scaler), perceptron(*sizes, activation=nn.Sigmoid))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """From (rows, 2) measures to (rows, 1) probabilities."""
        logit: torch.Tensor = self.logit(features)
        return logit.sigmoid()


@one_thread()
def export_sigmoid(
    name: str, sizes: tuple[int, ...], repository: Repository, recipe: str, progress: Progress
) -> Published:
    """Train with Adam on binary cross-entropy, measure on the held-out tumours, publish."""
    data = cancer().columns(COLUMNS)
    malignant, held_out_malignant = data.train_targets == MALIGNANT, data.held_out_targets == MALIGNANT
    with seeded(0):
        model = Sigmoid(sizes, StandardScaler().fit(data.train))
    history = train(
        model.logit,
        data.train,
        malignant[:, np.newaxis].astype(np.float32),
        loss=nn.functional.binary_cross_entropy_with_logits,
        learning_rate=0.03,
        epochs=200,
        validation=0.15,
        patience=20,
        metrics={"accuracy": lambda truth, logit: accuracy(truth[:, 0], logit[:, 0] > 0)},
        progress=progress,
    )
    with torch.inference_mode():
        probability = model(torch.from_numpy(data.held_out)).numpy()[:, 0]
    with tempfile.TemporaryDirectory() as folder:
        return export_torch(
            model,
            {"features": data.held_out},
            outputs=["probability"],
            labels={"probability": ["malignant"]},
            files={"learning_curve.png": history.draw(Path(folder) / "learning_curve.png")},
            name=name,
            repository=repository,
            provenance=Provenance(
                source=f"{__package__}.{name}",
                data=data.provenance,
                metrics={
                    "accuracy": accuracy(held_out_malignant, probability > 0.5),
                    "roc_auc": float(roc_auc_score(held_out_malignant, probability)),
                },
                baselines={"accuracy": majority_accuracy(malignant, held_out_malignant), "roc_auc": 0.5},
                training=history.to_dict(),
                recipe=recipe,
            ),
        )
