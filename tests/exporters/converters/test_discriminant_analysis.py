from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from .same import GROWERS, WINE, assert_same


@pytest.mark.parametrize("given", [{}, {"solver": "eigen", "shrinkage": 0.1}, {"n_components": 1}], ids=str)
def test_a_step_before_the_last_gives_discriminants(given: dict[str, Any], tmp_path: Path) -> None:
    model = make_pipeline(LinearDiscriminantAnalysis(**given), LogisticRegression()).fit(WINE[::2], GROWERS[::2])
    assert_same(model, WINE[1::2], tmp_path, {"label", "probabilities"})


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("solver", ["svd", "lsqr", "eigen"])
def test_the_last_step_classifies(solver: str, classes: int, tmp_path: Path) -> None:
    model = LinearDiscriminantAnalysis(solver=solver).fit(WINE[::2], np.minimum(GROWERS[::2], classes - 1))
    assert_same(model, WINE[1::2], tmp_path, {"label", "probabilities"})
