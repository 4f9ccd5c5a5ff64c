"""Matrix factorisation with biases on MovieLens: a user's and a movie's id in, the rating out.

Y. Koren, R. Bell, C. Volinsky, "Matrix Factorization Techniques for Recommender Systems" (2009): a rating is the mean
of all, plus what the user and the movie are above it, plus the product of their factors.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from torch import nn

from tritium.repository import Published, Repository

from .._export import Provenance
from .._torch import export_torch
from ..training import History, seeded, train
from ._movielens import Ratings, load
from ._registry import Progress
from ._threads import one_thread

_FACTORS = 32
_STARS = (0.5, 5.0)


class Places(nn.Module):
    """From the ids that a data set has to the rows of an embedding; every id that it does not have goes to row 0."""

    def __init__(self, ids: NDArray[np.int64]) -> None:
        super().__init__()
        self.known = np.unique(ids)
        table = np.zeros(self.known[-1] + 2, np.int64)
        table[self.known] = np.arange(1, len(self.known) + 1)
        self.table: torch.Tensor
        self.register_buffer("table", torch.from_numpy(table))

    def __len__(self) -> int:
        """How many rows there are, row 0 among them."""
        return len(self.known) + 1

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """From int64 ids to int64 rows, of the same shape."""
        last = self.table.shape[0] - 1  # no id is the last one, nor below 0
        return self.table[torch.where(ids < 0, last, ids).clamp(max=last)]


class Factorisation(nn.Module):
    """Who is not known counts as the average user, or movie: row 0 of every embedding stays at zero."""

    def __init__(self, ratings: Ratings) -> None:
        super().__init__()
        self.user_places, self.movie_places = Places(ratings.users), Places(ratings.movies)
        self.mean = nn.Parameter(torch.tensor(ratings.stars.mean()))
        self.users, self.movies = (
            nn.Embedding(len(places), _FACTORS, padding_idx=0) for places in (self.user_places, self.movie_places)
        )
        self.user_bias, self.movie_bias = (
            nn.Embedding(len(places), 1, padding_idx=0) for places in (self.user_places, self.movie_places)
        )
        with torch.no_grad():
            for embedding in (self.users, self.movies):
                embedding.weight[1:].normal_(std=0.1)
                embedding.weight[0].zero_()
            for bias in (self.user_bias, self.movie_bias):
                bias.weight.zero_()

    def forward(self, user_id: torch.Tensor, movie_id: torch.Tensor) -> torch.Tensor:
        """From MovieLens's ids, int64 of shape (rows, 1), to stars of shape (rows, 1)."""
        user, movie = self.user_places(user_id)[:, 0], self.movie_places(movie_id)[:, 0]
        product = (self.users(user) * self.movies(movie)).sum(dim=1, keepdim=True)
        stars: torch.Tensor = self.mean + self.user_bias(user) + self.movie_bias(movie) + product
        return stars


class Recommender(nn.Module):
    """The factorisation, which knows no bounds, within the stars that there are."""

    def __init__(self, factorisation: Factorisation) -> None:
        super().__init__()
        self.factorisation = factorisation

    def forward(self, user_id: torch.Tensor, movie_id: torch.Tensor) -> torch.Tensor:
        """From MovieLens's ids, int64 of shape (rows, 1), to 0.5 to 5 stars of shape (rows, 1)."""
        stars: torch.Tensor = self.factorisation(user_id, movie_id)
        return stars.clamp(*_STARS)


@cache
def fitted(progress: Progress) -> tuple[Factorisation, History]:
    """The factorisation of the training ratings, with Adam on the squared error; the same at each call."""
    ratings = load(progress).train
    with seeded(0):
        model = Factorisation(ratings)
    with one_thread():
        history = train(
            model,
            (ratings.users[:, np.newaxis], ratings.movies[:, np.newaxis]),
            ratings.stars[:, np.newaxis],
            loss=nn.functional.mse_loss,
            learning_rate=5e-3,
            schedule="cosine",
            batch_size=512,
            epochs=12,
            l2=1e-4,
            validation=0.05,
            patience=2,
            progress=progress,
        )
    return model, history


def export(repository: Repository, recipe: str, progress: Progress) -> Published:
    """Train, measure on the held-out ratings, publish."""
    data = load(progress)
    factorisation, history = fitted(progress)
    model = Recommender(factorisation).eval()
    held_out = {"user_id": data.test.users[:, np.newaxis], "movie_id": data.test.movies[:, np.newaxis]}
    with torch.inference_mode():
        stars = model(*map(torch.from_numpy, held_out.values())).numpy()[:, 0]
    mean = np.full_like(stars, data.train.stars.mean())
    with tempfile.TemporaryDirectory() as folder:
        return export_torch(
            model,
            held_out,
            outputs=["rating"],
            files={"learning_curve.png": history.draw(Path(folder) / "learning_curve.png")},
            name="movie_recommender",
            repository=repository,
            provenance=Provenance(
                source=__name__,
                data=data.provenance,
                metrics={"rmse": rmse(data.test.stars, stars)},
                baselines={"rmse": rmse(data.test.stars, mean)},
                training=history.to_dict() | {"rmse_of_biases_alone": _rmse_of_biases(data.train, data.test)},
                recipe=recipe,
            ),
        )


def rmse(truth: NDArray[np.float32], given: NDArray[np.float32]) -> float:
    """The root of the mean squared error."""
    return float(np.sqrt(np.mean((truth - given) ** 2)))


def _rmse_of_biases(train_ratings: Ratings, test: Ratings) -> float:
    """What is reached without factors: each user and each movie has one number."""
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), Ridge(alpha=5.0))
    pairs, held_out = (np.column_stack([part.users, part.movies]) for part in (train_ratings, test))
    return rmse(test.stars, model.fit(pairs, train_ratings.stars).predict(held_out))
