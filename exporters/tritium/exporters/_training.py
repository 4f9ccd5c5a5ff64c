"""Mini-batch training of a torch module on arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


_REPORTS = 8


def fit(
    module: torch.nn.Module,
    inputs: NDArray[Any],
    targets: NDArray[Any],
    *,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    epochs: int,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    seed: int = 0,
    progress: Callable[[str], None],
) -> None:
    """Train a module in place with Adam and a learning rate that falls to zero along a cosine.

    Args:
        module: takes a batch of `inputs`; its parameters are the caller's to initialise.
        inputs: of shape (rows, …).
        targets: of shape (rows,) or (rows, …), as `loss` takes them.
        loss: of what the module returns and the targets.
        epochs: passes over all rows, each in a new order.
        batch_size: rows a step.
        learning_rate: Adam's, at the start.
        weight_decay: Adam's L2 penalty.
        seed: of the order of the rows; dropout draws from torch's own generator.
        progress: called with a line every now and then.
    """
    import torch

    x, y = torch.from_numpy(inputs), torch.from_numpy(targets)
    optimizer = torch.optim.Adam(module.parameters(), lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    order = np.random.default_rng(seed)
    module.train()
    for epoch in range(1, epochs + 1):
        total = 0.0
        for rows in torch.from_numpy(order.permutation(len(x))).split(batch_size):
            optimizer.zero_grad()
            value = loss(module(x[rows]), y[rows])
            value.backward()
            optimizer.step()
            total += value.item() * len(rows)
        schedule.step()
        if epoch % max(1, epochs // _REPORTS) == 0:
            progress(f"epoch {epoch}/{epochs}: loss {total / len(x):.4f}")
    module.eval()
