from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sklearn.decomposition import DictionaryLearning, MiniBatchDictionaryLearning, SparseCoder

from tritium.exporters import ConversionError, export_sklearn

from .same import WINE, assert_same, quiet


@pytest.mark.parametrize("atoms", [1, 3])
@pytest.mark.parametrize("learner", [DictionaryLearning, MiniBatchDictionaryLearning])
def test_matching_pursuit_finds_the_same_code(learner: Any, atoms: int, tmp_path: Path) -> None:
    model = learner(8, max_iter=5, random_state=0, transform_n_nonzero_coefs=atoms)
    with quiet():
        model.fit(WINE[::2])
    assert_same(model, WINE[1::2], tmp_path, {"transformed"}, atol=1e-4)


@pytest.mark.parametrize("given", [{}, {"split_sign": True}, {"positive_code": True}], ids=str)
def test_a_threshold_leaves_the_same_code(given: dict[str, bool], tmp_path: Path) -> None:
    model = SparseCoder(WINE[:6].astype(float), transform_algorithm="threshold", transform_alpha=0.3, **given)
    assert_same(model.fit(WINE), WINE[10:60], tmp_path, {"transformed"}, atol=1e-4)


def test_what_iterates_is_refused_with_what_does_not(tmp_path: Path) -> None:
    model = SparseCoder(WINE[:6].astype(float), transform_algorithm="lasso_lars").fit(WINE)
    with pytest.raises(ConversionError, match=r"until it converges.*use 'omp' or 'threshold'"):
        export_sklearn(model, WINE[:9], name="x", repository=tmp_path)
