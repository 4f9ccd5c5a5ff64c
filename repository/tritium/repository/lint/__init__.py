"""Looking a model repository over, whoever wrote it, without running anything that lies in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

from tritium.client import InputError

from .._repository import CONFIG_NAME, Repository
from . import _configs, _ensembles, _files, _folders, _scheduling, _tensors, _versions  # noqa: F401 — they register rules
from ._onnx_file import Opener
from ._rules import RULES, Finding, Rule, Severity
from ._subjects import ModelFolder, RepositoryFolder, VersionFolder

__all__ = ["RULES", "Finding", "Rule", "Severity", "lint"]

_MOST_LOOKS = 4


def lint(path: str | Path | Repository) -> list[Finding]:
    """Look a model repository over.

    Nothing in it is run, no pickle is read, no link is followed, and ONNX Runtime sees only files whose external data
    lie beside them.

    It may change meanwhile: what did is looked at again, and nothing is said of models and versions that are gone in
    the end.

    Args:
        path: the repository's folder.

    Returns:
        What is wrong with it, by place; empty for a good one.

    Raises:
        InputError: it is no folder, or a model's instead of a repository's.
    """
    folder = path.path if isinstance(path, Repository) else Repository(path).path
    if (folder / CONFIG_NAME).is_file():
        raise InputError(f"{folder} is a model; lint its repository, {folder.parent}")
    with Opener() as opener:
        repository = RepositoryFolder(folder, opener)
        found = [*_findings(repository)]
        folders = [(part, _settled(part)) for part in _parts(repository)]
        found += chain.from_iterable(findings for part, findings in folders if part.state())
    return sorted(found, key=lambda finding: (finding.place, finding.code, finding.message))


def _parts(repository: RepositoryFolder) -> Iterator[ModelFolder | VersionFolder]:
    for model in repository.models.values():
        yield model
        with suppress(OSError):  # the model's rules say so
            yield from model.versions


def _settled(part: ModelFolder | VersionFolder) -> list[Finding]:
    """What is wrong with a folder; if it changes under the look, what is so at each of a few looks."""
    found = list(_findings(part))
    for _ in range(_MOST_LOOKS - 1):
        if not found or part.state() == part.seen:
            break
        part = part.again()
        again = list(_findings(part))
        found = [finding for finding in found if finding in again]
    return found if part.state() else []


def _findings(subject: Any) -> Iterator[Finding]:
    for rule in RULES.values():
        if isinstance(subject, rule.scope):
            try:
                for problem in rule.check(subject):
                    yield Finding(rule.code, rule.severity, *problem)
            except OSError as exc:
                fix = "let whoever looks it over read it, or mend the disk"
                yield Finding("unreadable", Severity.ERROR, subject.path, f"{rule.code} cannot be checked: {exc}", fix)
