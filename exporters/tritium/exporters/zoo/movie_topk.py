"""The ten movies that a user would like best, by the factors of `movie_recommender`: a user's id in, movies out."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import nn

from tritium.repository import Published, Repository, Tolerance

from .._export import Provenance
from .._onnx import OPSET, export_onnx, join_onnx
from .._torch import torch_to_onnx
from ._movielens import Ratings, load
from ._registry import Progress
from .movie_recommender import Factorisation, fitted

if TYPE_CHECKING:
    from onnx import ModelProto

_K = 10
# What hardly anybody has rated is not recommended.
_LEAST_RATINGS = 5
_LIKED_STARS = 4.0
# The metric: of so many held-out ratings of a user at least, so many are put first.
_LEAST_HELD_OUT, _FIRST = 6, 3


class TopK(nn.Module):
    """The best of what a user has not rated; who is not known is given what the average user would like."""

    def __init__(self, factorisation: Factorisation, ratings: Ratings) -> None:
        super().__init__()
        self.factorisation = factorisation
        users, movies = (
            places(torch.from_numpy(ids)).numpy()
            for places, ids in (
                (factorisation.user_places, ratings.users),
                (factorisation.movie_places, ratings.movies),
            )
        )
        rows = np.flatnonzero(np.bincount(movies) >= _LEAST_RATINGS)
        rated = np.zeros((len(factorisation.user_places), len(factorisation.movie_places)), bool)
        rated[users, movies] = True
        self.rows: torch.Tensor
        self.movie_ids: torch.Tensor
        self.rated: torch.Tensor
        self.register_buffer("rows", torch.from_numpy(rows))
        self.register_buffer("movie_ids", torch.from_numpy(factorisation.movie_places.known[rows - 1]))
        self.register_buffer("rated", torch.from_numpy(rated[:, rows]))

    def scores(self, users: torch.Tensor) -> torch.Tensor:
        """From rows of users, of shape (rows,), to the stars of every movie that may be recommended."""
        model = self.factorisation
        products = model.users(users) @ model.movies(self.rows).T
        stars: torch.Tensor = model.mean + model.user_bias(users) + model.movie_bias(self.rows).T + products
        return stars

    def forward(self, user_id: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """From MovieLens's ids, int64 of shape (rows, 1), to (rows, 10) movie ids and stars, the best first.

        The stars go beyond 5 where that is what the factorisation says, so that their order can be seen.
        """
        users = self.factorisation.user_places(user_id)[:, 0]
        stars, best = self.scores(users).masked_fill(self.rated[users], -torch.inf).topk(_K)
        return self.movie_ids[best], stars


def export(repository: Repository, recipe: str, progress: Progress) -> Published:
    """Measure on the held-out ratings, publish."""
    data = load(progress)
    factorisation, history = fitted(progress)
    model = TopK(factorisation, data.train).eval()
    # An id that nobody has goes with them.
    user_ids = np.array([0, *factorisation.user_places.known])[:, np.newaxis]
    with torch.inference_mode():
        movie_ids, stars = (tensor.numpy() for tensor in model(torch.from_numpy(user_ids)))
        every_user = model.scores(torch.arange(len(factorisation.user_places))).numpy()
    titles = {int(movie): data.titles[int(movie)] for movie in model.movie_ids}
    ranked = torch_to_onnx(model, {"user_id": user_ids}, ["best_ids", "scores"])
    popular = np.broadcast_to(model.rated.numpy().sum(axis=0), every_user.shape)
    with tempfile.TemporaryDirectory() as folder:
        return export_onnx(
            join_onnx(ranked, _titles_to_onnx(titles), {"best_ids": "best_ids"}),
            {"user_id": user_ids},
            {
                "movie_ids": movie_ids,
                "titles": np.array([[titles[movie] for movie in row] for row in movie_ids.tolist()], dtype=object),
                "scores": stars,
            },
            files={"learning_curve.png": history.draw(Path(folder) / "learning_curve.png")},
            name="movie_topk",
            repository=repository,
            # Two movies whose stars differ in the last bit may change places.
            tolerance=Tolerance(atol=1e-5, agreement=0.99),
            provenance=Provenance(
                source=__name__,
                data=data.provenance,
                metrics={"precision_at_3": _precision(every_user, model, data.test)},
                baselines={"precision_at_3": _precision(popular, model, data.test)},
                training=history.to_dict(),
                recipe=recipe,
            ),
            frameworks=("torch", "onnxscript"),
        )


def _precision(scores: NDArray[np.floating], model: TopK, held_out: Ratings) -> float:
    """Of a user's held-out movies, three are put first: the share of those that the user liked, over all users.

    Only movies that the user has rated can be judged: whether a user would have liked any other, nobody knows. The
    baseline, which puts those first that most people have rated, is better at guessing what a user *will* rate.

    Args:
        scores: of shape (users, movies), the rows and columns of `model`.
        model: what the scores are of.
        held_out: the ratings to judge by.
    """
    places = model.factorisation
    columns = np.full(len(places.movie_places), -1)
    columns[model.rows.numpy()] = np.arange(len(model.rows))
    users = places.user_places(torch.from_numpy(held_out.users)).numpy()
    movies = columns[places.movie_places(torch.from_numpy(held_out.movies)).numpy()]
    shares = []
    for user in range(1, len(scores)):
        judged = np.flatnonzero((users == user) & (movies >= 0))
        if len(judged) >= _LEAST_HELD_OUT:
            first = np.argsort(-scores[user, movies[judged]], kind="stable")[:_FIRST]
            shares.append(np.mean(held_out.stars[judged[first]] >= _LIKED_STARS))
    return float(np.mean(shares))


def _titles_to_onnx(titles: dict[int, str]) -> ModelProto:
    """From the ids of the best movies to the same ids and their titles."""
    nodes = [
        helper.make_node("Identity", ["best_ids"], ["movie_ids"]),
        helper.make_node(
            "LabelEncoder",
            ["best_ids"],
            ["titles"],
            domain="ai.onnx.ml",
            keys_int64s=list(titles),
            values_strings=list(titles.values()),
            default_string="",
        ),
    ]
    shape: list[str | int | None] = ["batch", _K]
    graph = helper.make_graph(
        nodes,
        "titles",
        [helper.make_tensor_value_info("best_ids", TensorProto.INT64, shape)],
        [
            helper.make_tensor_value_info("movie_ids", TensorProto.INT64, shape),
            helper.make_tensor_value_info("titles", TensorProto.STRING, shape),
        ],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", 2)]
    model: ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return model
