"""k-fold cross-validation of a torch module, split by scikit-learn."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tritium.client import InputError

from ._history import History
from ._rows import Array, Inputs, by_name
from ._seeds import seeded
from ._settings import is_whole, suggestion
from ._train import Loss, Metric, evaluate, train

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class CrossValidation:
    """How well a module does on each fold, trained on the others.

    Attributes:
        scores: for each fold ``loss`` and each metric by its name.
        histories: of the training for each fold.
    """

    scores: Mapping[str, Sequence[float]]
    histories: Sequence[History]

    @property
    def mean(self) -> dict[str, float]:
        """Of each score over the folds."""
        return {name: float(np.mean(values)) for name, values in self.scores.items()}

    @property
    def std(self) -> dict[str, float]:
        """The standard deviation of each score over the folds."""
        return {name: float(np.std(values)) for name, values in self.scores.items()}

    def to_dict(self) -> dict[str, Any]:
        """Scores, means and standard deviations as JSON takes them, for a manifest's ``training``."""
        return {
            "scores": {name: list(values) for name, values in self.scores.items()},
            "mean": self.mean,
            "std": self.std,
        }


def cross_validate(
    make: Callable[[], torch.nn.Module],
    inputs: Inputs,
    targets: Array,
    *,
    loss: Loss,
    folds: int = 5,
    stratified: bool = False,
    metrics: Mapping[str, Metric] | None = None,
    seed: int = 0,
    **settings: Any,
) -> CrossValidation:
    """Train a fresh module for each fold on the other folds, and measure it on that one.

    Args:
        make: makes the module; it is called within ``seeded(seed)``, so every fold starts with the same weights.
        inputs: as in ``train``.
        targets: as in ``train``.
        loss: as in ``train``.
        folds: how many: 2 or more, and no more than rows.
        stratified: whether each fold has the classes in the proportions of the whole, by ``StratifiedKFold`` instead
            of ``KFold``; targets are classes then, of shape (rows,).
        metrics: as in ``train``, of the rows of each fold.
        seed: of the folds and of each training.
        settings: what else ``train`` takes. `validation` must be a share: it is split off from the rows trained on, so
            that early stopping never sees the rows that a fold is measured on.

    Raises:
        InputError: an argument cannot be used.
        TrainingError: the loss is no longer a finite number.
    """
    own = {"module", "inputs", "targets", "loss", "metrics", "seed"}
    valid = [name for name in inspect.signature(train).parameters if name not in own]
    for name in settings.keys() - set(valid):
        raise InputError(
            f"A setting of cross_validate must be one that train takes, any of {', '.join(valid)}; got {name!r} instead"
            + suggestion(name, valid)
        )
    if isinstance(settings.get("validation"), tuple | list):
        raise InputError("The 'validation' parameter of cross_validate must be a share of the rows trained on, or None")
    targets = np.asarray(targets)
    if not is_whole(folds) or not 2 <= folds <= len(targets):
        raise InputError(
            f"The 'folds' parameter of cross_validate must be a whole number from 2 to {len(targets)}, the number "
            f"of rows, got {folds!r} instead"
        )
    from sklearn.model_selection import KFold, StratifiedKFold

    if counts := {len(array) for array in by_name(inputs)} - {len(targets)}:
        raise InputError(
            f"Inputs and targets of cross_validate must have the same number of rows, got "
            f"{counts.pop()} and {len(targets)}"
        )
    splitter = (StratifiedKFold if stratified else KFold)(folds, shuffle=True, random_state=seed)
    try:
        splits = list(splitter.split(targets, targets))
    except ValueError as exc:
        raise InputError(f"scikit-learn does not split these targets into {folds} folds: {exc}") from exc
    scores: dict[str, list[float]] = {}
    histories = []
    for trained_on, left_out in splits:
        with seeded(seed):
            module = make()
        histories.append(
            train(module, _take(inputs, trained_on), targets[trained_on], loss=loss, seed=seed, **settings)
        )
        found = evaluate(module, _take(inputs, left_out), targets[left_out], loss=loss, metrics=metrics)
        for name, value in found.items():
            scores.setdefault(name, []).append(value)
    return CrossValidation(scores, histories)


def _take(inputs: Inputs, rows: Array) -> Inputs:
    if isinstance(inputs, Mapping):
        return {name: np.asarray(array)[rows] for name, array in inputs.items()}
    arrays = [array[rows] for array in by_name(inputs)]
    return arrays if len(arrays) > 1 else arrays[0]
