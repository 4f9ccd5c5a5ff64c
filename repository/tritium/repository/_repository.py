"""A model repository on disk: what is in it."""

from __future__ import annotations

import difflib
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tritonclient.grpc.model_config_pb2 import ModelConfig

from tritium.client import InputError

from ._config import check_name, file_name, read_config
from ._errors import ConfigError

CONFIG_NAME = "config.pbtxt"
# Where retired versions lie in a model's folder: Triton passes over what is no number there.
RETIRED = ".retired"
VERSION = "[1-9][0-9]*"


class Repository:
    """A folder of models, each with its `config.pbtxt` and a folder per version, as Triton reads it.

    Args:
        path: the folder.
        create: make the folder if it is not there.

    Raises:
        InputError: it is no folder.
    """

    def __init__(self, path: str | Path, *, create: bool = False) -> None:
        self.path = Path(path).absolute()
        if create:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
            except OSError as exc:
                raise InputError(f"The repository {self.path} cannot be made: {exc.strerror}") from exc
        if not self.path.is_dir():
            raise InputError(f"There is no model repository at {self.path}; 'repository' must be a folder of models")

    def __repr__(self) -> str:
        """As in ``Repository('/srv/models')``."""
        return f"Repository({str(self.path)!r})"

    def models(self) -> list[str]:
        """The models that have at least one version, sorted."""
        folders = (path for path in self.path.iterdir() if path.is_dir() and not path.name.startswith("."))
        return sorted(path.name for path in folders if _versions(path))

    def versions(self, model: str) -> list[int]:
        """A model's versions, in ascending order; none if it has none yet."""
        return _versions(self.path / check_name(model))

    def retired_versions(self, model: str) -> list[int]:
        """The versions that were taken out of service and can be restored, in ascending order."""
        return _versions(self.path / check_name(model) / RETIRED)

    def next_version(self, model: str) -> int:
        """The number that the next version gets: no version that ever was has it."""
        return max([*self.versions(model), *self.retired_versions(model)], default=0) + 1

    def labels(self, model: str, output: str) -> list[str]:
        """The labels of an output, in the order of its values.

        Raises:
            ConfigError: the config or the label file is missing, cannot be read, or lies outside the model's folder.
            InputError: there is no such model or output, or the output has no labels.
        """
        config = self.config(model)
        names = {tensor.name: tensor.label_filename for tensor in config.output}
        if not names.get(output):
            labelled = ", ".join(name for name, file in names.items() if file) or "none"
            raise InputError(f"There are no labels for {output!r} of {model!r}; outputs with labels: {labelled}")
        path = self.path / model / file_name(names[output], "label_filename", taken=(CONFIG_NAME,))
        try:
            return path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(f"The labels of {output!r} cannot be read from {path}: {exc}") from exc

    def config(self, model: str) -> ModelConfig:
        """A model's config.

        Raises:
            ConfigError: it is missing, or cannot be read.
            InputError: there is no such model.
        """
        return read_config(self.model_folder(model) / CONFIG_NAME)

    def has_complete_config(self, model: str) -> bool:
        """Whether the config says all that a server needs, so that nothing has to be read from the model file."""
        try:
            config = self.config(model)
        except ConfigError:
            return False
        return bool((config.backend or config.platform == "ensemble") and config.input and config.output)

    def steps(self, model: str) -> list[str]:
        """The models that an ensemble runs, sorted; none if it is none, or its config cannot be read.

        Raises:
            InputError: there is no such model.
        """
        try:
            return sorted({step.model_name for step in self.config(model).ensemble_scheduling.step})
        except ConfigError:
            return []

    def model_folder(self, model: str) -> Path:
        """The folder of a model.

        Raises:
            InputError: there is no such model.
        """
        folder = self.path / check_name(model)
        if not folder.is_dir():
            raise InputError(
                f"There is no model {model!r} in {self.path}; it has {', '.join(self.models()) or 'none'}"
                f"{self._hint(model)}"
            )
        return folder

    def version_folder(self, model: str, version: str | int | None = None) -> Path:
        """The folder of a version; of the latest if none is named.

        Raises:
            InputError: there is no such model, or no such version of it.
        """
        self.model_folder(model)
        versions = [str(number) for number in self.versions(model)]
        if not versions:
            raise InputError(f"{model!r} has no version in {self.path}{self._hint(model)}")
        wanted = versions[-1] if version is None else str(version)
        if wanted not in versions:
            raise InputError(f"There is no version {wanted} of {model!r} in {self.path}; it has {', '.join(versions)}")
        return self.path / model / wanted

    def _hint(self, model: str) -> str:
        close = difflib.get_close_matches(model, [name for name in self.models() if name != model], n=1)
        return f". Did you mean {close[0]!r}?" if close else ""


def opened(repository: str | Path | Repository, *, create: bool = False) -> Repository:
    """A repository by its folder, or as it is.

    Raises:
        InputError: there is no such folder, and it is not to be made or cannot be.
    """
    return repository if isinstance(repository, Repository) else Repository(repository, create=create)


def version_folders(folder: str | Path) -> list[Path]:
    """The versions in a folder: itself if it is one, those of a model, or those of every model of a repository.

    A version without files, as ensembles have them, is left out.

    Raises:
        InputError: there is none.
    """
    folder = Path(os.path.normpath(Path(folder).absolute()))
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}")
    if re.fullmatch(VERSION, folder.name) and any(path.is_file() for path in folder.iterdir()):
        found = [folder]
    else:
        models = [folder] if _versions(folder) else [folder / name for name in Repository(folder).models()]
        found = [model / str(number) for model in models for number in _versions(model)]
    found = [version for version in found if any(not path.is_dir() for path in version.rglob("*"))]
    if not found:
        raise InputError(
            f"There is no version in {folder}. It must be a version's folder such as digits_cnn/3, a model's folder, "
            "or a repository"
        )
    return found


def sync(path: Path) -> None:
    """Wait until a file, or what a folder lists, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One at a time for those who read a model's folder before they write to it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _versions(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    # As Triton writes them. Of other names that begin like numbers it makes odd things, which `lint` knows.
    return sorted(int(path.name) for path in folder.iterdir() if path.is_dir() and re.fullmatch(VERSION, path.name))
