"""k-fold cross-validation: folds as scikit-learn makes them, a fresh module for each, scores of rows not trained on."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold
from torch import nn

from tritium.client import InputError
from tritium.exporters.training import cross_validate, evaluate, seeded, train

Array = NDArray[Any]
Iris = tuple[Array, Array]
cross_entropy = nn.functional.cross_entropy


def accuracy(truth: Array, scores: Array) -> float:
    return float((scores.argmax(axis=1) == truth).mean())


def make() -> nn.Module:
    return nn.Linear(4, 3)


def test_it_scores_what_training_on_each_fold_by_hand_scores(iris: Iris) -> None:
    inputs, targets = iris
    found = cross_validate(
        make,
        inputs,
        targets,
        loss=cross_entropy,
        folds=3,
        stratified=True,
        metrics={"accuracy": accuracy},
        seed=4,
        learning_rate=0.05,
        epochs=5,
    )
    by_hand = []
    for trained_on, left_out in StratifiedKFold(3, shuffle=True, random_state=4).split(inputs, targets):
        with seeded(4):
            module = make()
        train(module, inputs[trained_on], targets[trained_on], loss=cross_entropy, learning_rate=0.05, epochs=5, seed=4)
        by_hand.append(
            evaluate(module, inputs[left_out], targets[left_out], loss=cross_entropy, metrics={"accuracy": accuracy})
        )
    assert found.scores == {name: [fold[name] for fold in by_hand] for name in ("loss", "accuracy")}
    assert found.mean["accuracy"] == pytest.approx(np.mean([fold["accuracy"] for fold in by_hand]))
    assert found.std["loss"] == pytest.approx(np.std([fold["loss"] for fold in by_hand]))
    assert found.mean["accuracy"] > 0.8
    assert [history.rows for history in found.histories] == [100, 100, 100]
    assert json.loads(json.dumps(found.to_dict()))["mean"] == found.mean


def test_early_stopping_validates_on_rows_of_its_own(iris: Iris) -> None:
    found = cross_validate(
        make, *iris, loss=cross_entropy, folds=3, learning_rate=0.05, epochs=4, validation=0.2, patience=2
    )
    assert {(history.rows, history.validation_rows) for history in found.histories} == {(80, 20)}
    assert len(found.scores["loss"]) == 3


def test_several_inputs_are_split_alike(iris: Iris) -> None:
    inputs, targets = iris

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = make()

        def forward(self, sepals: torch.Tensor, petals: torch.Tensor) -> torch.Tensor:
            given: torch.Tensor = self.layer(torch.cat([sepals, petals], dim=1))
            return given

    whole = cross_validate(make, inputs, targets, loss=cross_entropy, folds=2, epochs=1)
    halves = inputs[:, :2], inputs[:, 2:]
    for pack in (halves, dict(zip(("sepals", "petals"), halves, strict=True))):
        assert cross_validate(Both, pack, targets, loss=cross_entropy, folds=2, epochs=1).scores == whole.scores


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folds": 1}, r"'folds'.*from 2 to 150.*got 1"),
        ({"folds": 151}, r"'folds'.*from 2 to 150.*got 151"),
        ({"folds": 60, "stratified": True}, r"does not split these targets into 60 folds"),
        ({"validation": (np.ones((1, 4)), np.ones(1))}, r"'validation'.*must be a share"),
        ({"validation": [np.ones((1, 4)), np.ones(1)]}, r"'validation'.*must be a share"),
        ({"folds": 2.5}, r"'folds'.*whole number from 2 to 150.*got 2.5"),
        ({"epoch": 3}, r"one that train takes, any of optimizer, .*got 'epoch' instead; did you mean 'epochs'\?"),
        ({"inputs": np.ones((3, 4))}, r"same number of rows, got 3 and 150"),
    ],
    ids=["too few", "too many", "rare classes", "validation rows", "listed", "half a fold", "misspelt", "lengths"],
)
def test_what_cannot_be_split_is_refused(iris: Iris, changes: dict[str, Any], message: str) -> None:
    inputs = changes.pop("inputs", iris[0])
    with pytest.raises(InputError, match=message):
        cross_validate(make, inputs, iris[1], loss=cross_entropy, **{"epochs": 1, **changes})
