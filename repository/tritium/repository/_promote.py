"""Promotion: a version of one repository becomes the next version in another, through the same gate."""

from __future__ import annotations

from pathlib import Path

from tritonclient.grpc.model_config_pb2 import ModelConfig

from tritium.client import InputError

from ._config import artifact_name, file_name, read_config
from ._errors import ConfigError, ManifestError
from ._golden import GoldenCases
from ._manifest import GOLDEN_NAME, MANIFEST_NAME, Manifest
from ._operations import VersionPolicy
from ._publish import Candidate, Published, publish
from ._repository import CONFIG_NAME, Repository, opened
from ._verify import load_golden
from ._warm_up import WARM_UP_FOLDER


def promote(folder: str | Path, repository: str | Path | Repository) -> Published:
    """Publish a version as another repository has it, with everything that belongs to it.

    Its files are kept byte for byte, provenance, golden cases and signature included, and so are the config, labels and
    warm-up that lie beside it. The signature is not verified: that takes a key, and `verify_signature`.
    A `version_policy` that names versions becomes the latest one: the numbers are the other repository's own.

    Args:
        folder: the version's folder, as in ``staging/digits_cnn/3``.
        repository: where to publish; made if it is not there.

    Raises:
        InputError: it is no such folder.
        ManifestError: a file is not the one that was published there.
        ConfigError: its config cannot be read, names files that are not there, or does not fit the versions here.
        GoldenError: its golden cases cannot be read.
        GateError: it failed its verification.
        PublishError: the repository cannot be written.
    """
    source = Path(folder).absolute()
    model = source.parent
    for path in (source / MANIFEST_NAME, source / GOLDEN_NAME, model / CONFIG_NAME):
        if not path.is_file():
            raise InputError(
                f"{source} is no prepared version: there is no {path}. It must be the folder of a version that was "
                f"published, such as {model.name}/3, with {CONFIG_NAME} beside it"
            )
    config = read_config(model / CONFIG_NAME)
    config.name = config.name or model.name
    manifest = Manifest.load(source)
    if manifest.model != config.name:
        raise ManifestError(f"{source / MANIFEST_NAME} is of the model {manifest.model!r}, not of {config.name!r}")
    manifest.check_files(source)
    golden = load_golden(source, config)
    if VersionPolicy.of(config).specific is not None:
        VersionPolicy(latest=1).set_in(config)
    return publish(opened(repository, create=True), _candidate(source, config, manifest, golden))


def _candidate(source: Path, config: ModelConfig, manifest: Manifest, golden: GoldenCases) -> Candidate:
    artifact = artifact_name(config)
    label_files = {output.label_filename for output in config.output if output.label_filename}
    return Candidate(
        config=config,
        artifact=source / artifact,
        golden=golden,
        manifest=manifest,
        labels={name: _beside(source.parent, name, "label_filename").decode().splitlines() for name in label_files},
        files={name: source / name for name in manifest.files if name not in (artifact, GOLDEN_NAME)},
        warm_up={
            data.input_data_file: _beside(source.parent / WARM_UP_FOLDER, data.input_data_file, "input_data_file")
            for request in config.model_warmup
            for data in request.inputs.values()
            if data.input_data_file
        },
        origin=source,
    )


def _beside(folder: Path, name: str, key: str) -> bytes:
    """A file that the config names."""
    path = folder / file_name(name, key, taken=(CONFIG_NAME,))
    if path.is_symlink() or not path.is_file():
        raise ConfigError(f"The {key} {name!r} of the config is not there: there is no file {path}")
    return path.read_bytes()
