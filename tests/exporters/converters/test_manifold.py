from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sklearn.manifold import Isomap, LocallyLinearEmbedding

from tritium.exporters import ConversionError, export_sklearn

from .same import WINE, assert_same, quiet


@pytest.mark.parametrize("given", [{}, {"n_neighbors": 8, "n_components": 3}, {"metric": "manhattan"}], ids=str)
def test_new_rows_are_embedded_by_the_shortest_paths(given: dict[str, Any], tmp_path: Path) -> None:
    with quiet():
        model = Isomap(**given).fit(WINE[::2])
    assert_same(model, WINE[1::2], tmp_path, {"transformed"}, atol=1e-3)


@pytest.mark.parametrize("neighbours", [4, 9])
def test_new_rows_are_embedded_as_mixtures_of_their_neighbours(neighbours: int, tmp_path: Path) -> None:
    model = LocallyLinearEmbedding(n_neighbors=neighbours, random_state=0, eigen_solver="dense").fit(WINE[::2])
    assert_same(model, WINE[1::2], tmp_path, {"transformed"})


def test_neighbours_within_a_radius_are_refused(tmp_path: Path) -> None:
    with quiet():
        model = Isomap(n_neighbors=None, radius=5.0).fit(WINE)
    with pytest.raises(ConversionError, match=r"set n_neighbors, not radius"):
        export_sklearn(model, WINE[:9], name="x", repository=tmp_path)
