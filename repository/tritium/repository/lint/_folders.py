"""Rules about names and folders: what Triton takes for a model or a version, and what it should not meet there."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

from tritium.client import InputError

from .._config import check_name
from .._repository import CONFIG_NAME
from ._rules import Problem, Severity, rule, shown
from ._subjects import STAGING, ModelFolder, RepositoryFolder, VersionFolder

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
_STALE_S = 3600.0
# What the C library reads a number from.
_NUMBER_START = re.compile(r"\s*[+-]?[0-9]")


@rule(RepositoryFolder, "repository-empty", NOTE)
def _repository_empty(repository: RepositoryFolder) -> Iterator[Problem]:
    """There is no model in the repository."""
    if not repository.models:
        yield Problem(repository.path, "it has no models", "publish one, or name another folder")


@rule(RepositoryFolder, "staging-left", NOTE)
def _staging_left(repository: RepositoryFolder) -> Iterator[Problem]:
    """A publisher that was killed left a hidden folder more than an hour ago."""
    for folder in (repository.path.parent, repository.path, *(model.path for model in repository.models.values())):
        for path in sorted(folder.glob(".*-staging-*")):
            beside = folder == repository.path.parent
            known = path.name[1:].partition("-staging-")[0] in repository.models
            if (known or not beside) and STAGING.fullmatch(path.name) and _age_s(path) > _STALE_S:
                yield Problem(
                    path, "a publisher that was killed left it", "the next one removes it; so may you, nothing uses it"
                )


@rule(RepositoryFolder, "hidden-folder", NOTE)
def _hidden_folder(repository: RepositoryFolder) -> Iterator[Problem]:
    """A hidden folder lies between the models."""
    for path in sorted(repository.path.glob(".*")):
        if path.is_dir() and not STAGING.fullmatch(path.name):
            yield Problem(
                path,
                "a Triton that loads all it finds takes this folder for a model",
                "move it out, or load models by name",
            )


@rule(ModelFolder, "model-name", ERROR)
def _model_name(model: ModelFolder) -> Iterator[Problem]:
    """A model's folder has a name that cannot stand in paths, URLs and shell lines."""
    try:
        check_name(model.name)
    except InputError as exc:
        yield Problem(model.path, str(exc), "rename the folder, and the name in its config")


@rule(ModelFolder, "name-differs", ERROR)
def _name_differs(model: ModelFolder) -> Iterator[Problem]:
    """The config's name is not the folder's: Triton refuses the model."""
    if model.config.name not in ("", model.name):
        message = f"the config says {shown(model.config.name)} and the folder is {shown(model.name)}"
        yield Problem(model.config_path, message, "call both alike, or leave the name out of the config")


@rule(ModelFolder, "link", ERROR)
def _link(model: ModelFolder) -> Iterator[Problem]:
    """A link could lead anywhere, and to something else tomorrow."""
    for path in [model.path, *model.entries()]:
        if path.is_symlink():
            yield Problem(path, f"it is a link, to {shown(str(path.readlink()))}", "put a copy in its place")


@rule(ModelFolder, "odd-file", ERROR)
def _odd_file(model: ModelFolder) -> Iterator[Problem]:
    """A pipe, a socket or a device would hold up whoever reads it."""
    for path in model.entries():
        if not (path.is_symlink() or path.is_file() or path.is_dir()):
            yield Problem(path, "it is neither a file nor a folder", "remove it")


@rule(ModelFolder, "no-version", ERROR)
def _no_version(model: ModelFolder) -> Iterator[Problem]:
    """A model has no version that Triton can load."""
    if not model.versions:
        yield Problem(
            model.path,
            "it has no version's folder: a whole number above 0, such as 1",
            "publish a version, or move the folder out of the repository",
        )


@rule(ModelFolder, "version-name", ERROR)
def _version_name(model: ModelFolder) -> Iterator[Problem]:
    """A folder's name begins like a number without being one as Triton writes it, such as ``01``, ``1a`` or ``-1``."""
    for path in _folders(model):
        if _NUMBER_START.match(path.name) and not re.fullmatch("0|[1-9][0-9]*", path.name):
            yield Problem(
                path,
                "Triton passes over it, or reads a number from it and then looks for a folder of that number",
                "name it by the number alone, or so that it begins with a letter",
            )


