"""Running a model file in this process."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

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
