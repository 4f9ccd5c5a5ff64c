"""A few mutations, as the command has them by the hundred: what the server refuses or misreads, lint finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tritium.repository.lint import lint

from .__main__ import page
from .judging import Judgement, judge
from .kinds import make
from .subjects import Subject, subjects

SEED = 0
COUNT = 40


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Subject]:
    """The models that need no zoo."""
    return subjects(tmp_path_factory.mktemp("subjects"), Path("/nonexistent"))


@pytest.fixture(scope="module")
def judgements(made: list[Subject], tmp_path_factory: pytest.TempPathFactory) -> list[Judgement]:
    """What came of them."""
    return list(judge(range(COUNT), SEED, made, tmp_path_factory.mktemp("mutants")))


def test_subjects_are_good(made: list[Subject]) -> None:
    assert len(made) == 4
    assert lint(made[0].folder.parent) == []


def test_number_always_gives_the_same_mutant(made: list[Subject], tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    for number in range(20):
        one, other = (make(number, SEED, made, tmp_path / name) for name in ("one", "other"))
        assert str(one) == str(other)
        files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one" / one.name).rglob("*"))
        for path in files:
            if (tmp_path / "one" / path).is_file():
                assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "other" / path).read_bytes()


def test_mutants_are_refused_or_misread_and_found(judgements: list[Judgement]) -> None:
    bad = [judgement for judgement in judgements if judgement.outcome != "good"]
    assert len(judgements) == COUNT
    assert {"good", "refused"} <= {judgement.outcome for judgement in judgements}
    assert len(bad) > COUNT / 3
    assert [str(judgement.mutation) for judgement in bad if judgement.missed] == []


def test_page_counts_what_came_of_them(judgements: list[Judgement]) -> None:
    text = page(judgements, SEED, ["a", "b"])
    bad = sum(judgement.outcome != "good" for judgement in judgements)
    assert f"{COUNT} random mutations" in text
    assert f"\n{bad} of the mutants were refused" in text
    assert "missed **0**" in text
