"""A convolutional network on MNIST, by torch's exporter to ONNX."""

from __future__ import annotations

import torch
from torch import nn

from tritium.repository import Published, Repository

from .._export import Provenance, export_torch
from .._training import fit
from ._digits import LABELS, accuracy, load
from ._registry import Progress


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
        """From (rows, 1, 28, 28) pixels of 0 to 255 to (rows, 10) probabilities; logits in training mode."""
        logits: torch.Tensor = self.layers(image / 255.0)
        return logits if self.training else logits.softmax(dim=1)


def export(repository: Repository, recipe: str, progress: Progress) -> Published:
    """Train, measure on the held-out digits, publish."""
    digits = load()
    torch.manual_seed(0)
    model = DigitsCnn()
    fit(
        model,
        digits.train_pixels.reshape(-1, 1, 28, 28),
        digits.train_labels,
        loss=nn.functional.cross_entropy,
        epochs=8,
        progress=progress,
    )
    held_out = digits.test_pixels.reshape(-1, 1, 28, 28)
    with torch.inference_mode():
        predicted = model(torch.from_numpy(held_out)).argmax(dim=1).numpy()
    return export_torch(
        model,
        {"image": held_out},
        outputs=["probabilities"],
        labels={"probabilities": LABELS},
        name="digits_cnn",
        repository=repository,
        provenance=Provenance(
            source=__name__,
            data=digits.provenance,
            metrics={"accuracy": accuracy(predicted, digits.test_labels)},
            recipe=recipe,
        ),
    )
