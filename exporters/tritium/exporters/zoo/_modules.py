"""Torch modules that several models of the zoo are made of."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from sklearn.preprocessing import StandardScaler
from torch import nn


def perceptron(*sizes: int, activation: type[nn.Module] = nn.ReLU, dropout: float = 0.0) -> nn.Sequential:
    """Linear layers of these sizes with an activation between each two; `dropout` is the share of inputs left out."""
    layers = [layer for size in pairwise(sizes) for layer in (nn.Linear(*size), activation())]
    return nn.Sequential(*[nn.Dropout(dropout)] * bool(dropout), *layers[:-1])


class Standardize(nn.Module):
    """A fitted StandardScaler, so that what was measured goes into the model, and nobody scales anything outside it."""

    def __init__(self, scaler: StandardScaler) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.scale: torch.Tensor
        self.register_buffer("mean", _float32(scaler.mean_))
        self.register_buffer("scale", _float32(scaler.scale_))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """From (rows, features) as measured to the same with mean 0 and deviation 1."""
        return (rows - self.mean) / self.scale

    def inverse(self, rows: torch.Tensor) -> torch.Tensor:
        """The way back."""
        return rows * self.scale + self.mean


def _float32(array: Any) -> torch.Tensor:
    return torch.as_tensor(array, dtype=torch.float32)
