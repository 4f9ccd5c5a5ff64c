"""Looking a model repository over, whoever wrote it, without running anything that lies in it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from tritium.client import InputError

from .._repository import CONFIG_NAME, Repository
from . import _configs, _ensembles, _folders, _scheduling, _tensors, _versions  # noqa: F401 — they register their rules
from ._onnx_file import Opener
from ._rules import RULES, Finding, Rule, Severity
from ._subjects import ModelFolder, RepositoryFolder

__all__ = ["RULES", "Finding", "Rule", "Severity", "lint"]


def lint(path: str | Path | Repository) -> list[Finding]:
    """Look a model repository over.

    Nothing in it is run, no pickle is read, no link is followed, and ONNX Runtime sees only files whose external data
    lie beside them.

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
        found = [*_findings(repository), *chain.from_iterable(map(_of_model, repository.models.values()))]
    return sorted(found, key=lambda finding: (finding.place, finding.code, finding.message))


def _of_model(model: ModelFolder) -> Iterator[Finding]:
    yield from _findings(model)
    for version in model.versions:
        yield from _findings(version)


def _findings(subject: Any) -> Iterator[Finding]:
    for rule in RULES.values():
        if isinstance(subject, rule.scope):
            try:
                for problem in rule.check(subject):
                    yield Finding(rule.code, rule.severity, *problem)
            except OSError as exc:
                fix = "let whoever looks it over read it, or mend the disk"
                yield Finding("unreadable", Severity.ERROR, subject.path, f"{rule.code} cannot be checked: {exc}", fix)
