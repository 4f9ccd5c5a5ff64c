"""A multi-layer perceptron on MNIST, as TorchScript."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import nn

from tritium.repository import Published, Repository

from .._export import Provenance
from .._torch import export_torch
from ..training import seeded, train
from ._digits import LABELS, load
from ._metrics import accuracy, majority_accuracy
from ._registry import Progress
from ._threads import one_thread


class DigitsMlp(nn.Module):
    """784 → 128 → 10: raw pixels in, probabilities out."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 10))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """From (rows, 784) pixels of 0 to 255 to (rows, 10) probabilities."""
        logits: torch.Tensor = self.layers(pixels / 255.0)
        return logits.softmax(dim=1)


@one_thread()
def export(repository: Repository, recipe: str, progress: Progress) -> Published:
    """Train, measure on the held-out digits, publish."""
    digits = load()
    with seeded(0):
        model = DigitsMlp()
    history = train(
        model.layers,
        digits.train_pixels / 255,
        digits.train_labels,
        loss=nn.functional.cross_entropy,
        l2=5e-6,
        epochs=40,
        schedule="cosine",
        validation=0.05,
        metrics={"accuracy": accuracy},
        progress=progress,
    )
    with torch.inference_mode():
        probabilities = model(torch.from_numpy(digits.test_pixels)).numpy()
    with tempfile.TemporaryDirectory() as folder:
        return export_torch(
            model,
            {"pixels": digits.test_pixels},
            outputs=["probabilities"],
            labels={"probabilities": LABELS},
            files={"learning_curve.png": history.draw(Path(folder) / "learning_curve.png")},
            name="digits_mlp",
            repository=repository,
            formats="torchscript",
            provenance=Provenance(
                source=__name__,
                data=digits.provenance,
                metrics={"accuracy": accuracy(digits.test_labels, probabilities)},
                baselines={"accuracy": majority_accuracy(digits.train_labels, digits.test_labels)},
                training=history.to_dict(),
                recipe=recipe,
            ),
        )
