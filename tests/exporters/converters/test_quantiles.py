from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.preprocessing import QuantileTransformer

from .same import WINE, assert_same


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
@pytest.mark.parametrize("rows", [WINE, np.round(WINE)], ids=["all different", "many equal"])
def test_quantiles_are_the_same_also_beyond_the_ends(distribution: str, rows: Any, tmp_path: Path) -> None:
    model = QuantileTransformer(n_quantiles=30, output_distribution=distribution, random_state=0)
    model.fit(rows[::2] * np.float32(0.8))
    assert_same(model, rows[1::2], tmp_path, {"transformed"}, atol=1e-4)
