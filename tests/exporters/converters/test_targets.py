from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import Ridge
from sklearn.preprocessing import MinMaxScaler, PowerTransformer, QuantileTransformer, RobustScaler, StandardScaler

from tritium.exporters import ConversionError, export_sklearn

from .same import WINE, assert_same

POSITIVE = (WINE[:, 0] - WINE[:, 0].min() + 1).astype(np.float64)
FUNCTIONS = [(np.log1p, np.expm1), (np.log, np.exp), (np.sqrt, np.square)]


@pytest.mark.parametrize(("func", "inverse"), FUNCTIONS, ids=lambda item: item.__name__)
def test_a_function_of_the_target_is_undone(func: Any, inverse: Any, tmp_path: Path) -> None:
    model = TransformedTargetRegressor(Ridge(), func=func, inverse_func=inverse).fit(WINE[::2, 1:], POSITIVE[::2])
    assert_same(model, WINE[1::2, 1:], tmp_path, {"prediction"})


def test_a_share_as_target_is_undone(tmp_path: Path) -> None:
    model = TransformedTargetRegressor(Ridge(), func=logit, inverse_func=expit)
    model.fit(WINE[::2, 1:], POSITIVE[::2] / 10)
    assert_same(model, WINE[1::2, 1:], tmp_path, {"prediction"})


@pytest.mark.parametrize(
    "transformer",
    [
        StandardScaler(),
        StandardScaler(with_mean=False),
        MinMaxScaler((1, 3)),
        RobustScaler(),
        PowerTransformer(),
        PowerTransformer(method="box-cox"),
        PowerTransformer(standardize=False),
    ],
    ids=str,
)
def test_a_transformer_of_the_target_is_undone(transformer: Any, tmp_path: Path) -> None:
    model = TransformedTargetRegressor(Ridge(), transformer=transformer).fit(WINE[::2, 1:], POSITIVE[::2])
    assert_same(model, WINE[1::2, 1:], tmp_path, {"prediction"})


@pytest.mark.parametrize(
    "given",
    [{"transformer": QuantileTransformer(n_quantiles=10)}, {"func": np.log1p, "inverse_func": lambda y: np.exp(y) - 1}],
    ids=["transformer", "function"],
)
def test_what_has_no_graph_is_refused_with_what_has(given: dict[str, Any], tmp_path: Path) -> None:
    model = TransformedTargetRegressor(Ridge(), check_inverse=False, **given).fit(WINE[:, 1:], POSITIVE)
    with pytest.raises(ConversionError, match=r"has no graph; use .*"):
        export_sklearn(model, WINE[:9, 1:], name="x", repository=tmp_path)
