from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import (
    KNeighborsClassifier,
    KNeighborsRegressor,
    RadiusNeighborsClassifier,
    RadiusNeighborsRegressor,
    RadiusNeighborsTransformer,
)

from tritium.exporters import ConversionError, export_sklearn

from .same import GROWERS, HELD_OUT, IRIS, KINDS, WINE, assert_same


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("metric", ["minkowski", "manhattan", "cosine"])
def test_the_nearest_vote_as_they_do(weights: str, metric: str, tmp_path: Path) -> None:
    model = KNeighborsClassifier(6, weights=weights, metric=metric, algorithm="brute").fit(WINE[::2], GROWERS[::2])
    rows = np.vstack([WINE[1::2], WINE[:6:2]])
    assert_same(model, rows, tmp_path, {"label", "probabilities"}, atol=1e-4)


@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_the_nearest_average_as_they_do(weights: str, tmp_path: Path) -> None:
    model = KNeighborsRegressor(4, weights=weights).fit(WINE[::2, 2:], WINE[::2, :2])
    assert_same(model, WINE[1::2, 2:], tmp_path, {"prediction"})


def test_a_metric_without_a_graph_is_refused_with_those_that_have_one(tmp_path: Path) -> None:
    model = KNeighborsClassifier(metric="canberra").fit(WINE, GROWERS)
    with pytest.raises(ConversionError, match=r"'canberra' has no graph; use one of .*'euclidean'"):
        export_sklearn(model, WINE[:9], name="x", repository=tmp_path)


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "chebyshev"])
def test_neighbours_within_a_radius_vote_as_they_do(weights: str, metric: str, tmp_path: Path) -> None:
    model = RadiusNeighborsClassifier(0.9, weights=weights, metric=metric, outlier_label="most_frequent")
    model.fit(IRIS[~HELD_OUT], KINDS[~HELD_OUT])
    # One row far from all, and some that were fitted on.
    rows = np.vstack([IRIS[HELD_OUT], IRIS[~HELD_OUT][:5], [[99, 99, 99, 99]]]).astype(np.float32)
    assert_same(model, rows, tmp_path, {"label", "probabilities"})


def test_an_outlier_may_have_a_label_of_its_own(tmp_path: Path) -> None:
    model = RadiusNeighborsClassifier(0.9, outlier_label=-7).fit(IRIS[~HELD_OUT], KINDS[~HELD_OUT])
    rows = np.vstack([IRIS[HELD_OUT], [[99, 99, 99, 99]]]).astype(np.float32)
    assert_same(model, rows, tmp_path, {"label", "probabilities"})


def test_a_classifier_that_raises_for_outliers_is_refused_with_the_way_out(tmp_path: Path) -> None:
    model = RadiusNeighborsClassifier(3.0).fit(IRIS, KINDS)
    with pytest.raises(ConversionError, match=r"set its outlier_label"):
        export_sklearn(model, IRIS[:9], name="x", repository=tmp_path)


@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_neighbours_within_a_radius_average_as_they_do(weights: str, tmp_path: Path) -> None:
    model = RadiusNeighborsRegressor(1.5, weights=weights).fit(IRIS[~HELD_OUT, :3], IRIS[~HELD_OUT, 3:])
    assert_same(model, IRIS[HELD_OUT, :3], tmp_path, {"prediction"})


@pytest.mark.parametrize("mode", ["distance", "connectivity"])
def test_distances_within_a_radius_are_the_same(mode: str, tmp_path: Path) -> None:
    model = RadiusNeighborsTransformer(mode=mode, radius=0.97).fit(IRIS[~HELD_OUT])
    assert_same(model, IRIS[HELD_OUT], tmp_path, {"transformed"})
