from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sklearn.cross_decomposition import CCA, PLSSVD, PLSCanonical, PLSRegression

from .same import WINE, assert_same


@pytest.mark.parametrize("model", [CCA(2), PLSCanonical(2), PLSRegression(3), PLSRegression(2, scale=False)], ids=str)
def test_latent_variables_predict_as_they_do(model: Any, tmp_path: Path) -> None:
    assert_same(model.fit(WINE[::2, 2:], WINE[::2, :2]), WINE[1::2, 2:], tmp_path, {"prediction"})


def test_a_singular_value_decomposition_transforms_as_it_does(tmp_path: Path) -> None:
    assert_same(PLSSVD(2).fit(WINE[::2, 2:], WINE[::2, :2]), WINE[1::2, 2:], tmp_path, {"transformed"})
