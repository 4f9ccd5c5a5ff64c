"""Small models that are quickly published: `y = x + 1` as ONNX and as TorchScript."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from tritium.client import TensorSpec
from tritium.repository import Candidate, GoldenCases, Manifest, Repository, Serving, Tolerance, model_config

X = TensorSpec("x", "FP32", (-1, 2))
Y = TensorSpec("y", "FP32", (-1, 2))
# What is in a folder: the bytes of each file, None for each folder.
Snapshot = Callable[[Path], dict[str, bytes | None]]


def _plus_one(path: Path, batch: str | int) -> Path:
    tensors = (
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 2])],
    )
    one = helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])
    graph = helper.make_graph([helper.make_node("Add", ["x", "one"], ["y"])], "plus_one", *tensors, [one])
    # Versions that every ONNX Runtime of the last years reads.
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


class _PlusOne(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


@pytest.fixture(scope="session")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`y = x + 1` for any number of rows."""
    return _plus_one(tmp_path_factory.mktemp("onnx") / "plus_one.onnx", "batch")


@pytest.fixture(scope="session")
def frozen_onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`y = x + 1` for one row only, as an export without a dynamic axis gives it."""
    return _plus_one(tmp_path_factory.mktemp("onnx") / "frozen.onnx", 1)


@pytest.fixture(scope="session")
def string_onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`same = text`, both strings."""
    text, same = (helper.make_tensor_value_info(name, TensorProto.STRING, ["batch", 2]) for name in ("text", "same"))
    graph = helper.make_graph([helper.make_node("Identity", ["text"], ["same"])], "words", [text], [same])
    path = tmp_path_factory.mktemp("onnx") / "words.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.fixture(scope="session")
def torchscript_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`x + 1` as TorchScript; its input is called `x`, its output has no name."""
    path = tmp_path_factory.mktemp("torchscript") / "plus_one.pt"
    with warnings.catch_warnings():
        # torch deprecates TorchScript, which Triton's PyTorch backend still wants.
        for function in ("script", "script_method", "save"):
            warnings.filterwarnings("ignore", f"`torch.jit.{function}` is deprecated", DeprecationWarning)
        torch.jit.script(_PlusOne()).save(str(path))
    return path


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """An empty repository."""
    return Repository(tmp_path / "repository", create=True)


@pytest.fixture
def golden() -> GoldenCases:
    """Three cases of `y = x + 1`."""
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    return GoldenCases({"x": x}, {"y": x + 1})


@pytest.fixture
def manifest() -> Manifest:
    """A manifest that says little."""
    return Manifest(
        model="plus_one",
        source="tests.repository",
        created="2026-01-01T00:00:00Z",
        frameworks={"onnx": onnx.__version__},
        data={"name": "none", "rows": 3},
        metrics={"accuracy": 1.0},
        parity={"y": {"agreement": 1.0, "max_abs": 0.0, "max_rel": 0.0}},
        tolerance=Tolerance(atol=1e-6),
    )


@pytest.fixture
def candidate(onnx_file: Path, golden: GoldenCases, manifest: Manifest) -> Candidate:
    """A version of the ONNX model that passes the gate, with labels."""
    return Candidate(
        config=model_config(
            "plus_one", backend="onnxruntime", inputs=[X], outputs=[Y], label_files={"y": "labels.txt"}
        ),
        artifact=onnx_file,
        golden=golden,
        manifest=manifest,
        labels={"labels.txt": ["first", "second"]},
    )


@pytest.fixture
def next_candidate(candidate: Candidate) -> Candidate:
    """A later version of it, with other settings and other labels."""
    config = model_config(
        "plus_one",
        backend="onnxruntime",
        inputs=[X],
        outputs=[Y],
        serving=Serving(max_batch_size=16),
        label_files={"y": "labels.txt"},
    )
    return replace(candidate, config=config, labels={"labels.txt": ["one", "two"]})


@pytest.fixture
def snapshot() -> Snapshot:
    """A function that reads a whole folder, hidden files included, to compare it with itself later."""

    def read(folder: Path) -> dict[str, bytes | None]:
        return {
            str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes() for path in folder.rglob("*")
        }

    return read
