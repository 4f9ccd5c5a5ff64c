"""Signatures: who published a version, and that it is as it was then."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tritium.client import InputError, MissingExtraError

from ._errors import ManifestError, RepositoryError, SignatureError
from ._manifest import SIGNATURE_NAME, Manifest
from ._repository import RETIRED, sync


def sign(version_folder: str | Path, private_key: str | Path, *, password: str | None = None) -> Path:
    """Sign every file of a version, the manifest included. A signature that is there already is replaced.

    What lies beside the version, such as the model's config, is not signed, and neither is the version's number.

    Args:
        version_folder: as in ``models/digits_cnn/3``.
        private_key: a PEM file with an elliptic-curve key (P-256, P-384 or P-521).
        password: the key's, if it is encrypted.

    Returns:
        The file with the signature: a Sigstore bundle, as the OpenSSF's model signing has it.

    Raises:
        InputError: there is no such folder, or the key is none of those.
        ManifestError: the manifest is missing or another model's, or a file is not the one that it names.
        RepositoryError: the signature cannot be written.
        MissingExtraError: model-signing is not installed.
    """
    with _extra():
        from . import _bundle
    folder, model = _places(version_folder)
    manifest = Manifest.load(folder)
    if manifest.model != model.name:
        raise ManifestError(f"{folder} was not signed: its manifest is of {manifest.model!r}, not of {model.name!r}")
    manifest.check_files(folder)
    try:
        # Beside the versions: in a version's own folder it would be a file that nobody signed.
        with tempfile.TemporaryDirectory(dir=model, prefix=f".{model.name}-staging-") as staging:
            aside = Path(staging) / SIGNATURE_NAME
            _bundle.write(aside, folder, private_key=Path(private_key), password=password)
            sync(aside)
            aside.rename(folder / SIGNATURE_NAME)
        sync(folder)
    except OSError as exc:
        raise RepositoryError(
            f"{folder} was not signed: the signature cannot be written ({exc}). Free some space or mend the "
            "permissions and try again; nothing has changed"
        ) from exc
    return folder / SIGNATURE_NAME


def verify_signature(version_folder: str | Path, public_key: str | Path) -> None:
    """Verify that a version is signed by a key, and that every file is the one that was signed.

    Nothing in the folder is trusted before its signature is: a signature that leaves files out does not pass.

    Args:
        version_folder: as in ``models/digits_cnn/3``.
        public_key: a PEM file with the public part of an elliptic-curve key (P-256, P-384 or P-521).

    Raises:
        InputError: there is no such folder, or the key is none of those.
        SignatureError: there is no signature, it is of another key, a file was changed, added or removed, or it is the
            version of another model.
        MissingExtraError: model-signing is not installed.
    """
    with _extra():
        from . import _bundle
    folder, model = _places(version_folder)
    if not (folder / SIGNATURE_NAME).exists():
        raise SignatureError(f"{folder} is not signed: there is no {SIGNATURE_NAME} in it", model=model.name)
    _bundle.verify(folder, model=model.name, public_key=Path(public_key))
    try:
        signed = Manifest.load(folder).model
    except ManifestError as exc:
        raise SignatureError(f"{folder} is signed, but does not say what it is: {exc}", model=model.name) from exc
    if signed != model.name:
        raise SignatureError(f"{folder} was signed as a version of {signed!r}, not of {model.name!r}", model=model.name)


def _places(version_folder: str | Path) -> tuple[Path, Path]:
    """A version's folder and its model's."""
    folder = Path(os.path.normpath(Path(version_folder).absolute()))
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}. It must be a version's, such as digits_cnn/3")
    return folder, folder.parent.parent if folder.parent.name == RETIRED else folder.parent


@contextmanager
def _extra() -> Iterator[None]:
    """Around the import of what only those need who sign; it takes a while, too."""
    try:
        yield
    except ImportError as exc:
        raise MissingExtraError("model-signing", "signing") from exc
