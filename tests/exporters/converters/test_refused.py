from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import NMF, LatentDirichletAllocation
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from tritium.exporters import ConversionError, export_sklearn

from .same import IRIS, quiet


@pytest.mark.parametrize(
    ("model", "way"),
    [
        (NMF(2, init="nndsvda"), "use TruncatedSVD or PCA"),
        (LatentDirichletAllocation(2, max_iter=2), "use TruncatedSVD"),
    ],
    ids=["NMF", "LDA"],
)
def test_what_has_no_graph_is_refused_with_what_has(model: Any, way: str, tmp_path: Path) -> None:
    with quiet():
        model.fit(IRIS)
    with pytest.raises(ConversionError, match=f"{type(model).__name__} has no graph: .*{way}"):
        export_sklearn(model, IRIS[:9], name="x", repository=tmp_path)


def test_a_step_without_a_graph_is_named(tmp_path: Path) -> None:
    texts = np.array(["good", "bad", "very good", "very bad"], dtype=object)
    model = make_pipeline(HashingVectorizer(n_features=8), LogisticRegression()).fit(texts, [1, 0, 1, 0])
    with pytest.raises(ConversionError, match=r"HashingVectorizer has no graph.*TfidfVectorizer"):
        export_sklearn(model, texts, name="x", repository=tmp_path)
