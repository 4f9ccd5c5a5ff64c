from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection

from .same import WINE, assert_same


@pytest.mark.parametrize("model", [SparseRandomProjection(4, random_state=0), GaussianRandomProjection(4)], ids=str)
def test_a_random_projection_answers_as_it_does(model: Any, tmp_path: Path) -> None:
    assert_same(model.fit(WINE[::2]), WINE[1::2], tmp_path, {"transformed"})
