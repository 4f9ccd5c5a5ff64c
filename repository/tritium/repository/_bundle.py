"""The file with a signature, through the package model-signing: an in-toto statement in a Sigstore bundle.

The statement has the sha256 of every file of the version: https://github.com/ossf/model-signing-spec
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from model_signing import hashing, manifest, signing, verifying

from tritium.client import InputError

from ._errors import ManifestError, SignatureError
from ._manifest import SIGNATURE_NAME, file_sha256

_MOST_BYTES = 16 * 2**20
# What parsing anything but a bundle ends in.
_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
_MAKE_KEY = "openssl ecparam -name prime256v1 -genkey -noout -out key.pem"
_MAKE_PUBLIC_KEY = "openssl ec -in key.pem -pubout -out key.pub"


class _EveryFile(hashing.Config):
    """Hashes every file but the signature.

    Attributes:
        asked: whether it had to, which a verifier does only once it has found the signature to be the key's.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.set_ignored_paths(paths=[SIGNATURE_NAME], ignore_git_paths=False)
        self.asked = False

    def add_ignored_paths(self, **_: Any) -> None:
        """Ignore nothing more: a signature could name files here that may then be anything."""

    def hash(self, model_path: hashing.PathLike, **kwargs: Any) -> manifest.Manifest:
        self.asked = True
        return super().hash(model_path, **kwargs)


def write(path: Path, folder: Path, *, private_key: Path, password: str | None) -> None:
    """Sign a folder.

    Raises:
        InputError: the key is none that can sign.
        ManifestError: what lies there cannot be signed, such as a pipe.
        OSError: the signature cannot be written.
    """
    # cryptography, to which it is handed on, takes no str.
    secret: Any = password.encode() if password is not None else None
    with _key(private_key, "private", _MAKE_KEY, password=password):
        config = signing.Config().use_elliptic_key_signer(private_key=private_key, password=secret)
    try:
        config.set_hashing_config(_EveryFile()).sign(folder, path)
    except ValueError as exc:
        raise ManifestError(f"{folder} cannot be signed: {exc}") from exc


def verify(folder: Path, *, model: str, public_key: Path) -> None:
    """Verify a folder by the signature in it.

    Raises:
        InputError: the key is none that can verify.
        SignatureError: it is not the key's, or not of these files.
    """
    path = folder / SIGNATURE_NAME
    with _key(public_key, "public", f"{_MAKE_KEY}; {_MAKE_PUBLIC_KEY}"):
        config = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    files = _EveryFile()
    try:
        signed = _signed_files(path)
        config.set_hashing_config(files).verify(folder, path)
    except InvalidSignature as exc:
        raise SignatureError(
            f"{path} is not what the key {public_key} signed: it was changed, or is of another key", model=model
        ) from exc
    except OSError as exc:
        raise SignatureError(f"{folder} cannot be verified ({exc})", model=model) from exc
    except _UNREADABLE as exc:
        if files.asked:
            raise SignatureError(_difference(folder, signed), model=model) from exc
        if str(exc).startswith("Key mismatch"):
            raise SignatureError(f"{path} is of another key than {public_key}", model=model) from exc
        raise SignatureError(f"{path} is no signature ({exc}). Sign the version again", model=model) from exc


def _signed_files(path: Path) -> Mapping[str, str]:
    """The sha256 of every file by name, as a bundle says before anybody has verified it."""
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError("it is larger than 16 MiB")
    bundle = json.loads(path.read_text(encoding="utf-8"))
    if not bundle["verificationMaterial"]["publicKey"]["hint"]:
        raise ValueError("it does not say of which key it is")
    predicate = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))["predicate"]
    form = predicate["serialization"]
    if (form["method"], form["hash_type"]) != ("files", "sha256"):
        raise ValueError("it has other checksums than the sha256 of each file")
    return {file["name"]: file["digest"] for file in predicate["resources"]}


def _difference(folder: Path, signed: Mapping[str, str]) -> str:
    """Which file is not as it was signed."""
    for path in (folder, folder / SIGNATURE_NAME):
        if path.is_symlink():
            return f"{path} is a link; a version holds its own files only"
    present = {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()
    }
    for name in sorted((present | signed.keys()) - {SIGNATURE_NAME}):
        path = folder / name
        if name not in present:
            return f"{path} is missing, and it was signed"
        if name not in signed:
            return f"{path} was added after the version was signed"
        if path.is_symlink() or not path.is_file() or file_sha256(path) != signed[name]:
            return f"{path} was changed after the version was signed"
    return f"{folder} changed while it was verified. Verify it again"


@contextmanager
def _key(path: Path, kind: str, make: str, *, password: str | None = None) -> Iterator[None]:
    """Say what is wrong with a key, whatever the package makes of it."""
    try:
        yield
    except (OSError, ValueError, TypeError, AttributeError, UnsupportedAlgorithm) as exc:
        match exc:
            case OSError():
                reason = f"cannot be read: {exc.strerror}"
            case TypeError() if password is None:
                reason = (
                    "is encrypted, and no password was given. `tritium sign` takes it from the environment variable "
                    "TRITIUM_KEY_PASSWORD"
                )
            case TypeError():
                reason = "is not encrypted, and a password was given"
            case AttributeError():
                # It asks every key for its curve.
                reason = "is of another kind"
            case _:
                reason = f"is of no use: {str(exc).partition('. ')[0]}"
        raise InputError(
            f"The {kind} key {path} {reason}. It must be an elliptic-curve key (P-256, P-384 or P-521) in a PEM file; "
            f"make one with: {make}"
        ) from exc
