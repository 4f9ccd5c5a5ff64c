"""Running a model file in this process."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from tritium.client import MissingExtraError, TritiumError
from tritium.repository import ArtifactError, open_artifact

ROWS = np.array([[1, 2], [3, 4]], dtype=np.float32)


def test_onnx_file_runs(onnx_file: Path) -> None:
    np.testing.assert_array_equal(open_artifact(onnx_file, "onnxruntime")({"x": ROWS}, ["y"])["y"], ROWS + 1)


@pytest.mark.parametrize(("name", "output"), [("x", "y__0"), ("x__0", "y__0"), ("anything__0", "OUTPUT__0")])
def test_torchscript_file_runs_by_name_or_place(name: str, output: str, torchscript_file: Path) -> None:
    answer = open_artifact(torchscript_file, "pytorch")({name: ROWS}, [output])
    np.testing.assert_array_equal(answer[output], ROWS + 1)


@pytest.mark.parametrize("text", [["a", "é"], [b"a", "é".encode()]], ids=["str", "bytes"])
def test_onnx_file_takes_strings_as_golden_cases_hold_them(text: list[str | bytes], string_onnx_file: Path) -> None:
    answer = open_artifact(string_onnx_file, "onnxruntime")({"text": np.array([text], dtype=object)}, ["same"])
    assert [item.decode() if isinstance(item, bytes) else item for item in answer["same"][0]] == ["a", "é"]


def test_onnx_file_takes_and_gives_bfloat16_beside_other_dtypes(tmp_path: Path) -> None:
    """ONNX Runtime has no numpy dtype for it."""
    x = helper.make_tensor_value_info("x", TensorProto.BFLOAT16, ["rows", 2])
    outputs = [
        helper.make_tensor_value_info("same", TensorProto.BFLOAT16, ["rows", 2]),
        helper.make_tensor_value_info("wide", TensorProto.FLOAT, ["rows", 2]),
    ]
    nodes = [
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(nodes, "casts", [x], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "model.onnx")
    run = open_artifact(tmp_path / "model.onnx", "onnxruntime")
    rows = np.array([[0.1, -2], [3, 1e30], [0, 7]], dtype=ml_dtypes.bfloat16)
    answer = run({"x": rows}, ["wide", "same"])
    assert answer["same"].dtype == rows.dtype
    np.testing.assert_array_equal(answer["same"], rows)
    np.testing.assert_array_equal(answer["wide"], rows.astype(np.float32))
    none = run({"x": rows[:0]}, ["same"])
    assert none["same"].shape == (0, 2)


class _Doubles(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x


class _Counts(torch.nn.Module):
    def forward(self, words: list[str]) -> tuple[torch.Tensor, list[str]]:
        return torch.tensor([len(word) for word in words]), [word + "!" for word in words]


class _Shouts(torch.nn.Module):
    def forward(self, words: list[str]) -> list[str]:
        return [word + "!" for word in words]


class _Named(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"twice": x + x, "same": x}


def scripted(module: torch.nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        torch.jit.script(module).save(str(path))
    return path


def test_torchscript_file_takes_and_gives_bfloat16(tmp_path: Path) -> None:
    rows = np.array([[0.5, -2], [3, 1]], dtype=ml_dtypes.bfloat16)
    answer = open_artifact(scripted(_Doubles(), tmp_path / "model.pt"), "pytorch")({"x": rows}, ["y__0"])
    assert answer["y__0"].dtype == rows.dtype
    np.testing.assert_array_equal(answer["y__0"], rows + rows)


def test_torchscript_file_takes_and_gives_strings_as_lists(tmp_path: Path) -> None:
    words = np.array(["a", b"bc"], dtype=object)
    run = open_artifact(scripted(_Counts(), tmp_path / "counts.pt"), "pytorch")
    answer = run({"words": words}, ["lengths__0", "loud__1"])
    np.testing.assert_array_equal(answer["lengths__0"], [1, 2])
    assert list(answer["loud__1"]) == ["a!", "bc!"]
    shouts = open_artifact(scripted(_Shouts(), tmp_path / "shouts.pt"), "pytorch")
    assert list(shouts({"words__0": words}, ["loud__0"])["loud__0"]) == ["a!", "bc!"]


@pytest.mark.parametrize(
    ("module", "row", "names"),
    [
        (_Doubles(), {"x": ROWS}, ["output__0"]),
        (_Named(), {"x": ROWS}, ["twice", "same"]),
        (_Counts(), {"words": np.array(["a"], dtype=object)}, ["output__0", "output__1"]),
        (_Shouts(), {"words": np.array(["a"], dtype=object)}, ["output__0"]),
    ],
    ids=lambda item: type(item).__name__,
)
def test_torchscript_file_lists_its_outputs_by_running(
    module: torch.nn.Module, row: dict[str, Any], names: list[str], tmp_path: Path
) -> None:
    artifact = open_artifact(scripted(module, tmp_path / "model.pt"), "pytorch")
    assert artifact.list_outputs(row) == names
    assert artifact(row, names).keys() == set(names)


def test_onnx_file_lists_its_outputs(onnx_file: Path) -> None:
    assert open_artifact(onnx_file, "onnxruntime").list_outputs({}) == ["y"]


@pytest.mark.parametrize("backend", ["onnxruntime", "pytorch"])
def test_missing_file_is_an_error_with_its_path(backend: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"There is no model file .*/model"):
        open_artifact(tmp_path / "model", backend)


@pytest.mark.parametrize("backend", ["onnxruntime", "pytorch"])
@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04" + bytes(64)], ids=["empty", "text", "zip"])
def test_corrupt_file_is_an_error_with_the_runtime(backend: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(content)
    runtime = {"onnxruntime": "ONNX Runtime", "pytorch": "torch"}[backend]
    with pytest.raises(ArtifactError, match=rf"does not load in {runtime} \d"):
        open_artifact(path, backend)


@pytest.mark.parametrize("backend", ["onnxruntime", "pytorch"])
def test_truncated_file_is_an_error(backend: str, onnx_file: Path, torchscript_file: Path, tmp_path: Path) -> None:
    whole = {"onnxruntime": onnx_file, "pytorch": torchscript_file}[backend].read_bytes()
    path = tmp_path / "model"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match="does not load"):
        open_artifact(path, backend)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [(["z"], ["y"]), ([], ["y"]), (["x"], ["z"])],
    ids=["unknown-input", "missing-input", "unknown-output"],
)
def test_onnx_file_that_does_not_run_says_what_it_has(
    inputs: Sequence[str], outputs: Sequence[str], onnx_file: Path
) -> None:
    run = open_artifact(onnx_file, "onnxruntime")
    with pytest.raises(ArtifactError) as caught:
        run(dict.fromkeys(inputs, ROWS), outputs)
    assert "It has input x tensor(float)['batch', 2]; output y tensor(float)['batch', 2]" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "output"), [("z", "y__0"), ("x", "y"), ("x", "y__1")], ids=["input", "output", "output-beyond"]
)
def test_torchscript_file_that_does_not_run_says_what_it_takes(name: str, output: str, torchscript_file: Path) -> None:
    run = open_artifact(torchscript_file, "pytorch")
    with pytest.raises(ArtifactError, match=r"Its forward takes x$"):
        run({name: ROWS}, [output])


def test_unknown_backend_is_an_error_with_the_known_ones(onnx_file: Path) -> None:
    with pytest.raises(TritiumError, match=r"onnxruntime.*pytorch.*tensorrt"):
        open_artifact(onnx_file, "tensorrt")


@pytest.mark.parametrize(("backend", "package"), [("onnxruntime", "onnxruntime"), ("pytorch", "torch")])
def test_missing_runtime_names_the_command_that_brings_it(
    backend: str, package: str, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match="pip install 'tritium"):
        open_artifact(onnx_file, backend)
