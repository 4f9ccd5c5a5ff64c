from __future__ import annotations

from pathlib import Path

import pytest
from sklearn.preprocessing import KBinsDiscretizer

from .same import WINE, assert_same


@pytest.mark.parametrize("encode", ["onehot", "onehot-dense", "ordinal"])
@pytest.mark.parametrize("strategy", ["uniform", "quantile", "kmeans"])
def test_values_fall_into_the_same_bins(encode: str, strategy: str, tmp_path: Path) -> None:
    model = KBinsDiscretizer(
        4, encode=encode, strategy=strategy, quantile_method="averaged_inverted_cdf", random_state=0
    )
    assert_same(model.fit(WINE[::2]), WINE[1::2], tmp_path, {"transformed"})
