from __future__ import annotations

from pathlib import Path

import pytest
from sklearn.ensemble import RandomTreesEmbedding

from .same import WINE, assert_same


@pytest.mark.parametrize("sparse", [True, False])
def test_rows_reach_the_same_leaves(sparse: bool, tmp_path: Path) -> None:
    model = RandomTreesEmbedding(7, max_depth=4, sparse_output=sparse, random_state=0).fit(WINE[::2])
    assert_same(model, WINE[1::2], tmp_path, {"transformed"})
