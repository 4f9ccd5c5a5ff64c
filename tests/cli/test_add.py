"""`tritium add`: a file that exists becomes a version; what it says to people and to programs."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import Result
from onnx import TensorProto, helper

from tritium.repository import Repository, input_specs, output_specs

Run = Callable[..., Result]


def identity(path: Path, rows: str | int) -> Path:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, 3]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "same", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "layer.pt"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        torch.jit.script(torch.nn.Linear(3, 2)).save(str(path))
    return path


def test_an_onnx_file_needs_a_name_only(run: Run, tmp_path: Path) -> None:
    file = identity(tmp_path / "a file without a suffix", "rows")
    result = run("add", file, "--name", "same", "--repository", tmp_path / "models")
    assert result.exit_code == 0
    assert result.stdout == f"same version 1 in {tmp_path}/models/same/1\n  x FP32[-1,3] → y FP32[-1,3]\n"
    assert "made-up inputs. With real ones (--samples inputs.npz)" in result.stderr


def test_a_file_without_a_batch_axis_is_said_to_be_one(run: Run, tmp_path: Path) -> None:
    file = identity(tmp_path / "model.onnx", 1)
    result = run("add", file, "--name", "same", "--repository", tmp_path / "models")
    assert "max_batch_size is 0: the first axes of its inputs and outputs are not all free" in result.stderr
    asked = run("add", file, "--name", "same", "--repository", tmp_path / "models", "--max-batch-size", 0)
    assert "max_batch_size" not in asked.stderr
    refused = run("add", file, "--name", "same", "--repository", tmp_path / "models", "--max-batch-size", 8)
    assert refused.exit_code == 2
    assert "no batch axis (x has the shape [1, 3]" in refused.stderr


def test_json_is_one_document_with_what_was_found(run: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", x=np.ones((5, 3), np.float32))
    result = run(
        *("add", identity(tmp_path / "model.onnx", "rows"), "--name", "same", "--repository", tmp_path / "models"),
        *("--samples", tmp_path / "rows.npz", "--max-batch-size", 8, "--target", "gpu", "--json"),
    )
    document = json.loads(result.stdout)
    assert document["data"].pop("sha256")
    assert document == {
        "model": "same",
        "version": 1,
        "folder": str(tmp_path / "models/same/1"),
        "backend": "onnxruntime",
        "max_batch_size": 8,
        "inputs": ["x FP32[-1,3]"],
        "outputs": ["y FP32[-1,3]"],
        "data": {"name": "rows.npz", "rows": 5},
        "files": ["golden.npz", "model.onnx"],
    }
    accelerators = Repository(tmp_path / "models").config("same").optimization.execution_accelerators
    assert [item.name for item in accelerators.gpu_execution_accelerator] == ["tensorrt", "cuda"]
    assert not result.stderr


@pytest.mark.parametrize("dtype", ["FP32", "fp32", "float32"])
def test_torchscript_is_described_by_hand(dtype: str, run: Run, script: Path, tmp_path: Path) -> None:
    result = run(
        *("add", script, "--name", "layer", "--repository", tmp_path / "models"),
        *("--input", f"input:{dtype}:-1,3", "--output", "scores"),
    )
    assert result.exit_code == 0, result.stderr
    config = Repository(tmp_path / "models").config("layer")
    assert [str(spec) for spec in (*input_specs(config), *output_specs(config))] == [
        "input FP32[-1,3]",
        "scores__0 FP32[-1,2]",
    ]


def test_torchscript_without_a_description_says_what_to_pass(run: Run, script: Path, tmp_path: Path) -> None:
    result = run("add", script, "--name", "layer", "--repository", tmp_path / "models", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["kind"] == "InputError"
    assert "--input input:FP32:-1,4" in result.stderr
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    "text", ["input", "input:FP32", "input:FP32:x", ":FP32:-1,3", "input:FP32:-2,3", "input:FP32:0,3"]
)
def test_an_input_that_is_not_name_dtype_dims_is_refused_with_an_example(
    text: str, run: Run, script: Path, tmp_path: Path
) -> None:
    result = run("add", script, "--name", "layer", "--repository", tmp_path / "models", "--input", text)
    assert result.exit_code == 2
    assert f"as in features:FP32:-1,4, got {text!r} instead" in result.stderr


def test_a_name_with_colons_keeps_them(run: Run, script: Path, tmp_path: Path) -> None:
    result = run(
        "add", script, "--name", "layer", "--repository", tmp_path / "models", "--input", "serving:0:FP32:-1,3"
    )
    assert result.exit_code == 2
    assert "got 'serving:0' instead" in result.stderr


def test_a_pickle_is_refused_and_exits_with_2(run: Run, tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "weights.pt")
    result = run("add", tmp_path / "weights.pt", "--name", "weights", "--repository", tmp_path / "models")
    assert result.exit_code == 2
    assert "is a pickle that torch.save wrote" in result.stderr
