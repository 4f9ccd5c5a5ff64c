from __future__ import annotations

from pathlib import Path

import pytest
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier

from .same import GROWERS, WINE, assert_same

VOTERS = [("linear", LogisticRegression(max_iter=1000)), ("bayes", GaussianNB()), ("near", KNeighborsClassifier(3))]


@pytest.mark.parametrize("weights", [None, [1, 2, 3]])
@pytest.mark.parametrize("voting", ["hard", "soft"])
def test_votes_are_counted_the_same(voting: str, weights: list[int] | None, tmp_path: Path) -> None:
    model = VotingClassifier(VOTERS, voting=voting, weights=weights).fit(WINE[::2], GROWERS[::2])
    assert_same(model, WINE[1::2], tmp_path, {"label", "probabilities"} if voting == "soft" else {"label"})
