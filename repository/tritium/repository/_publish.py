"""Publishing: a version appears whole and verified, or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tritonclient.grpc.model_config_pb2 import ModelConfig

from tritium.client import TritiumError

from ._compare import Difference
from ._config import artifact_name, check_fits, check_name, config_text, file_name, input_specs, output_specs
from ._errors import ArtifactError, ConfigError, GateError, PublishError
from ._formats import check_formats
from ._golden import GoldenCases
from ._manifest import GOLDEN_NAME, MANIFEST_NAME, SIGNATURE_NAME, Manifest
from ._repository import CONFIG_NAME, Repository, locked, sync
from ._verify import check_version
from ._warm_up import WARM_UP_FOLDER

_STALE_S = 3600.0
# What Tritium itself writes into a version's folder.
_OWN_FILES = (GOLDEN_NAME, MANIFEST_NAME, SIGNATURE_NAME)


@dataclass(frozen=True)
class Candidate:
    """A version that is to be published.

    Attributes:
        config: the model's config, whole.
        artifact: the model file; it is copied.
        golden: real inputs with the framework's own outputs.
        manifest: where it comes from; the checksums are filled in.
        labels: for each label file that the config names, its lines.
        files: what lies beside the model file in the version's folder, by name: external data, a vocabulary; copied.
        warm_up: the files of the config's warm-up by name, as `add_warm_up` gives them.
        origin: the version's folder in another repository, if it was published there. Golden cases, manifest and
            signature are then copied, so that a signature stays valid.
    """

    config: ModelConfig
    artifact: Path
    golden: GoldenCases
    manifest: Manifest
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    warm_up: Mapping[str, bytes] = field(default_factory=dict)
    origin: Path | None = None


@dataclass(frozen=True)
class Published:
    """A version that was published.

    Attributes:
        differences: what was measured, by output: on the held-out rows, where the manifest says so, else on the golden
            cases by the gate.
    """

    model: str
    version: int
    folder: Path
    differences: Sequence[Difference]

    def __str__(self) -> str:
        """As in ``iris version 1 in /srv/models/iris/1: label: agreement 100.0%, probabilities: max |Δ| 1.2e-07``."""
        found = ", ".join(map(str, self.differences))
        return f"{self.model} version {self.version} in {self.folder}: {found}"


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
        with _staging(repository, model) as staging:
            version = staging / "1"
            version.mkdir()
            try:
                settings = _settings(repository.path / model, candidate)
                _fill(version, candidate)
                folder = repository.path / model
                check_formats(version, folder if folder.is_dir() else staging, candidate.config)
                differences = check_version(version, candidate.config)
            except GateError:
                raise
            except TritiumError as exc:
                raise GateError(str(exc), model=model) from exc
            _sync_tree(version)
            number = _put_in_place(repository, candidate.config, settings, staging, version)
            measured = candidate.manifest.differences() or differences
            return Published(model, number, repository.path / model / str(number), measured)
    except OSError as exc:
        raise PublishError(
            f"{model!r} was not published: {repository.path} cannot be written ({exc}). Free some space or mend the "
            "permissions and try again; nothing has changed"
        ) from exc


def _settings(model: Path, candidate: Candidate) -> dict[str, bytes]:
    """The files beside the versions, by path below the model's folder; the config, which names them, is last."""
    settings = {
        f"{WARM_UP_FOLDER}/{file_name(name, 'input_data_file', taken=())}": content
        for name, content in candidate.warm_up.items()
    }
    for name, labels in candidate.labels.items():
        name = file_name(name, "label_filename", taken=(CONFIG_NAME,))
        settings[name] = "".join(f"{label}\n" for label in labels).encode()
    for output in candidate.config.output:
        name = output.label_filename
        if name and name not in settings and not (model / name).is_file():
            raise ConfigError(f"The output {output.name!r} has the label file {name!r}, which is not there")
    settings[CONFIG_NAME] = config_text(candidate.config).encode()
    return settings


