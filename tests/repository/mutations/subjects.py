"""Good models to be mutated, each with golden cases."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tritium.client import TensorSpec
from tritium.repository import (
    Candidate,
    GoldenCases,
    Manifest,
    Repository,
    Serving,
    Tolerance,
    add_warm_up,
    load_golden,
    model_config,
    publish,
)

Array = NDArray[Any]
_ROWS = 3
_LARGEST_BYTES = 2 * 2**20


@dataclass(frozen=True)
class Subject:
    """A model as it was published.

    Attributes:
        folder: the model's folder.
        golden: its golden cases, kept where no mutation reaches them.
        tolerance: what answers may differ from them.
    """

    name: str
    folder: Path
    config: ModelConfig
    golden: GoldenCases
    tolerance: Tolerance


def subjects(folder: Path, zoo: Path) -> list[Subject]:
    """Small models made in the folder, and those of a repository that are built and small."""
    repository = Repository(folder / "subjects", create=True)
    for make in (_classifier, _words, _sums, _script):
        publish(repository, make(folder))
    if zoo.is_dir():
        for name in Repository(zoo).models():
            version = Repository(zoo).version_folder(name)
            if sum(file.stat().st_size for file in version.iterdir()) < _LARGEST_BYTES:
                _copy(version, repository.path / name)
    return [_subject(repository, name) for name in repository.models()]


def _subject(repository: Repository, name: str) -> Subject:
    config, version = repository.config(name), repository.version_folder(name)
    golden = load_golden(version, config)
    return Subject(name, repository.path / name, config, golden, Manifest.load(version).tolerance)


def _copy(version: Path, target: Path) -> None:
    shutil.copytree(version, target / "1")
    for path in version.parent.iterdir():
        if path.is_file():
            shutil.copy(path, target)
        elif path.name == "warmup":
            shutil.copytree(path, target / path.name)


def _classifier(folder: Path) -> Candidate:
    """Probabilities with labels, one whole number a row beside them, and a warm-up."""
    rng = np.random.default_rng(0)
    weights, bias = rng.normal(size=(4, 3)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    features = rng.normal(size=(_ROWS, 4)).astype(np.float32)
    powers = np.exp(features @ weights + bias)
    file = _save(
        folder / "classifier.onnx",
        [
            helper.make_node("Gemm", ["features", "weights", "bias"], ["sums"]),
            helper.make_node("Softmax", ["sums"], ["probabilities"]),
            helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
        ],
        [("features", TensorProto.FLOAT, ["batch", 4])],
        [("probabilities", TensorProto.FLOAT, ["batch", 3]), ("label", TensorProto.INT64, ["batch"])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
    )
    config = model_config(
        "classifier",
        backend="onnxruntime",
        inputs=[TensorSpec("features", "FP32", (-1, 4))],
        outputs=[TensorSpec("probabilities", "FP32", (-1, 3)), TensorSpec("label", "INT64", (-1,))],
        serving=Serving(max_batch_size=8, instances=2),
        label_files={"probabilities": "labels.txt"},
    )
    golden = GoldenCases(
        {"features": features},
        {
            "probabilities": powers / powers.sum(axis=1, keepdims=True),
            "label": powers.argmax(axis=1).astype(np.int64)[:, None],
        },
    )
    labels = {"labels.txt": ["one", "two", "three"]}
    return Candidate(config, file, golden, _manifest("classifier", 17), labels, warm_up=add_warm_up(config, golden))


def _words(folder: Path) -> Candidate:
    """Strings in and out, of any length."""
    file = _save(
        folder / "words.onnx",
        [helper.make_node("Identity", ["text"], ["same"])],
        [("text", TensorProto.STRING, ["batch", "length"])],
        [("same", TensorProto.STRING, ["batch", "length"])],
    )
    config = model_config(
        "words",
        backend="onnxruntime",
        inputs=[TensorSpec("text", "BYTES", (-1, -1))],
        outputs=[TensorSpec("same", "BYTES", (-1, -1))],
    )
    text = np.array([["a", "bc"], ["", "größer"], ["x" * 40, "d"]], dtype=object)
    return Candidate(config, file, GoldenCases({"text": text}, {"same": text}), _manifest("words", 17))


def _sums(folder: Path) -> Candidate:
    """Two inputs, no batch axis."""
    file = _save(
        folder / "sums.onnx",
        [helper.make_node("Add", ["a", "b"], ["sum"])],
        [("a", TensorProto.INT32, [2, 3]), ("b", TensorProto.INT32, [3])],
        [("sum", TensorProto.INT32, [2, 3])],
    )
    config = model_config(
        "sums",
        backend="onnxruntime",
        inputs=[TensorSpec("a", "INT32", (2, 3)), TensorSpec("b", "INT32", (3,))],
        outputs=[TensorSpec("sum", "INT32", (2, 3))],
        serving=Serving(max_batch_size=0),
    )
    a, b = np.arange(18, dtype=np.int32).reshape(_ROWS, 2, 3), np.arange(9, dtype=np.int32).reshape(_ROWS, 3)
    golden = GoldenCases({"a": a, "b": b}, {"sum": a + b[:, None]})
    return Candidate(config, file, golden, _manifest("sums", 17))


class _Scaled(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(3.0))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.factor * x + y, x - y


def _script(folder: Path) -> Candidate:
    """TorchScript: two inputs by their names, two outputs by their places."""
    path = folder / "script.pt"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.", DeprecationWarning)
        torch.jit.script(_Scaled()).save(str(path))
    config = model_config(
        "script",
        backend="pytorch",
        inputs=[TensorSpec("x", "FP32", (-1, 2)), TensorSpec("y", "FP32", (-1, 2))],
        outputs=[TensorSpec("sum__0", "FP32", (-1, 2)), TensorSpec("difference__1", "FP32", (-1, 2))],
    )
    x = np.arange(6, dtype=np.float32).reshape(_ROWS, 2)
    y = x[::-1].copy()
    golden = GoldenCases({"x": x, "y": y}, {"sum__0": 3 * x + y, "difference__1": x - y})
    return Candidate(config, path, golden, _manifest("script", None))


def _save(
    path: Path,
    nodes: Sequence[Any],
    inputs: Sequence[tuple[str, int, Sequence[Any]]],
    outputs: Sequence[tuple[str, int, Sequence[Any]]],
    weights: Sequence[Any] = (),
) -> Path:
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(*tensor) for tensor in inputs],
        [helper.make_tensor_value_info(*tensor) for tensor in outputs],
        list(weights),
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def _manifest(name: str, opset: int | None) -> Manifest:
    return Manifest(
        model=name,
        source="tests.repository.mutations",
        created="2026-01-01T00:00:00Z",
        frameworks={},
        data={},
        metrics={},
        parity={},
        tolerance=Tolerance(atol=1e-5),
        opset=opset,
    )
