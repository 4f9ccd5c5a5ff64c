from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sklearn.semi_supervised import LabelPropagation, LabelSpreading

from .same import HELD_OUT, IRIS, KINDS, assert_same, quiet


@pytest.mark.parametrize("learner", [LabelPropagation, LabelSpreading])
@pytest.mark.parametrize("given", [{"gamma": 5}, {"kernel": "knn", "n_neighbors": 6}], ids=str)
def test_labels_spread_to_the_same_rows(learner: Any, given: dict[str, Any], tmp_path: Path) -> None:
    known = KINDS[~HELD_OUT].copy()
    known[::4] = -1
    with quiet():
        model = learner(**given).fit(IRIS[~HELD_OUT], known)
    assert_same(model, IRIS[HELD_OUT], tmp_path, {"label", "probabilities"})
