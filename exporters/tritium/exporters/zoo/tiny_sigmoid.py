"""A perceptron 2 → 4 → 2 → 1 with sigmoids: as small as a network gets."""

from __future__ import annotations

from tritium.repository import Published, Repository

from ._registry import Progress
from ._sigmoid import export_sigmoid


def export(repository: Repository, recipe: str, progress: Progress) -> Published:
    """Train, measure on the held-out tumours, publish."""
    return export_sigmoid("tiny_sigmoid", (2, 4, 2, 1), repository, recipe, progress)