def _fill(folder: Path, candidate: Candidate) -> None:
    config = candidate.config
    inputs, outputs = input_specs(config), output_specs(config)
    candidate.golden.check(inputs, outputs, batched=config.max_batch_size > 0)
    model_file = artifact_name(config)
    for name in candidate.files:
        file_name(name, "companion file", taken=(model_file, *_OWN_FILES))
    for name, source in {model_file: candidate.artifact, **candidate.files}.items():
        if not source.is_file():
            raise ArtifactError(
                f"There is no model file {source}" if name == model_file else f"There is no file {source}"
            )
        shutil.copyfile(source, folder / name)
    if candidate.origin is None:
        candidate.golden.save(folder / GOLDEN_NAME, [*inputs, *outputs])
        candidate.manifest.with_files(folder).save(folder)
        return
    for name in _OWN_FILES:
        if (candidate.origin / name).is_file():
            shutil.copyfile(candidate.origin / name, folder / name)


def _put_in_place(
    repository: Repository, config: ModelConfig, settings: Mapping[str, bytes], staging: Path, version: Path
) -> int:
    """Make a finished version part of the repository; its number. What goes wrong half-way is undone."""
    model = repository.path / config.name
    with ExitStack() as undo:
        number = 0 if model.exists() else _place_model(model, settings, staging, version, undo)
        if not number:
            with locked(model):
                number = _place_version(repository, config, settings, staging, version, undo)
        undo.pop_all()
    return number


def _place_model(model: Path, settings: Mapping[str, bytes], staging: Path, version: Path, undo: ExitStack) -> int:
    """A new model appears whole, with its first version in it: 1, or 0 if another publisher was quicker."""
    folder = staging / "model"
    folder.mkdir()
    for name, content in settings.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    version.rename(folder / "1")
    _sync_tree(folder)
    if not _renamed(folder, model):
        (folder / "1").rename(version)
        return 0
    undo.callback(model.rename, staging / "undone")
    sync(model.parent)
    return 1


def _place_version(
    repository: Repository,
    config: ModelConfig,
    settings: Mapping[str, bytes],
    staging: Path,
    version: Path,
    undo: ExitStack,
) -> int:
    """A version gets the next number, and then the files beside it become the candidate's, each by a rename."""
    model = repository.path / config.name
    versions = repository.versions(config.name)
    if versions:
        # Asked again: another publisher may have been quicker.
        check_fits(config, repository.config(config.name))
    changed = [name for name, content in settings.items() if _content(model / name) != content]
    for name in changed:
        for folder in (staging, model):
            (folder / name).parent.mkdir(exist_ok=True)
        (staging / name).write_bytes(settings[name])
        sync(staging / name)
    number = repository.next_version(config.name)
    while not _renamed(version, model / str(number)):
        number += 1
    undo.callback((model / str(number)).rename, staging / "undone")
    for name in changed:
        if (model / name).exists():
            shutil.copyfile(model / name, staging / f"{name}.before")
            (staging / name).rename(model / name)
            undo.callback((staging / f"{name}.before").rename, model / name)
        else:
            (staging / name).rename(model / name)
            undo.callback((model / name).unlink)
    for folder in {(model / name).parent for name in changed} | {model}:
        sync(folder)
    return number


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _renamed(folder: Path, target: Path) -> bool:
    """Rename a folder, unless another publisher was quicker with that name."""
    try:
        folder.rename(target)
    except OSError:
        if target.is_dir():
            return False
        raise
    return True


@contextmanager
def _staging(repository: Repository, model: str) -> Iterator[Path]:
    """A folder to write aside in, on the repository's file system, where no Triton takes it for a version."""
    root = _staging_root(repository, model)
    prefix = f".{model}-staging-"
    for stale in root.glob(f"{prefix}*"):
        # Left by a publisher that was killed; one at work is younger, and may be done by now.
        with suppress(FileNotFoundError):
            if time.time() - stale.stat().st_mtime > _STALE_S:
                shutil.rmtree(stale, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(dir=root, prefix=prefix))
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _staging_root(repository: Repository, model: str) -> Path:
    folder, parent = repository.path / model, repository.path.parent
    if folder.is_dir():
        return folder  # Triton passes over what is no number there
    beside = parent.stat().st_dev == repository.path.stat().st_dev and os.access(parent, os.W_OK | os.X_OK)
    # Inside the repository, as the last resort, a Triton that starts just then would take it for a model.
    return parent if beside else repository.path


def _sync_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        sync(path)
