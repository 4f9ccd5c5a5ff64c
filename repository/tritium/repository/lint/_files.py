"""Which files a version's folder may have: what its backend loads, and what nobody runs. Servers ask here, too."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from .._manifest import GOLDEN_NAME, MANIFEST_NAME, SIGNATURE_NAME
from ._rules import Problem, Severity, rule, shown
from ._subjects import MODEL_FILES, VersionFolder
from ._torchscript_file import TorchScriptFile, is_pickle

_PICKLES = (".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle")
# What these backends load. Those of Python models hold code by nature, and others load formats that are not known here.
MODEL_FORMATS = {"onnxruntime": "ONNX", "pytorch": "TorchScript"}
_OWN = (MANIFEST_NAME, GOLDEN_NAME, SIGNATURE_NAME)
# What may lie beside a model: vocabularies, labels, notes, pictures, numbers. Nothing of it can run.
_INERT = (
    *(".csv", ".json", ".jsonl", ".md", ".toml", ".tsv", ".txt", ".vocab", ".yaml", ".yml"),
    *(".jpg", ".npy", ".npz", ".png", ".safetensors", ".svg"),
)
_ZIP = b"PK\x03\x04"


@rule(VersionFolder, "pickle", Severity.ERROR)
def _pickle(version: VersionFolder) -> Iterator[Problem]:
    """A file is a pickle, which runs what it says when it is read. Nothing here reads it."""
    for name, path in version.files.items():
        # Weights are numbers, and some begin as a pickle does.
        if path.suffix.lower() in _PICKLES or (is_pickle(path) and not _is_external_data(version, path)):
            yield Problem(path, "it is a pickle, or weights that torch.save wrote", "export the model, or remove it")
        elif path == version.artifact and isinstance(version.torchscript, TorchScriptFile):
            for foreign in version.torchscript.foreign[:1]:
                yield Problem(path, f"it names {shown(foreign)}, which no TorchScript file has", f"do not load {name}")


@rule(VersionFolder, "file-unknown", Severity.ERROR)
def _file_unknown(version: VersionFolder) -> Iterator[Problem]:
    """A file is nothing that the backend loads and nothing that may lie beside a model: the server refuses it."""
    backend = version.model.backend
    # That there is no model file is a finding of its own.
    if backend not in MODEL_FORMATS or version.artifact is None:
        return
    config = version.model.config
    named = (*_OWN, *config.cc_model_filenames.values(), *config.model_operations.op_library_filename)
    # Of a pickle the rule above says more, and of a model of another name the pickle is what could harm.
    suffixes = (*_INERT, *_PICKLES, Path(MODEL_FILES[backend]).suffix)
    for name, path in version.files.items():
        if not (
            path == version.artifact
            or name in named
            or path.suffix.lower() in suffixes
            or _is_external_data(version, path)
        ):
            fits = f"the model file, its external data, Tritium's own files and {' '.join(_INERT)}"
            fix = f"remove it; beside {MODEL_FORMATS[backend]} there may be {fits}"
            yield Problem(path, f"it is no file that the backend {backend!r} loads", fix)


def refused_files(version: VersionFolder) -> Iterator[Problem]:
    """Why a server must not load a version, by its files. Models of other backends hold code by nature."""
    model = version.model
    if model.backend not in MODEL_FORMATS:
        return
    # No rule follows a link, and Triton does.
    for path in sorted(version.path.rglob("*")):
        if path.is_symlink():
            yield Problem(path, "it is a link, and what it leads to is not checked", "put a copy in its place")
    fix = f"remove it; Triton would load it in place of its own {model.backend!r}"
    for path in [*libraries(version.path), *libraries(model.path)]:
        yield Problem(path, "it is a library that Triton loads by its name alone", fix)
    if model.config.runtime not in ("", "model.py", f"libtriton_{model.backend}.so"):
        message = f"its runtime is {shown(model.config.runtime)}, which is not the backend's own"
        yield Problem(model.config_path, message, "leave runtime out")
    yield from _pickle(version)
    yield from _file_unknown(version)
    # What is damaged or of a later release is for the backend to say, which knows best.
    if version.model.backend == "onnxruntime" and version.artifact is not None:
        with version.artifact.open("rb") as file:
            if file.read(len(_ZIP)) == _ZIP:
                message = "it is an archive, as TorchScript files are, and the backend is 'onnxruntime'"
                yield Problem(version.artifact, message, "name the backend that it is for")


def libraries(folder: Path) -> list[Path]:
    """What Triton loads from a model's or a version's folder without being told: backends, and how batches are made."""
    # A Python-based backend has Triton look for that of Python, so it is not only the model's own that counts.
    return [path for pattern in ("libtriton_*.so", "batchstrategy.so") for path in sorted(folder.glob(pattern))]


def _is_external_data(version: VersionFolder, path: Path) -> bool:
    """Whether the ONNX file names a file as the place of weights.

    Its name is looked for and the protobuf not read: this needs no package, and no memory for a large model.
    """
    artifact = version.artifact
    if version.model.backend != "onnxruntime" or artifact is None or path == artifact:
        return False
    if artifact.parent not in path.parents or not artifact.stat().st_size:
        return False
    with artifact.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(path.name.encode()) >= 0
