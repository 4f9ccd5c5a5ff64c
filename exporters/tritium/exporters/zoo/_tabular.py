"""The tables of the zoo, each in a fixed split: they come with scikit-learn and palmerpenguins, and need no network."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tritium.client import MissingExtraError

if TYPE_CHECKING:
    import pandas as pd

_HELD_OUT = 0.25
MALIGNANT = 0


@dataclass(frozen=True)
class Split:
    """Measures as (rows, columns) of float32, and what they belong to.

    Attributes:
        names: of the columns.
    """

    train: NDArray[np.float32]
    held_out: NDArray[np.float32]
    train_targets: NDArray[Any]
    held_out_targets: NDArray[Any]
    names: list[str]
    provenance: dict[str, Any]

    def columns(self, names: Sequence[str]) -> Split:
        """The same rows with these columns only."""
        places = [self.names.index(name) for name in names]
        return Split(
            self.train[:, places],
            self.held_out[:, places],
            self.train_targets,
            self.held_out_targets,
            list(names),
            self.provenance | {"columns": list(names)},
        )


@cache
def cancer() -> Split:
    """Breast cancer (Wisconsin diagnostic): 569 tumours, 30 measures of each; the targets are 0, malignant, and 1."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    return _split("breast cancer (scikit-learn)", data, stratify=data.target)


@cache
def diabetes() -> Split:
    """Diabetes (Efron et al., Least Angle Regression, 2004): 442 patients, 10 measures of each, as they were taken."""
    from sklearn.datasets import load_diabetes

    return _split("diabetes (scikit-learn)", load_diabetes(scaled=False))


@cache
def penguins() -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Palmer penguins (Horst, Hill and Gorman, 2020): rows to train on, rows held out, and where they come from.

    344 birds with their species, island, sex and measures, of which some are missing: NaN among the measures, an empty
    string for the sex.

    Raises:
        MissingExtraError: the package that carries them is not installed.
    """
    try:
        from palmerpenguins import load_penguins
    except ImportError as exc:
        raise MissingExtraError("palmerpenguins", "zoo") from exc
    from sklearn.model_selection import train_test_split

    birds = load_penguins().fillna({"sex": ""})
    train, held_out = train_test_split(birds, test_size=_HELD_OUT, stratify=birds["species"], random_state=0)
    digest = hashlib.sha256(birds.to_csv(index=False).encode()).hexdigest()
    return train, held_out, _provenance("penguins (palmerpenguins)", len(train), len(held_out), digest)


def _split(name: str, data: Any, stratify: NDArray[Any] | None = None) -> Split:
    from sklearn.model_selection import train_test_split

    rows = data.data.astype(np.float32)
    train, held_out, train_targets, held_out_targets = train_test_split(
        rows, data.target, test_size=_HELD_OUT, stratify=stratify, random_state=0
    )
    digest = hashlib.sha256(data.data.tobytes() + data.target.tobytes()).hexdigest()
    provenance = _provenance(name, len(train), len(held_out), digest)
    names = [str(column) for column in data.feature_names]
    return Split(train, held_out, train_targets, held_out_targets, names, provenance | {"columns": names})


def _provenance(name: str, train_rows: int, held_out_rows: int, sha256: str) -> dict[str, Any]:
    return {"name": name, "train_rows": train_rows, "held_out_rows": held_out_rows, "sha256": sha256}
