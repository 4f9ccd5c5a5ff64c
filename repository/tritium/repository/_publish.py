"""Publishing: a version appears whole and verified, or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tritonclient.grpc.model_config_pb2 import ModelConfig

from tritium.client import TritiumError

from ._compare import Difference
from ._config import artifact_name, check_fits, check_name, config_text, input_specs, output_specs
from ._errors import GateError, PublishError
from ._golden import GoldenCases
from ._manifest import GOLDEN_NAME, Manifest
from ._repository import CONFIG_NAME, Repository
from ._verify import check_version

# Triton passes over it, and so does Repository.models().
_STAGING = ".staging"
_STALE_S = 3600.0


@dataclass(frozen=True)
class Candidate:
    """A version that is to be published.

    Attributes:
        config: the model's config, whole.
        artifact: the model file; it is copied.
        golden: real inputs with the framework's own outputs.
        manifest: where it comes from; the checksums are filled in.
        labels: for each label file that the config names, its lines.
    """

    config: ModelConfig
    artifact: Path
    golden: GoldenCases
    manifest: Manifest
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Published:
    """A version that was published.

    Attributes:
        differences: what the gate measured, by output.
    """

    model: str
    version: int
    folder: Path
    differences: Sequence[Difference]


def publish(repository: Repository, candidate: Candidate) -> Published:
    """Verify a version and publish it under the next number.

    It is written aside on the same file system, verified as it lies there, flushed to disk and renamed into place. The
    model's `config.pbtxt` becomes the candidate's, by a rename of its own.

    Raises:
        GateError: it failed its verification.
        PublishError: the repository cannot be written, or is full.
        ConfigError: its inputs or outputs are not those of the versions before it.
    """
    model = check_name(candidate.config.name)
    if repository.versions(model):
        check_fits(candidate.config, repository.config(model))
    try:
        with _staging(repository) as staging:
            version = staging / "version"
            version.mkdir()
            _fill(version, candidate)
            differences = _gate(version, candidate.config)
            _sync_tree(version)
            return _put_in_place(repository, candidate, staging, version, differences)
    except OSError as exc:
        raise PublishError(
            f"{model!r} was not published: {repository.path} cannot be written ({exc}). Free some space or mend the "
            "permissions and try again; nothing has changed"
        ) from exc


def _fill(folder: Path, candidate: Candidate) -> None:
    specs = [*input_specs(candidate.config), *output_specs(candidate.config)]
    shutil.copyfile(candidate.artifact, folder / artifact_name(candidate.config))
    candidate.golden.save(folder / GOLDEN_NAME, specs)
    candidate.manifest.with_files(folder).save(folder)


def _gate(folder: Path, config: ModelConfig) -> list[Difference]:
    try:
        return check_version(folder, config)
    except GateError:
        raise
    except TritiumError as exc:
        raise GateError(str(exc), model=config.name) from exc


def _put_in_place(
    repository: Repository, candidate: Candidate, staging: Path, version: Path, differences: Sequence[Difference]
) -> Published:
    model = repository.path / candidate.config.name
    settings = {CONFIG_NAME: config_text(candidate.config)}
    settings |= {name: "".join(f"{label}\n" for label in labels) for name, labels in candidate.labels.items()}
    if not model.exists():
        # A new model appears whole: in a folder of its own, with its first version in it.
        folder = staging / "model"
        folder.mkdir()
        for name, text in settings.items():
            (folder / name).write_text(text, encoding="utf-8")
        version = version.rename(folder / "1")
        _sync_tree(folder)
        if _renamed(folder, model):
            _sync(repository.path)
            return Published(model.name, 1, model / "1", differences)
    number = max(repository.versions(model.name), default=0) + 1
    while not _renamed(version, model / str(number)):
        number += 1
    for name, text in settings.items():
        if not (model / name).exists() or (model / name).read_text(encoding="utf-8") != text:
            (staging / name).write_text(text, encoding="utf-8")
            _sync(staging / name)
            (staging / name).rename(model / name)
    _sync(model)
    return Published(model.name, number, model / str(number), differences)


def _renamed(folder: Path, target: Path) -> bool:
    """Rename a folder, unless another publisher was quicker with that name."""
    try:
        folder.rename(target)
    except OSError:
        if target.exists():
            return False
        raise
    return True


@contextmanager
def _staging(repository: Repository) -> Iterator[Path]:
    root = repository.path / _STAGING
    root.mkdir(exist_ok=True)
    for stale in root.iterdir():
        # Left by a publisher that was killed; one at work is younger.
        if time.time() - stale.stat().st_mtime > _STALE_S:
            shutil.rmtree(stale, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(dir=root))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # another publisher is at work
            root.rmdir()


def _sync_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
