from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sklearn.decomposition import FactorAnalysis, FastICA, MiniBatchSparsePCA, SparsePCA

from .same import WINE, assert_same, quiet


@pytest.mark.parametrize(
    "model",
    [
        FactorAnalysis(3),
        FastICA(4, random_state=0, max_iter=1000),
        FastICA(random_state=0, whiten=False, max_iter=1000),
        SparsePCA(3, random_state=0, max_iter=5),
        MiniBatchSparsePCA(3, random_state=0, max_iter=5, ridge_alpha=0.5),
    ],
    ids=str,
)
def test_a_linear_decomposition_answers_as_it_does(model: Any, tmp_path: Path) -> None:
    with quiet():
        model.fit(WINE[::2])
    assert_same(model, WINE[1::2], tmp_path, {"transformed"}, atol=5e-5)
