"""Small ONNX models whose outputs are their inputs under other names, of any number of columns and dtypes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from onnx import ValueInfoProto, helper

from tritium.client import TensorSpec

from .served_models import DTYPES

# Two strings and two numbers a row, each of them an input of its own.
TABLE = (
    TensorSpec("island", "BYTES", (1,)),
    TensorSpec("sex", "BYTES", (1,)),
    TensorSpec("bill_length_mm", "FP32", (1,)),
    TensorSpec("year", "INT64", (1,)),
)


# Two inputs of two numbers each.
DUO = (TensorSpec("a", "FP32", (2,)), TensorSpec("b", "FP32", (2,)))


def write_echo(
    folder: Path,
    inputs: Sequence[TensorSpec],
    *,
    max_batch_size: int = 4,
    prefix: str = "same_",
    more: str = "",
) -> None:
    """Write version 1 of a model, in the place of what is there: each input comes back under its name with a prefix.

    The shapes are without the batch axis, which is there unless `max_batch_size` is 0. `more` ends the configuration.
    """
    shutil.rmtree(folder, ignore_errors=True)
    outputs = [TensorSpec(prefix + spec.name, spec.dtype, spec.shape) for spec in inputs]
    nodes = [helper.make_node("Identity", [x.name], [y.name]) for x, y in zip(inputs, outputs, strict=True)]
    rows = ["rows"] if max_batch_size else []
    graph = helper.make_graph(nodes, "echo", _declared(inputs, rows), _declared(outputs, rows))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    lines = ['backend: "onnxruntime"', f"max_batch_size: {max_batch_size}", more]
    for kind, specs in (("input", inputs), ("output", outputs)):
        for spec in specs:
            dtype = "STRING" if spec.dtype == "BYTES" else spec.dtype
            lines.append(f'{kind} {{ name: "{spec.name}" data_type: TYPE_{dtype} dims: {list(spec.shape)} }}')
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "config.pbtxt").write_text("\n".join(lines), encoding="utf-8")


def _declared(specs: Sequence[TensorSpec], rows: list[str]) -> list[ValueInfoProto]:
    return [
        helper.make_tensor_value_info(
            spec.name,
            DTYPES[spec.dtype],
            [*rows, *(f"{spec.name}{i}" if n == -1 else n for i, n in enumerate(spec.shape))],
        )
        for spec in specs
    ]
