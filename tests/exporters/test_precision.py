"""Which rows are numbers."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tritium.exporters._precision import finite_rows


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_rows_with_anything_that_is_no_finite_number_are_told_apart(dtype: Any) -> None:
    array = np.array([[[1, 2]], [[np.nan, 2]], [[1, np.inf]], [[1, -2]]]).astype(dtype)
    assert finite_rows(array).tolist() == [True, False, False, True]
    assert finite_rows(array[:, 0, 0]).tolist() == [True, False, True, True]


@pytest.mark.parametrize("array", [np.array([[1], [2]]), np.array([["a"], [None]], object), np.zeros((2, 0))])
def test_what_is_no_float_and_what_is_empty_is_finite(array: Any) -> None:
    assert finite_rows(array).tolist() == [True, True]
