"""What must hold before a server loads a model."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tritium.client import InputError

from ._config import read_config
from ._errors import ArtifactError, ManifestError, SignatureError
from ._formats import check_formats
from ._manifest import GOLDEN_NAME, MANIFEST_NAME, SIGNATURE_NAME, Manifest
from ._operations import VersionPolicy
from ._repository import CONFIG_NAME, VERSION, Repository
from ._signing import verify_signature

# Of which Triton makes a number; what begins with a zero it passes over.
_READ_AS_NUMBER = re.compile(r"(?!0.)\s*[+-]?[0-9]", re.DOTALL)
# Parameters of Triton and of the backends python and openvino that name what is unpacked or loaded, and run.
_CODE_PARAMETERS = ("EXECUTION_ENV_PATH", "CPU_EXTENSION_PATH", "TRITON_BATCH_STRATEGY_PATH")


def check_loadable(
    repository: Repository, model: str, *, config: Mapping[str, Any] | None = None, public_key: Path | None = None
) -> None:
    """Check what a server would load of a model: each file is the published one, and fits its backend.

    A version without a manifest was put there by hand, and there is nothing to compare it with; where a public key is
    given, it must be signed like every other.

    Models of the backends onnxruntime and pytorch hold no code: a pickle is refused there, and so is a link, a library
    that Triton would load, and a file that is neither a model, its external data, text nor numbers. Python models are
    code, and may bring what they like.

    With an ensemble Triton loads the models of its steps, so they are checked likewise.

    Args:
        repository: where the model is.
        model: its name.
        config: the config that it is to be loaded with, as Triton has it in JSON; by default the one in its folder.
        public_key: a PEM file; every version with files must then have a signature of that key, and no config may name
            code that is not signed.

    Raises:
        ManifestError: a file was changed, added or removed since, or a manifest cannot be read.
        ArtifactError: a file is a pickle, or nothing that the backend loads; or a folder is what Triton takes for a
            version, and is none.
        SignatureError: a version is not signed by that key, or code is loaded that is not.
        ConfigError: the config cannot be read.
        InputError: there is no such model, a step's model is not there, the config is none, or the key is none.
        MissingExtraError: a key is given, and model-signing is not installed.
    """
    given = None if config is None else _parsed(config)
    names = [model]
    for name in names:  # it grows by the steps, each of which comes once
        home = repository.model_folder(name)
        found = given if given is not None and name == model else _config(home)
        _check_folders(home)
        if public_key:
            _check_names_no_code(home, found)
        for version in VersionPolicy.of(found).served(repository.versions(name)):
            folder = repository.version_folder(name, version)
            if public_key and any(path.is_symlink() or not path.is_dir() for path in folder.rglob("*")):
                verify_signature(folder, public_key)
            if os.path.lexists(folder / MANIFEST_NAME):
                Manifest.load(folder).check_files(folder)
            elif os.path.lexists(folder / SIGNATURE_NAME) or os.path.lexists(folder / GOLDEN_NAME):
                raise ManifestError(
                    f"{folder} was published, and its {MANIFEST_NAME} is gone, which says what belongs there. "
                    f"Publish it again, or remove {GOLDEN_NAME} and {SIGNATURE_NAME} if you put it there by hand"
                )
            check_formats(folder, folder.parent, found)
        names += sorted({step.model_name for step in found.ensemble_scheduling.step}.difference(names))


def _parsed(config: Mapping[str, Any]) -> ModelConfig:
    try:
        # A server may say more than is known here.
        return json_format.ParseDict(dict(config), ModelConfig(), ignore_unknown_fields=True)
    except json_format.ParseError as exc:
        raise InputError(f"The 'config' parameter must be a model's config as Triton has it in JSON: {exc}") from exc


def _config(folder: Path) -> ModelConfig:
    """A model's config; an empty one where Triton is to complete it, for which it takes the latest version."""
    path = folder / CONFIG_NAME
    return read_config(path) if path.exists() else ModelConfig()


def _check_folders(folder: Path) -> None:
    """Refuse what Triton takes for a version, or for a higher one than there is, and nobody else."""
    for path in folder.iterdir():
        ours = re.fullmatch(VERSION, path.name) and int(path.name) < 2**63
        if _READ_AS_NUMBER.match(path.name) and not ours and path.is_dir():
            raise ArtifactError(
                f"{path} is no version, but Triton makes a number of its name. A version is a whole number above 0, "
                "such as 1; rename or remove it"
            )


def _check_names_no_code(folder: Path, config: ModelConfig) -> None:
    """Refuse code that no signature covers: the config and what lies beside the versions are not signed."""
    from .lint._files import libraries
    from .lint._subjects import leaves

    files = [config.default_model_filename, *config.cc_model_filenames.values()]
    named = [f"parameters {key}" for key in _CODE_PARAMETERS if key in config.parameters]
    named += ["op_library_filename"] if config.model_operations.op_library_filename else []
    named += ["runtime"] if config.runtime not in ("", "model.py", f"libtriton_{config.backend}.so") else []
    named += ["backend"] if "/" in config.backend else []
    named += ["a model file out of its version"] if any(name and leaves(name) for name in files) else []
    if named:
        raise SignatureError(
            f"The config of {folder.name!r} names what is loaded as code or lies elsewhere, which no signature covers: "
            f"{', '.join(named)}. Take it out of {folder / CONFIG_NAME}, or serve without a public key",
            model=folder.name,
        )
    for path in libraries(folder):
        raise SignatureError(
            f"{path} is a library that Triton loads by its name alone, and no signature covers it. Remove it, put it "
            "into the version before that is signed, or serve without a public key",
            model=folder.name,
        )
