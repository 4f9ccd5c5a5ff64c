"""Train a small module on real data and publish it as ONNX."""

from __future__ import annotations

import sys

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from torch import nn

from tritium.exporters import Provenance, export_torch


def main(repository: str) -> int:
    data = load_breast_cancer()
    split = train_test_split(data.data.astype(np.float32), data.target, stratify=data.target, random_state=0)
    train, held_out, train_labels, held_out_labels = split
    torch.manual_seed(0)
    # The scaler is part of the model, so that whoever calls it sends what was measured.
    mean, scale = torch.from_numpy(train.mean(axis=0)), torch.from_numpy(train.std(axis=0))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", mean)
            self.register_buffer("scale", scale)
            self.layers = nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 2), nn.Softmax(dim=1))

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return self.layers((features - self.mean) / self.scale)  # type: ignore[no-any-return, operator]

    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(200):
        optimizer.zero_grad()
        probabilities = net(torch.from_numpy(train))
        nn.functional.nll_loss(probabilities.clamp_min(1e-7).log(), torch.from_numpy(train_labels)).backward()
        optimizer.step()
    net.eval()
    with torch.inference_mode():
        accuracy = float((net(torch.from_numpy(held_out)).argmax(dim=1).numpy() == held_out_labels).mean())
    published = export_torch(
        net,
        {"features": held_out},
        outputs=["probabilities"],
        labels={"probabilities": data.target_names.tolist()},
        name="cancer_net",
        repository=repository,
        provenance=Provenance(source="own_torch_model.py", metrics={"accuracy": accuracy}),
    )
    print(
        f"{published.model} {published.version}: accuracy {accuracy:.1%}, {', '.join(map(str, published.differences))}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:] or ["models"]))
