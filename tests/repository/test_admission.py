"""What must hold before a server loads a model: its files are of formats that its backend loads."""

from __future__ import annotations

import io
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tritium.repository import ArtifactError, Repository, check_loadable

CONFIG = """
backend: "{backend}"
max_batch_size: 8
input {{ name: "x" data_type: TYPE_FP32 dims: 2 }}
output {{ name: "y" data_type: TYPE_FP32 dims: 2 }}
"""
PICKLE = pickle.dumps({"a": 1})


def onnx_file(location: str = "") -> bytes:
    """y = x + w; w lies in a file of that name, if there is one."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", 2))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("batch", 2))],
        [numpy_helper.from_array(np.array([1, 2], np.float32), "w")],
    )
    model = helper.make_model(graph)
    if location:
        onnx.external_data_helper.set_external_data(model.graph.initializer[0], location)
        model.graph.initializer[0].ClearField("raw_data")
    return bytes(model.SerializeToString())


def archive(*members: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for member in members:
            file.writestr(member, PICKLE)
    return content.getvalue()


Write = Callable[..., Repository]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Makes a repository with a model of that backend and these files in its version."""

    def made(backend: str, files: dict[str, bytes], *, more: str = "") -> Repository:
        folder = tmp_path / "m" / "1"
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        (tmp_path / "m" / "config.pbtxt").write_text(CONFIG.format(backend=backend) + more)
        return Repository(tmp_path)

    return made


TORCHSCRIPT = archive("m/data.pkl", "m/constants.pkl")
REFUSED: dict[str, tuple[str, dict[str, bytes], str]] = {
    "a pickle as the model": ("onnxruntime", {"model.onnx": PICKLE}, "model.onnx: it is a pickle"),
    "a pickle beside the model": (
        "onnxruntime",
        {"model.onnx": onnx_file(), "scaler.pkl": b""},
        "scaler.pkl: it is",
    ),
    "a pickle under another name": ("onnxruntime", {"model.onnx": onnx_file(), "a.txt": PICKLE}, "a.txt: it is a pick"),
    "joblib": ("onnxruntime", {"model.onnx": onnx_file(), "sub/pipe.joblib": b"x"}, "sub/pipe.joblib: it is a pickle"),
    "a pickle named as external data": (
        "onnxruntime",
        {"model.onnx": onnx_file("weights.pkl"), "weights.pkl": bytes(8)},
        "weights.pkl: it is a pickle",
    ),
    "an unknown file": (
        "onnxruntime",
        {"model.onnx": onnx_file(), "run.sh": b"rm"},
        r"run.sh: it is no file that the backend 'onnxruntime' loads; remove it; beside ONNX there may be .*\.json",
    ),
    "a library that the config does not name": (
        "onnxruntime",
        {"model.onnx": onnx_file(), "ops.so": b"\x7fELF"},
        "ops",
    ),
    "weights that the model does not name": (
        "onnxruntime",
        {"model.onnx": onnx_file(), "weights.bin": b"x"},
        "weights",
    ),
    "TorchScript for ONNX Runtime": ("onnxruntime", {"model.onnx": TORCHSCRIPT}, "archive, as TorchScript files are"),
    "weights that torch.save wrote": ("pytorch", {"model.pt": archive("m/data.pkl")}, "weights that torch.save wrote"),
    "a Python file beside TorchScript": (
        "pytorch",
        {"model.pt": TORCHSCRIPT, "model.py": b""},
        "model.py: it is no fil",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_file_that_the_backend_does_not_load_is_refused(write: Write, what: str) -> None:
    backend, files, message = REFUSED[what]
    with pytest.raises(ArtifactError, match=message):
        check_loadable(write(backend, files), "m")


NUMBERS = b"\x80\x04" + bytes(6)  # begins as a pickle does
LOADED: dict[str, tuple[str, dict[str, bytes], str]] = {
    "external data": ("onnxruntime", {"model.onnx": onnx_file("weights.bin"), "weights.bin": NUMBERS}, ""),
    "a folder with external data": (
        "onnxruntime",
        {"model.onnx/model.onnx": onnx_file("weights"), "model.onnx/weights": NUMBERS},
        "",
    ),
    "text and numbers": (
        "onnxruntime",
        {"model.onnx": onnx_file(), "vocabulary.txt": b"a", "tokenizer.json": b"{}", "scale.npz": archive("a.npy")},
        "",
    ),
    "a library that the config names": (
        "onnxruntime",
        {"model.onnx": onnx_file(), "ops.so": b"\x7fELF"},
        'model_operations { op_library_filename: "ops.so" }',
    ),
    "another name": ("onnxruntime", {"net": onnx_file()}, 'default_model_filename: "net"'),
    "damaged": ("onnxruntime", {"model.onnx": b"no protobuf"}, ""),
    "empty": ("onnxruntime", {"model.onnx": b"", "labels.csv": b""}, ""),
    "nothing": ("onnxruntime", {"labels.csv": b""}, ""),
    "TorchScript": ("pytorch", {"model.pt": TORCHSCRIPT}, ""),
    "a Python model with what it reads": ("python", {"model.py": b"", "pipe.joblib": PICKLE, "run.sh": b""}, ""),
}


@pytest.mark.parametrize("what", LOADED)
def test_what_the_backend_loads_is_let_through_and_damage_is_for_it_to_name(write: Write, what: str) -> None:
    backend, files, more = LOADED[what]
    check_loadable(write(backend, files, more=more), "m")


def test_a_model_without_a_config_is_held_to_what_its_file_says(write: Write) -> None:
    repository = write("onnxruntime", {"model.onnx": onnx_file(), "scaler.pkl": PICKLE})
    (repository.path / "m" / "config.pbtxt").unlink()
    with pytest.raises(ArtifactError, match="it is a pickle"):
        check_loadable(repository, "m")


def test_a_version_that_is_not_served_is_not_looked_at(write: Write) -> None:
    repository = write("onnxruntime", {"model.onnx": onnx_file(), "scaler.pkl": PICKLE})
    shutil.copytree(repository.path / "m" / "1", repository.path / "m" / "2")
    (repository.path / "m" / "2" / "scaler.pkl").unlink()
    check_loadable(repository, "m")