@rule(ModelFolder, "version-zero", ERROR)
def _version_zero(model: ModelFolder) -> Iterator[Problem]:
    """There is a version 0, which some Tritons serve and clients cannot ask for."""
    if (model.path / "0").is_dir():
        yield Problem(model.path / "0", "versions count from 1", "give it the next free number")


@rule(ModelFolder, "version-too-big", ERROR)
def _version_too_big(model: ModelFolder) -> Iterator[Problem]:
    """A version's number has more than 63 bits: Triton 2.51 ends."""
    for path in _folders(model):
        if re.fullmatch("[1-9][0-9]*", path.name) and int(path.name[:30]) >= 2**63:
            yield Problem(path, "the number is larger than Triton can count", "give it the next free number")


@rule(ModelFolder, "version-file", WARNING)
def _version_file(model: ModelFolder) -> Iterator[Problem]:
    """A file is called like a version."""
    for path in sorted(model.path.iterdir()):
        if re.fullmatch("[0-9]+", path.name) and path.is_file():
            yield Problem(path, "a version is a folder, and this is a file", "put it into a folder, or remove it")


@rule(VersionFolder, "version-empty", ERROR)
def _version_empty(version: VersionFolder) -> Iterator[Problem]:
    """A version's folder has nothing in it. Ensembles have nothing to put there."""
    if not version.files and version.model.backend != "ensemble":
        yield Problem(version.path, "it is empty", "remove it, or publish a version")


@rule(ModelFolder, "config-missing", WARNING)
def _config_missing(model: ModelFolder) -> Iterator[Problem]:
    """A model has no ``config.pbtxt``: Triton guesses, from what the model file says."""
    if not model.config_path.is_file():
        yield Problem(
            model.path,
            f"it has no {CONFIG_NAME}; where Triton may not complete configs, it refuses the model",
            "write one: `tritium add` does, and so does every export",
        )


@rule(ModelFolder, "config-unreadable", ERROR)
def _config_unreadable(model: ModelFolder) -> Iterator[Problem]:
    """The config is no model configuration."""
    _ = model.config
    if model.config_error:
        yield Problem(model.config_path, model.config_error, "mend the line that it names")


@rule(ModelFolder, "policy-missing", NOTE)
def _policy_missing(model: ModelFolder) -> Iterator[Problem]:
    """The config has no ``version_policy``: whatever version is highest gets the traffic at the next load."""
    if model.has_config and not model.config.version_policy.WhichOneof("policy_choice"):
        fix = "write version_policy { latest { num_versions: 1 } }, or the versions that are to be served"
        yield Problem(model.config_path, "it does not say which versions are to be served", fix)


@rule(ModelFolder, "policy-version-missing", WARNING)
def _policy_version_missing(model: ModelFolder) -> Iterator[Problem]:
    """The ``version_policy`` names a version that is not there."""
    there = [version.number for version in model.versions]
    absent = [number for number in model.config.version_policy.specific.versions if number not in there]
    if absent:
        message = f"version_policy names {', '.join(map(str, absent))}, and there is {_listed(there)}"
        yield Problem(model.config_path, message, "name versions that are there, or restore those that were retired")


@rule(ModelFolder, "policy-serves-nothing", ERROR)
def _policy_serves_nothing(model: ModelFolder) -> Iterator[Problem]:
    """By the ``version_policy`` no version is served."""
    policy = model.config.version_policy
    there = [version.number for version in model.versions]
    nothing = {
        "latest": policy.latest.num_versions == 0,
        "specific": not set(policy.specific.versions) & set(there),
    }
    if there and nothing.get(policy.WhichOneof("policy_choice") or ""):
        message = f"by its version_policy nothing is served; there is {_listed(there)}"
        yield Problem(model.config_path, message, "name a version that is there, or let latest be 1 or more")


def _folders(model: ModelFolder) -> list[Path]:
    return sorted(path for path in model.path.iterdir() if path.is_dir())


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0  # its publisher is done
