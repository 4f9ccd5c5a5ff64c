from __future__ import annotations

from pathlib import Path

from sklearn.neural_network import BernoulliRBM

from .same import HELD_OUT, IRIS, assert_same


def test_hidden_units_are_as_likely(tmp_path: Path) -> None:
    model = BernoulliRBM(6, n_iter=3, random_state=0).fit(IRIS[~HELD_OUT] / 8)
    assert_same(model, IRIS[HELD_OUT] / 8, tmp_path, {"transformed"})
