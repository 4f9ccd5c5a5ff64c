"""What rules look at: a repository, a model, a version. Everything is read once, and nothing that is a link."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from tritonclient.grpc.model_config_pb2 import ModelConfig

from .._config import read_config
from .._errors import ArtifactError, ConfigError, ManifestError
from .._manifest import MANIFEST_NAME, Manifest
from .._repository import CONFIG_NAME
from ._onnx_file import OnnxFile, Opener, Opening, read_onnx
from ._torchscript_file import TorchScriptFile, read_torchscript

# What a platform stood for before there were backends.
PLATFORMS = {
    "onnxruntime_onnx": "onnxruntime",
    "pytorch_libtorch": "pytorch",
    "tensorrt_plan": "tensorrt",
    "tensorflow_graphdef": "tensorflow",
    "tensorflow_savedmodel": "tensorflow",
    "ensemble": "ensemble",
}
MODEL_FILES = {
    "onnxruntime": "model.onnx",
    "pytorch": "model.pt",
    "python": "model.py",
    "tensorrt": "model.plan",
    "openvino": "model.xml",
}
# A folder that a publisher works in.
STAGING = re.compile(r"\..+-staging-.+")
_MOST_MANIFEST_BYTES = 16 * 2**20


class RepositoryFolder:
    """A model repository.

    Args:
        path: its folder.
        opener: opens ONNX files in a process of its own.
    """

    def __init__(self, path: Path, opener: Opener) -> None:
        self.path = path
        self.opener = opener

    @cached_property
    def models(self) -> dict[str, ModelFolder]:
        """Every folder that is not hidden, by its name."""
        folders = sorted(path for path in self.path.iterdir() if path.is_dir() and not path.name.startswith("."))
        return {path.name: ModelFolder(path, self) for path in folders}


class ModelFolder:
    """A model's folder."""

    def __init__(self, path: Path, repository: RepositoryFolder) -> None:
        self.path = path
        self.name = path.name
        self.repository = repository
        self.config_path = path / CONFIG_NAME
        self.config_error = ""
        self.config_seen = _state(self.config_path)
        self.seen = self.state()

    @cached_property
    def config(self) -> ModelConfig:
        """The config; an empty one where there is none that can be read, and `config_error` then says why."""
        if not self.config_path.is_file() or self.config_path.is_symlink():
            return ModelConfig()
        try:
            return read_config(self.config_path)
        except ConfigError as exc:
            self.config_error = str(exc).removeprefix(f"{self.config_path} ")
            return ModelConfig()

    @cached_property
    def has_config(self) -> bool:
        """Whether there is a config, and it can be read."""
        _ = self.config
        return self.config_path.is_file() and not self.config_path.is_symlink() and not self.config_error

    @cached_property
    def backend(self) -> str:
        """The backend by the config or, as Triton guesses, by the model file's name; empty if neither says."""
        named = self.config.backend or PLATFORMS.get(self.config.platform, self.config.platform)
        if named:
            return str(named)
        files = [self.config.default_model_filename] if self.config.default_model_filename else MODEL_FILES.values()
        for backend, file in MODEL_FILES.items():
            # In a version that is a link, too: Triton follows it.
            if file in files and any((folder / file).exists() for folder in self._version_paths):
                return backend
        return ""

    @cached_property
    def brings_backend(self) -> bool:
        """Whether the backend's library lies in the model's folder or a version's, where Triton looks for it too."""
        library = f"libtriton_{self.backend}.so"
        folders = [self.path, *(version.path for version in self.versions)]
        return not leaves(library) and any((folder / library).is_file() for folder in folders)

    @property
    def batched(self) -> bool:
        """Whether the first axis is the batch."""
        return bool(self.config.max_batch_size > 0)

    @cached_property
    def versions(self) -> list[VersionFolder]:
        """The folders that Triton takes for versions under the names they have, in ascending order."""
        return [VersionFolder(path, self) for path in self._version_paths if not path.is_symlink()]

    @cached_property
    def _version_paths(self) -> list[Path]:
        folders = [path for path in self.path.iterdir() if re.fullmatch("[1-9][0-9]{0,18}", path.name)]
        return sorted((path for path in folders if path.is_dir()), key=lambda path: int(path.name))

    def entries(self) -> Iterator[Path]:
        """Everything below the folder, links and hidden things but staging folders included; no link is followed."""
        for folder, folders, files in os.walk(self.path):
            if Path(folder) == self.path:
                # Of a publisher that is at work, or was killed.
                folders[:] = [name for name in folders if not STAGING.fullmatch(name)]
            yield from (Path(folder) / name for name in sorted(folders + files))

    def again(self) -> ModelFolder:
        """The same folder, to be read anew."""
        return ModelFolder(self.path, RepositoryFolder(self.repository.path, self.repository.opener))

    def state(self) -> tuple[object, ...]:
        """What is another one as soon as somebody publishes, retires, restores or configures; empty if it is gone."""
        return _state(self.path)


