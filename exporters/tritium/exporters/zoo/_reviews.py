"""Sentences from movie reviews, each with the mean of what many readers thought of it, as the text models use them.

The snippets are those of C.J. Hutto and E. Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of
Social Media Text" (ICWSM 2014), as they lie in the source distribution of the package vaderSentiment (MIT licence):
Rotten Tomatoes sentences after Pang and Lee, rated by people from -4 (very negative) to 4 (very positive).
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._fetch import Package, fetch

LABELS = ["negative", "positive"]
PACKAGE = Package(
    "vaderSentiment",
    "3.3.2",
    "vaderSentiment-3.3.2.tar.gz",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    2_466_783,
)
_ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
_MEMBER = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
_HELD_OUT_ROWS = 2000
# Sentences that readers do not agree on, or find neither good nor bad, are no example of either class.
NEUTRAL = 0.5


@dataclass(frozen=True)
class Reviews:
    """Sentences (UTF-8, one to some fifty words) and what was made of them.

    Attributes:
        train_texts: of shape (rows,), strings as objects.
        train_targets: of shape (rows,): mean ratings from -4 to 4 as float32; for `sentiments`, 0 for negative and 1
            for positive as int64.
        test_texts: held out; none of them is among `train_texts`.
        test_targets: as `train_targets`.
        provenance: for the manifest.
    """

    train_texts: NDArray[np.object_]
    train_targets: NDArray[Any]
    test_texts: NDArray[np.object_]
    test_targets: NDArray[Any]
    provenance: dict[str, Any]


@cache
def load(progress: Callable[[str], None] = print) -> Reviews:
    """All sentences with their mean ratings, in a fixed random split.

    Raises:
        DataError: the data cannot be fetched; the message says what to do.
    """
    from sklearn.model_selection import train_test_split

    with tarfile.open(fileobj=io.BytesIO(fetch(PACKAGE, progress))) as package:
        inner = _member(package, _ARCHIVE)
    with tarfile.open(fileobj=io.BytesIO(inner)) as archive:
        lines = _member(archive, _MEMBER).decode("utf-8").splitlines()
    # A sentence that is there twice must not be on both sides of the split.
    ratings = {text: float(rating) for _, rating, text in (line.split("\t") for line in lines)}
    texts = np.array(list(ratings), dtype=object)
    values = np.array(list(ratings.values()), dtype=np.float32)
    train_texts, test_texts, train_targets, test_targets = train_test_split(
        texts, values, test_size=_HELD_OUT_ROWS, random_state=0
    )
    return Reviews(
        train_texts,
        train_targets,
        test_texts,
        test_targets,
        {
            "name": "movie review sentences (VADER, ICWSM 2014)",
            "package": f"{PACKAGE.project} {PACKAGE.version}",
            "licence": "MIT",
            "train_rows": len(train_texts),
            "held_out_rows": len(test_texts),
            "sha256": PACKAGE.sha256,
        },
    )


def sentiments(progress: Callable[[str], None] = print) -> Reviews:
    """The same sentences in the same split as positive or negative, without those rated within 0.5 of 0.

    Raises:
        DataError: the data cannot be fetched; the message says what to do.
    """
    reviews = load(progress)
    train, test = (np.abs(targets) >= NEUTRAL for targets in (reviews.train_targets, reviews.test_targets))
    return replace(
        reviews,
        train_texts=reviews.train_texts[train],
        train_targets=(reviews.train_targets[train] > 0).astype(np.int64),
        test_texts=reviews.test_texts[test],
        test_targets=(reviews.test_targets[test] > 0).astype(np.int64),
        provenance=reviews.provenance
        | {
            "train_rows": int(train.sum()),
            "held_out_rows": int(test.sum()),
            "classes": f"negative below -{NEUTRAL}, positive above {NEUTRAL}; sentences rated between are left out",
        },
    )


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise ValueError(f"{name} is no file")
    with file:
        return file.read()
