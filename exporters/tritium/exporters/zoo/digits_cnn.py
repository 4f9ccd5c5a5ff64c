"""A convolutional network on MNIST, by torch's exporter to ONNX."""

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


class DigitsCnn(nn.Module):
    """Raw pixels in, probabilities out, so that nobody has to scale anything outside the model."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(64 * 7 * 7, 128),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(128, 10),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """From (rows, 1, 28, 28) pixels of 0 to 255 to (rows, 10) probabilities."""
        logits: torch.Tensor = self.layers(image / 255.0)
        return logits.softmax(dim=1)


@one_thread()
def export(repository: Repository, recipe: str, progress: Progress) -> Published:
    """Train, measure on the held-out digits, publish."""
    digits = load()
    with seeded(0):
        model = DigitsCnn()
    history = train(
        model.layers,
        digits.train_pixels.reshape(-1, 1, 28, 28) / 255,
        digits.train_labels,
        loss=nn.functional.cross_entropy,
        epochs=8,
        schedule="cosine",
        validation=0.05,
        metrics={"accuracy": accuracy},
        progress=progress,
    )
    held_out = digits.test_pixels.reshape(-1, 1, 28, 28)
    with torch.inference_mode():
        probabilities = model(torch.from_numpy(held_out)).numpy()
    with tempfile.TemporaryDirectory() as folder:
        return export_torch(
            model,
            {"image": held_out},
            outputs=["probabilities"],
            labels={"probabilities": LABELS},
            files={"learning_curve.png": history.draw(Path(folder) / "learning_curve.png")},
            name="digits_cnn",
            repository=repository,
            provenance=Provenance(
                source=__name__,
                data=digits.provenance,
                metrics={"accuracy": accuracy(digits.test_labels, probabilities)},
                baselines={"accuracy": majority_accuracy(digits.train_labels, digits.test_labels)},
                training=history.to_dict(),
                recipe=recipe,
            ),
        )
