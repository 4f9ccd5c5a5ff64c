"""What must hold before a server loads a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ._formats import check_formats
from ._manifest import MANIFEST_NAME, Manifest
from ._operations import served_versions
from ._repository import CONFIG_NAME, Repository
from ._signing import verify_signature


def check_loadable(
    repository: Repository, model: str, *, versions: Sequence[int] | None = None, public_key: Path | None = None
) -> None:
    """Check the versions of a model that a server would load: each file is the published one, and fits its backend.

    A version without a manifest was put there by hand, and there is nothing to compare it with; where a public key is
    given, it must be signed like every other.

    Models of the backends onnxruntime and pytorch hold no code: a pickle is refused there, and so is a file that is
    neither a model, its external data, text nor numbers. Python models are code, and may bring what they like.

    Args:
        repository: where the model is.
        model: its name.
        versions: those to check; by default those that its config asks for.
        public_key: a PEM file; every version with files must then have a signature of that key.

    Raises:
        ManifestError: a file was changed, added or removed since, or a manifest cannot be read.
        ArtifactError: a file is a pickle, or nothing that the backend loads.
        SignatureError: a version is not signed by that key.
        ConfigError: the config cannot be read.
        InputError: there is no such model or version, or the key is none.
        MissingExtraError: a key is given, and model-signing is not installed.
    """
    if versions is None:
        # A model without a config is completed by Triton from its latest version.
        described = (repository.path / model / CONFIG_NAME).exists()
        versions = served_versions(repository, model) if described else repository.versions(model)[-1:]
    for version in versions:
        folder = repository.version_folder(model, version)
        if public_key and any(path.is_file() for path in folder.rglob("*")):
            verify_signature(folder, public_key)
        if (folder / MANIFEST_NAME).is_file():
            Manifest.load(folder).check_files(folder)
        check_formats(folder, folder.parent)
