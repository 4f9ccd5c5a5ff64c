from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.preprocessing import TargetEncoder

from .same import HELD_OUT, IRIS, IRISES, KINDS, assert_same

WORDS = np.column_stack([IRISES, np.where(IRIS[:, 1] > 3, "wide", "narrow")]).astype(object)
NUMBERS = np.round(IRIS[:, :2])


@pytest.mark.parametrize("rows", [WORDS, NUMBERS], ids=["words", "numbers"])
@pytest.mark.parametrize("target", ["two classes", "three classes", "numbers"])
def test_categories_are_encoded_by_the_same_means(rows: Any, target: str, tmp_path: Path) -> None:
    targets = {"two classes": KINDS == 1, "three classes": KINDS, "numbers": IRIS[:, 3] / 7}[target]
    model = TargetEncoder(random_state=0).fit(rows[~HELD_OUT], targets[~HELD_OUT])
    assert_same(model, rows[HELD_OUT], tmp_path, {"transformed"})


def test_what_was_never_seen_becomes_the_mean_of_all(tmp_path: Path) -> None:
    model = TargetEncoder(random_state=0).fit(WORDS, KINDS)
    rows = WORDS[:10].copy()
    rows[:3, 0] = "unknown"
    assert_same(model, rows, tmp_path, {"transformed"})
