"""`torch.nn.RNN` as ONNX's own operator: torch would unroll it, and so freeze the length of its example."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def rnn_translations() -> dict[Any, Callable[..., Any]]:
    """The operators behind `torch.nn.RNN`, and what makes ONNX of them, as `torch.onnx.export` takes them."""
    import torch

    aten = torch.ops.aten
    return {aten.rnn_tanh.input: _translation("Tanh"), aten.rnn_relu.input: _translation("Relu")}


def _translation(activation: str) -> Callable[..., Any]:
    from onnxscript import FLOAT, opset18

    op: Any = opset18  # it takes numbers for constants, which its annotations do not say

    def translate(
        input: FLOAT,  # noqa: A002 — torch's name
        hx: FLOAT,
        params: Sequence[FLOAT],
        has_biases: bool,
        num_layers: int,
        dropout: float,  # noqa: ARG001 — off, once a model is served
        train: bool,  # noqa: ARG001
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[FLOAT, FLOAT]:
        """All layers, one ONNX RNN each: (steps, rows, inputs) to (steps, rows, directions * units)."""
        directions = 2 if bidirectional else 1
        each = 4 if has_biases else 2
        states = op.Transpose(input, perm=[1, 0, 2]) if batch_first else input
        last = []
        for layer in range(num_layers):
            first = layer * directions * each
            sets: list[Any] = [params[place : place + each] for place in range(first, first + directions * each, each)]
            weights, recurrent = (_stacked(op, [item[which] for item in sets]) for which in (0, 1))
            biases = [op.Concat(item[2], item[3], axis=0) for item in sets if has_biases]
            start = op.Slice(hx, [layer * directions], [(layer + 1) * directions], [0])
            every, final = op.RNN(
                states,
                weights,
                recurrent,
                _stacked(op, biases) if biases else None,
                None,
                start,
                activations=[activation] * directions,
                direction="bidirectional" if bidirectional else "forward",
                hidden_size=int(sets[0][0].shape[0]),
            )
            # (steps, directions, rows, units): the directions side by side, as torch has them.
            states = op.Reshape(op.Transpose(every, perm=[0, 2, 1, 3]), [0, 0, -1])
            last.append(final)
        result = op.Transpose(states, perm=[1, 0, 2]) if batch_first else states
        return result, last[0] if num_layers == 1 else op.Concat(*last, axis=0)

    return translate


def _stacked(op: Any, items: Sequence[Any]) -> Any:
    each = [op.Unsqueeze(item, [0]) for item in items]
    return each[0] if len(each) == 1 else op.Concat(*each, axis=0)
