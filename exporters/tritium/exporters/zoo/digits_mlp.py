"""A multi-layer perceptron on MNIST, as TorchScript."""

from __future__ import annotations

import torch
from torch import nn

from tritium.repository import Published, Repository

from .._export import Provenance, export_torch
from .._training import fit
from ._digits import LABELS, accuracy, load
from ._registry import Progress


class DigitsMlp(nn.Module):
    """784 → 128 → 10: raw pixels in, probabilities out."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 10))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """From (rows, 784) pixels of 0 to 255 to (rows, 10) probabilities; logits in training mode."""
        logits: torch.Tensor = self.layers(pixels / 255.0)
        return logits if self.training else logits.softmax(dim=1)


def export(repository: Repository, recipe: str, progress: Progress) -> Published:
    """Train, measure on the held-out digits, publish."""
    digits = load()
    torch.manual_seed(0)
    model = DigitsMlp()
    fit(
        model,
        digits.train_pixels,
        digits.train_labels,
        loss=nn.functional.cross_entropy,
        epochs=40,
        weight_decay=1e-5,
        progress=progress,
    )
    with torch.inference_mode():
        predicted = model(torch.from_numpy(digits.test_pixels)).argmax(dim=1).numpy()
    return export_torch(
        model,
        {"pixels": digits.test_pixels},
        outputs=["probabilities"],
        labels={"probabilities": LABELS},
        name="digits_mlp",
        repository=repository,
        format="torchscript",
        provenance=Provenance(
            source=__name__,
            data=digits.provenance,
            metrics={"accuracy": accuracy(predicted, digits.test_labels)},
            recipe=recipe,
        ),
    )
