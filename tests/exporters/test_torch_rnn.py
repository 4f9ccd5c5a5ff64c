"""Recurrent layers of any length, which are one ONNX operator a layer and give what torch gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from tritium.exporters import export_torch

STEPS = np.random.default_rng(0).normal(size=(9, 6, 3)).astype(np.float32)


class Recurrent(nn.Module):
    """All states, and the last ones; the rows come first, whatever the layer takes."""

    def __init__(self, kind: Any, options: dict[str, Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = kind(3, 4, **options)

    def forward(self, steps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        first = self.layer.batch_first
        states, last = self.layer(steps if first else steps.transpose(0, 1))
        last = last[0] if isinstance(last, tuple) else last  # an LSTM has two
        return states if first else states.transpose(0, 1), last.transpose(0, 1)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (nn.RNN, {"batch_first": True}),
        (nn.RNN, {}),
        (nn.RNN, {"batch_first": True, "nonlinearity": "relu"}),
        (nn.RNN, {"batch_first": True, "bidirectional": True, "num_layers": 2, "dropout": 0.5}),
        (nn.RNN, {"bidirectional": True, "bias": False, "nonlinearity": "relu", "num_layers": 3}),
        (nn.GRU, {"batch_first": True, "bidirectional": True}),
        (nn.LSTM, {"batch_first": True, "num_layers": 2}),
    ],
    ids=lambda item: item.__name__ if isinstance(item, type) else " ".join(f"{key}={item[key]}" for key in item),
)
def test_a_recurrent_layer_is_one_operator_and_right_at_every_length(
    kind: type[nn.RNNBase], options: dict[str, Any], tmp_path: Path
) -> None:
    published = export_torch(
        Recurrent(kind, options),
        {"steps": STEPS},
        outputs=["states", "last"],
        name="recurrent",
        repository=tmp_path,
        dynamic={"steps": {1: "length"}},
    )
    nodes = [node.op_type for node in onnx.load(published.folder / "model.onnx").graph.node]
    assert nodes.count(kind.__name__) == options.get("num_layers", 1)