class VersionFolder:
    """A version's folder."""

    def __init__(self, path: Path, model: ModelFolder) -> None:
        self.path = path
        self.model = model
        self.number = int(path.name)
        self.manifest_error = ""
        self.seen = (*_state(path), *model.config_seen)

    @cached_property
    def files(self) -> dict[str, Path]:
        """Its regular files by their path below the folder."""
        return {
            (Path(folder) / name).relative_to(self.path).as_posix(): Path(folder) / name
            for folder, _, files in os.walk(self.path)
            for name in sorted(files)
            if (Path(folder) / name).is_file() and not (Path(folder) / name).is_symlink()
        }

    @cached_property
    def manifest(self) -> Manifest | None:
        """The manifest; None where there is none that can be read, and `manifest_error` then says why."""
        if MANIFEST_NAME not in self.files:
            return None
        if self.files[MANIFEST_NAME].stat().st_size > _MOST_MANIFEST_BYTES:
            self.manifest_error = "is larger than 16 MiB"
            return None
        try:
            return Manifest.load(self.path)
        except (ManifestError, RecursionError) as exc:
            self.manifest_error = str(exc).removeprefix(f"{self.path / MANIFEST_NAME} ")
            return None

    @cached_property
    def model_file(self) -> str:
        """The name of the model file; empty where the backend has none, or the name leaves the folder."""
        config = self.model.config
        name = config.default_model_filename or MODEL_FILES.get(self.model.backend, "")
        if not name or leaves(name):
            return ""
        # A folder of that name holds the model together with its external data.
        return f"{name}/model.onnx" if self.model.backend == "onnxruntime" and (self.path / name).is_dir() else name

    @cached_property
    def artifact(self) -> Path | None:
        """The model file, if it is there and no link."""
        return self.files.get(Path(self.model_file).as_posix()) if self.model_file else None

    @cached_property
    def onnx(self) -> OnnxFile | ArtifactError | None:
        """The ONNX file, why it cannot be read, or None where there is nothing to read."""
        if self.model.backend != "onnxruntime" or self.artifact is None:
            return None
        try:
            return read_onnx(self.artifact)
        except ArtifactError as exc:
            return exc

    @cached_property
    def opening(self) -> Opening | None:
        """What ONNX Runtime makes of the file; None where it must not be let near it, or is not there."""
        if self.artifact is None or not isinstance(self.onnx, OnnxFile):
            return None
        folder = self.artifact.parent
        for location in self.onnx.external:
            # Beside the file, and nothing that leads away from there.
            if leaves(location) or not any(path == folder / location for path in self.files.values()):
                return None
        return self.model.repository.opener.open(self.artifact)

    def again(self) -> VersionFolder:
        """The same folder, to be read anew."""
        return VersionFolder(self.path, self.model.again())

    def state(self) -> tuple[object, ...]:
        """What is another one as soon as it is moved, or its config replaced; empty if it is gone."""
        own = _state(self.path)
        return own and (*own, *_state(self.model.config_path))

    @cached_property
    def torchscript(self) -> TorchScriptFile | ArtifactError | None:
        """The TorchScript file, why it is none, or None where there is nothing to read."""
        if self.model.backend != "pytorch" or self.artifact is None:
            return None
        try:
            return read_torchscript(self.artifact)
        except ArtifactError as exc:
            return exc


def _state(path: Path) -> tuple[object, ...]:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def leaves(name: str) -> bool:
    """Whether a file's name, as somebody wrote it, could lead out of the folder that it is meant for."""
    return not name or "\0" in name or "\\" in name or name.startswith("/") or ".." in Path(name).parts
