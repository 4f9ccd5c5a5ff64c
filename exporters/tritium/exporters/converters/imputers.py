"""Missing values."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._errors import ConversionError
from ._ops import Ops
from ._registry import Converter


def _iterative_imputer(estimator: Any, x: str, ops: Ops) -> str:
    """The rounds of the fit once more: each column's missing values are predicted from the other columns."""
    initial = estimator.initial_imputer_
    width = estimator.n_features_in_
    whole = len(initial.get_feature_names_out()) == width and not np.isnan(initial.statistics_.astype(float)).any()
    if not _is_nan(estimator.missing_values) or estimator.sample_posterior or not whole:
        raise ConversionError(
            "An IterativeImputer has a graph if missing_values is NaN, sample_posterior is False and no column was "
            "empty when it was fitted"
        )
    places = range(width)
    missing = [ops.IsNaN(ops.columns(x, [place])) for place in places]
    columns = [
        ops.Where(missing[place], float(initial.statistics_[place]), ops.columns(x, [place])) for place in places
    ]
    for step in estimator.imputation_sequence_ if estimator.n_iter_ else []:
        place = int(step.feat_idx)
        others = ops.Concat(*[columns[int(other)] for other in step.neighbor_feat_idx], axis=1)
        guess = _regressed(step.estimator, others, ops)
        low, high = float(estimator._min_value[place]), float(estimator._max_value[place])
        columns[place] = ops.Where(missing[place], ops.Min(ops.Max(guess, low), high), columns[place])
    if estimator.add_indicator:
        columns += [ops.double(missing[int(place)]) for place in estimator.indicator_.features_]
    return ops.Concat(*columns, axis=1)


def _regressed(regressor: Any, x: str, ops: Ops) -> str:
    """Linear regressors in float64, because each round goes on from the last."""
    if hasattr(regressor, "coef_") and type(regressor).__module__.startswith("sklearn.linear_model._"):
        weights = np.asarray(regressor.coef_, dtype=np.float64).reshape(-1, 1)
        link = type(regressor).__name__ in ("GammaRegressor", "PoissonRegressor", "TweedieRegressor")
        if not link:
            return ops.Add(ops.MatMul(x, weights), np.asarray(regressor.intercept_, dtype=np.float64).reshape(1, 1))
    return ops.double(ops.answers(regressor, x)["prediction"])


def _missing_indicator(estimator: Any, x: str, ops: Ops) -> str:
    seen = ops.columns(x, estimator.features_)
    if _is_nan(estimator.missing_values):
        return ops.IsNaN(seen)
    if not isinstance(estimator.missing_values, int | float):
        raise ConversionError("A MissingIndicator has a graph if missing_values is a number or NaN")
    return ops.Equal(seen, float(estimator.missing_values))


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and np.isnan(value)


CONVERTERS = [
    Converter(estimator="sklearn.impute.IterativeImputer", convert=_iterative_imputer),
    Converter(estimator="sklearn.impute.MissingIndicator", convert=_missing_indicator),
]
