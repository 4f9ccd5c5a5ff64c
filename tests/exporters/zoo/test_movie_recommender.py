"""Ratings by matrix factorisation: better than the mean and than biases alone, and something to say of anybody."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tritium.exporters.zoo._movielens import load
from tritium.exporters.zoo.movie_recommender import Factorisation, Places, fitted

from .conftest import Reference


@pytest.fixture
def model(reference: Callable[[str], Reference]) -> Reference:
    return reference("movie_recommender")


def ratings(model: Reference, users: NDArray[np.int64], movies: NDArray[np.int64]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = model(user_id=users[:, np.newaxis], movie_id=movies[:, np.newaxis])["rating"]
    assert found.shape == (len(users), 1)
    assert found.min() >= 0.5
    assert found.max() <= 5
    return found[:, 0]


def test_it_is_clearly_nearer_to_the_held_out_ratings_than_the_mean_and_the_biases(model: Reference) -> None:
    data = load()
    error = float(np.sqrt(np.mean((ratings(model, data.test.users, data.test.movies) - data.test.stars) ** 2)))
    assert error == pytest.approx(model.manifest.metrics["rmse"], abs=1e-5)
    mean = float(np.sqrt(np.mean((data.test.stars - data.train.stars.mean()) ** 2)))
    assert mean == pytest.approx(model.manifest.baselines["rmse"], abs=1e-5)
    assert error < 0.85 * mean
    assert error < model.manifest.training["rmse_of_biases_alone"] - 0.005


def test_ids_that_nobody_has_count_as_the_average_user_and_movie(model: Reference) -> None:
    extremes = np.array([0, -1, 2**62, -(2**63), 2**63 - 1])
    (everywhere,) = set(ratings(model, extremes, extremes).tolist())
    # What the mean of all became in training: near where it started.
    assert everywhere == pytest.approx(load().train.stars.mean(), abs=0.15)
    known = np.full(5, load().train.users[0])
    (of_user,) = set(ratings(model, known, extremes).tolist())
    assert of_user != everywhere


def test_places_are_rows_from_1_on_and_0_for_what_is_not_known() -> None:
    places = Places(np.array([7, 3, 7, 10]))
    assert len(places) == 4
    ids = torch.tensor([[3], [7], [10], [0], [4], [11], [12], [-1], [2**62]])
    assert places(ids)[:, 0].tolist() == [1, 2, 3, 0, 0, 0, 0, 0, 0]


def test_the_rows_of_the_unknown_stay_at_zero_in_training() -> None:
    factorisation, _ = fitted(print)
    for name in ("users", "movies", "user_bias", "movie_bias"):
        weight = getattr(factorisation, name).weight
        assert not weight[0].any()
        assert weight[1:].any()


def test_a_rerun_gives_the_same_weights() -> None:
    first, _ = fitted(print)
    threads = torch.get_num_threads()
    again, _ = fitted.__wrapped__(print)
    assert torch.get_num_threads() == threads
    assert again is not first
    assert isinstance(again, Factorisation)
    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
