from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.preprocessing import SplineTransformer

from tritium.exporters import ConversionError, export_sklearn

from .same import WINE, assert_same


@pytest.mark.parametrize("extrapolation", ["constant", "linear", "continue", "periodic"])
@pytest.mark.parametrize("knots", ["uniform", "quantile"])
def test_splines_answer_as_they_do_inside_and_outside_their_knots(
    extrapolation: str, knots: str, tmp_path: Path
) -> None:
    model = SplineTransformer(n_knots=4, extrapolation=extrapolation, knots=knots).fit(WINE[::2] * 0.7)
    assert_same(model, WINE[1::2], tmp_path, {"transformed"}, atol=1e-4)


@pytest.mark.parametrize("given", [{"degree": 1}, {"degree": 2, "n_knots": 2}, {"include_bias": False}], ids=str)
def test_splines_of_another_shape_answer_as_they_do(given: dict[str, Any], tmp_path: Path) -> None:
    assert_same(SplineTransformer(**given).fit(WINE[::2]), WINE[1::2], tmp_path, {"transformed"})


def test_the_last_knot_itself_belongs_to_the_last_piece(tmp_path: Path) -> None:
    model = SplineTransformer(n_knots=3).fit(WINE)
    ends = np.vstack([WINE.min(axis=0), WINE.max(axis=0)])
    assert_same(model, ends, tmp_path, {"transformed"})


def test_splines_that_would_raise_are_refused_with_those_that_do_not(tmp_path: Path) -> None:
    model = SplineTransformer(extrapolation="error").fit(WINE)
    with pytest.raises(ConversionError, match=r"'error' raises where a model must answer; use 'constant'"):
        export_sklearn(model, WINE[:20], name="x", repository=tmp_path)
