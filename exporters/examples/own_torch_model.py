"""Train a small module on real data and publish it twice: as ONNX, and as TorchScript."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from torch import nn

from tritium.exporters import Provenance, export_torch
from tritium.exporters.training import seeded, train


class Net(nn.Module):
    """The scaler is part of the model, so that whoever calls it sends what was measured."""

    def __init__(self, mean: torch.Tensor, scale: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.layers = nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 2), nn.Softmax(dim=1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        probabilities: torch.Tensor = self.layers((features - self.mean) / self.scale)  # type: ignore[operator]
        return probabilities


def loss(probabilities: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
    return nn.functional.nll_loss(probabilities.clamp_min(1e-7).log(), kinds)


def main(repository: str) -> int:
    torch.set_num_threads(1)  # a network this small only waits for more of them
    data = load_breast_cancer()
    measures = data.data.astype(np.float32)
    measures, held_out, kinds, truth = train_test_split(measures, data.target, stratify=data.target, random_state=0)
    with seeded(0):
        net = Net(torch.from_numpy(measures.mean(axis=0)), torch.from_numpy(measures.std(axis=0)))
    history = train(net, measures, kinds, loss=loss, learning_rate=0.01, epochs=20)
    with torch.inference_mode():
        accuracy = float((net(torch.from_numpy(held_out)).argmax(dim=1).numpy() == truth).mean())
    published = export_torch(
        net,
        {"features": held_out},
        outputs=["probabilities"],
        labels={"probabilities": data.target_names.tolist()},
        name="cancer_net",
        repository=repository,
        formats=("onnx", "torchscript"),
        provenance=Provenance(
            source=Path(__file__).name,
            metrics={"accuracy": accuracy},
            baselines={"accuracy": float((truth == np.bincount(kinds).argmax()).mean())},
            training=history.to_dict(),
        ),
    )
    for version in published:
        print(f"accuracy {accuracy:.1%}, {version}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:] or ["models"]))
