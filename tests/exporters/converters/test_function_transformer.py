from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special
from sklearn.preprocessing import FunctionTransformer

from tritium.exporters import ConversionError, export_sklearn
from tritium.exporters.converters._functions import FUNCTIONS

from .same import IRIS, assert_same

BOUNDED = {"arccos", "arcsin", "arctanh", "logit"}
FROM_ONE = {"arccosh"}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_function_of_the_table_answers_as_numpy(name: str, tmp_path: Path) -> None:
    function = getattr(np, name, None) or getattr(scipy.special, name)
    rows = IRIS / 10 if name in BOUNDED else IRIS + 1 if name in FROM_ONE else IRIS - (name in SIGNED) * 3
    assert_same(FunctionTransformer(function), rows.astype(np.float32), tmp_path, {"transformed"}, atol=1e-4)


SIGNED = {"absolute", "cbrt", "fabs", "sign", "negative", "rint", "floor", "ceil", "square", "tanh", "expm1"}


def test_no_function_leaves_rows_as_they_are(tmp_path: Path) -> None:
    assert_same(FunctionTransformer(), IRIS, tmp_path, {"transformed"})


@pytest.mark.parametrize(
    "given", [{"func": lambda x: x + 1}, {"func": np.sort}, {"func": np.clip, "kw_args": {"a_min": 0, "a_max": 1}}]
)
def test_a_function_without_a_graph_is_refused_with_those_that_have_one(given: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"has no graph; use a function of numpy or scipy.special"):
        export_sklearn(FunctionTransformer(**given), IRIS, name="x", repository=tmp_path)
