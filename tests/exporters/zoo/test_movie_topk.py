"""The ten best movies of a user: new to them, in order, with their titles, and the same factors as the ratings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tritium.exporters.zoo._movielens import load

from .conftest import Reference


@pytest.fixture
def model(reference: Callable[[str], Reference]) -> Reference:
    return reference("movie_topk")


def best(model: Reference, *users: int) -> dict[str, NDArray[Any]]:
    outputs = model(user_id=np.array(users, dtype=np.int64)[:, np.newaxis])
    assert {name: array.shape for name, array in outputs.items()} == dict.fromkeys(
        ("movie_ids", "titles", "scores"), (len(users), 10)
    )
    return outputs


def test_of_the_movies_that_a_user_rated_later_it_puts_the_liked_ones_first_more_often_than_popularity(
    model: Reference,
) -> None:
    assert model.manifest.metrics["precision_at_3"] > model.manifest.baselines["precision_at_3"] + 0.05


def test_nobody_is_given_what_they_have_rated_already(model: Reference) -> None:
    train = load().train
    users = np.unique(train.users)
    rated = set(zip(train.users.tolist(), train.movies.tolist(), strict=True))
    for user, movies in zip(users.tolist(), best(model, *users)["movie_ids"].tolist(), strict=True):
        assert len(set(movies)) == 10
        assert not {(user, movie) for movie in movies} & rated


def test_the_best_come_first_by_titles_of_their_own(model: Reference) -> None:
    outputs = best(model, 1, 2, 3)
    assert (np.diff(outputs["scores"], axis=1) <= 0).all()
    titles = load().titles
    assert [[titles[movie] for movie in row] for row in outputs["movie_ids"].tolist()] == [
        [title if isinstance(title, str) else title.decode() for title in row] for row in outputs["titles"]
    ]


def test_the_scores_are_the_ratings_of_the_other_model(model: Reference, reference: Callable[[str], Reference]) -> None:
    users = np.unique(load().train.users)[:50]
    outputs = best(model, *users)
    ratings = reference("movie_recommender")(
        user_id=np.repeat(users, 10)[:, np.newaxis], movie_id=outputs["movie_ids"].reshape(-1, 1)
    )["rating"]
    np.testing.assert_allclose(ratings.reshape(-1, 10), outputs["scores"].clip(0.5, 5), rtol=0, atol=1e-5)


def test_users_whom_nobody_knows_are_given_the_same(model: Reference) -> None:
    movies = best(model, 0, -1, 2**62, 1)["movie_ids"]
    np.testing.assert_array_equal(movies[0], movies[1])
    np.testing.assert_array_equal(movies[0], movies[2])
    assert (movies[0] != movies[3]).any()
