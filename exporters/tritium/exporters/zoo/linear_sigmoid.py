"""One sigmoid of two measures: logistic regression."""

from __future__ import annotations

from tritium.repository import Published, Repository

from ._registry import Progress
from ._sigmoid import export_sigmoid


def export(repository: Repository, recipe: str, progress: Progress) -> Published:
    """Train, measure on the held-out tumours, publish."""
    return export_sigmoid("linear_sigmoid", (2, 1), repository, recipe, progress)
