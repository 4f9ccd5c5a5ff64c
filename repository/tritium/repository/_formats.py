"""Which files a version may have: what its backend loads, and nothing that runs where models hold no code."""

from __future__ import annotations

from pathlib import Path

from tritonclient.grpc.model_config_pb2 import ModelConfig

from ._errors import ArtifactError


def check_formats(version: Path, model: Path, config: ModelConfig) -> None:
    """Refuse a version with a file that a server would not load; `tritium lint` has the same rules.

    Args:
        version: its folder, named by a number.
        model: the folder of the model that it is of.
        config: the model's config.

    Raises:
        ArtifactError: a file is a pickle, or nothing that the backend loads.
    """
    # Whoever only calls does without the rules.
    from .lint._files import refused_files
    from .lint._onnx_file import Opener
    from .lint._subjects import ModelFolder, RepositoryFolder, VersionFolder

    subject = ModelFolder(model, RepositoryFolder(model.parent, Opener()))
    subject.config = config
    for place, message, fix in refused_files(VersionFolder(version, subject)):
        raise ArtifactError(f"{place.relative_to(version if version in place.parents else model)}: {message}; {fix}")
