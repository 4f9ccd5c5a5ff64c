from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from tritium.exporters import ConversionError, export_sklearn

from .same import WINE, assert_same


def test_steps_are_joined_by_lines_and_level_beyond_the_ends(tmp_path: Path) -> None:
    model = IsotonicRegression(out_of_bounds="clip").fit(WINE[::2, 0], WINE[::2, 12])
    rows = np.append(WINE[1::2, 0], [-9, 9]).astype(np.float32)
    assert_same(model, rows, tmp_path, {"prediction"})


def test_a_constant_target_is_a_constant(tmp_path: Path) -> None:
    model = IsotonicRegression(out_of_bounds="clip").fit(WINE[::2, 0], np.ones(89))
    assert_same(model, WINE[1::2, 0], tmp_path, {"prediction"})


def test_one_that_raises_beyond_its_ends_is_refused_with_the_way_out(tmp_path: Path) -> None:
    model = IsotonicRegression(out_of_bounds="raise").fit(WINE[:, 0], WINE[:, 12])
    with pytest.raises(ConversionError, match=r"raises where a model must answer; use 'clip'"):
        export_sklearn(model, WINE[:9, 0], name="x", repository=tmp_path)
