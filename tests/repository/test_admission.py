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

from tritium.client import InputError
from tritium.repository import ArtifactError, ConfigError, Repository, check_loadable

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
    "a library that Triton takes for its backend": (
        "onnxruntime",
        {"libtriton_onnxruntime.so": b"\x7fELF"},
        r"^libtriton_onnxruntime\.so: it is a library that Triton loads by its name alone; remove it",
    ),
    "such a library beside the versions": (
        "pytorch",
        {"model.pt": TORCHSCRIPT, "../libtriton_python.so": b"\x7fELF"},
        r"^libtriton_python\.so: it is a library",
    ),
    "a library that forms batches": (
        "onnxruntime",
        {"model.onnx": onnx_file(), "../batchstrategy.so": b"\x7fELF"},
        r"^batchstrategy\.so: it is a library",
    ),
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


def test_a_runtime_other_than_the_backends_is_refused(write: Write) -> None:
    repository = write("onnxruntime", {"model.onnx": onnx_file()}, more='runtime: "evil.so"')
    with pytest.raises(ArtifactError, match=r"runtime is 'evil\.so', which is not the backend's own"):
        check_loadable(repository, "m")


@pytest.mark.parametrize("place", ["1/model.onnx", "1/more.txt", "1/folder"])
def test_a_link_in_a_version_is_refused(write: Write, tmp_path: Path, place: str) -> None:
    repository = write("onnxruntime", {"model.onnx": onnx_file()})
    (repository.path / "m" / place).unlink(missing_ok=True)
    (repository.path / "m" / place).symlink_to(tmp_path)
    with pytest.raises(ArtifactError, match=f"{Path(place).name}: it is a link, and what it leads to is not checked"):
        check_loadable(repository, "m")


@pytest.mark.parametrize("described", [True, False])
def test_a_version_or_a_config_that_is_a_link_is_checked_by_what_it_leads_to(write: Write, described: bool) -> None:
    repository = write("onnxruntime", {"model.onnx": onnx_file()})
    model, elsewhere = repository.path / "m", repository.path / ".elsewhere"
    model.rename(elsewhere)
    model.mkdir()
    (model / "1").symlink_to(elsewhere / "1")
    if described:
        (model / "config.pbtxt").symlink_to(elsewhere / "config.pbtxt")
    check_loadable(repository, "m")
    (elsewhere / "1" / "scaler.pkl").write_bytes(PICKLE)
    with pytest.raises(ArtifactError, match=r"scaler.pkl: it is a pickle"):
        check_loadable(repository, "m")


@pytest.mark.parametrize("name", ["0", "-5", "+3", " 7", "1a", str(2**63)])
def test_a_folder_that_triton_takes_for_a_version_is_refused(write: Write, name: str) -> None:
    repository = write("onnxruntime", {"model.onnx": onnx_file()})
    (repository.path / "m" / name).mkdir()
    with pytest.raises(ArtifactError, match=r"is no version, but Triton makes a number of its name.*rename or remove"):
        check_loadable(repository, "m")


@pytest.mark.parametrize("name", ["01", "warmup", ".retired"])
def test_a_folder_that_triton_passes_over_may_be_there(write: Write, name: str) -> None:
    repository = write("onnxruntime", {"model.onnx": onnx_file()})
    (repository.path / "m" / name).mkdir()
    check_loadable(repository, "m")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"# caf\xe9\n", "is no Triton model config"), (b"#" * (4 * 2**20 + 1), "is larger than 4 MiB")],
    ids=["bytes", "large"],
)
def test_a_config_that_cannot_be_read_is_refused(write: Write, content: bytes, message: str) -> None:
    repository = write("onnxruntime", {"model.onnx": onnx_file()})
    (repository.path / "m" / "config.pbtxt").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        check_loadable(repository, "m")


def ensemble(repository: Repository, name: str, *steps: str) -> None:
    (repository.path / name / "1").mkdir(parents=True)
    listed = "".join(f'step {{ model_name: "{step}" model_version: -1 }}' for step in steps)
    (repository.path / name / "config.pbtxt").write_text(f'platform: "ensemble" ensemble_scheduling {{ {listed} }}')


def test_the_steps_of_an_ensemble_are_checked_through_all_ensembles_between(write: Write) -> None:
    repository = write("onnxruntime", {"model.onnx": onnx_file()})
    ensemble(repository, "inner", "m", "outer")  # in a circle, which Triton refuses
    ensemble(repository, "outer", "inner")
    check_loadable(repository, "outer")
    (repository.path / "m" / "1" / "scaler.pkl").write_bytes(PICKLE)
    with pytest.raises(ArtifactError, match=r"scaler.pkl: it is a pickle"):
        check_loadable(repository, "outer")


def test_a_step_that_is_not_there_and_a_model_that_is_not_there_are_errors(write: Write) -> None:
    repository = write("onnxruntime", {"model.onnx": onnx_file()})
    ensemble(repository, "outer", "n")
    for model, config in (("outer", None), ("n", None), ("n", {"backend": "onnxruntime"})):
        with pytest.raises(InputError, match="There is no model 'n' in"):
            check_loadable(repository, model, config=config)


def test_a_config_that_is_given_counts_instead_of_that_in_the_folder(write: Write) -> None:
    repository = write("python", {"model.onnx": onnx_file(), "scaler.pkl": PICKLE})
    shutil.copytree(repository.path / "m" / "1", repository.path / "m" / "2")
    (repository.path / "m" / "2" / "scaler.pkl").unlink()
    check_loadable(repository, "m", config={"backend": "onnxruntime"})  # the latest version, as Triton takes it
    with pytest.raises(ArtifactError, match=r"scaler.pkl: it is a pickle"):
        check_loadable(
            repository, "m", config={"backend": "onnxruntime", "version_policy": {"specific": {"versions": [1]}}}
        )
    with pytest.raises(InputError, match="The 'config' parameter must be a model's config as Triton has it in JSON"):
        check_loadable(repository, "m", config={"max_batch_size": "many"})


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
