from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import AffinityPropagation, Birch, BisectingKMeans, FeatureAgglomeration, KMeans, MeanShift
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from tritium.exporters import ConversionError, export_sklearn

from .same import GROWERS, WINE, assert_same


@pytest.mark.parametrize(
    ("model", "outputs"),
    [
        (AffinityPropagation(random_state=0), {"label"}),
        (MeanShift(), {"label"}),
        (Birch(n_clusters=4), {"label", "distances"}),
        (BisectingKMeans(5, random_state=0), {"label", "distances"}),
        (KMeans(3, n_init=1, random_state=0), {"label", "distances"}),
    ],
    ids=lambda given: " ".join(sorted(given)) if isinstance(given, set) else str(given),
)
def test_rows_come_into_the_same_cluster(model: Any, outputs: set[str], tmp_path: Path) -> None:
    assert_same(model.fit(WINE[::2]), WINE[1::2], tmp_path, outputs)


@pytest.mark.parametrize(
    "step", [Birch(n_clusters=4), BisectingKMeans(5, random_state=0), KMeans(3, n_init=1)], ids=str
)
def test_a_step_before_the_last_gives_distances(step: Any, tmp_path: Path) -> None:
    model = make_pipeline(step, LogisticRegression(max_iter=1000)).fit(WINE[::2], GROWERS[::2])
    assert_same(model, WINE[1::2], tmp_path, {"label", "probabilities"})


def test_features_of_a_group_become_their_mean(tmp_path: Path) -> None:
    assert_same(FeatureAgglomeration(4).fit(WINE[::2]), WINE[1::2], tmp_path, {"transformed"})


def test_features_pooled_otherwise_are_refused(tmp_path: Path) -> None:
    model = FeatureAgglomeration(4, pooling_func=np.max).fit(WINE)
    with pytest.raises(ConversionError, match=r"if its pooling_func is numpy\.mean"):
        export_sklearn(model, WINE[:9], name="x", repository=tmp_path)
