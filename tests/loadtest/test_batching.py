"""Dynamic batching on and off: what each side formed, and that nothing is left of the comparison."""

from __future__ import annotations

from pathlib import Path

import pytest

from tritium.client import InputError
from tritium.loadtest import BatchingResult, _batching, compare_batching
from tritium.repository import Repository

MODEL = "digits_cnn"
USERS = 8


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="module")
def sides(zoo: Repository, scratch: Path) -> tuple[BatchingResult, BatchingResult]:
    """One round, with every temporary file where it can be looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(scratch))
        patch.setenv("TMPDIR", str(scratch))
        return compare_batching(zoo, MODEL, users=USERS, duration_s=2, rounds=1)


def test_every_answer_of_both_sides_was_right(sides: tuple[BatchingResult, BatchingResult]) -> None:
    assert [side.batching for side in sides] == [True, False]
    assert [len(side.rounds) for side in sides] == [1, 1]
    assert all(result.ok and result.users == USERS for side in sides for result in side.rounds)


def test_off_ran_every_row_alone_and_on_ran_some_together(sides: tuple[BatchingResult, BatchingResult]) -> None:
    on, off = sides
    assert list(off.batch_sizes) == [1]
    assert off.mean_batch_size == 1
    assert max(on.batch_sizes) > 1
    assert 1 < on.mean_batch_size <= USERS
    # Each user has one row under way, so no batch can hold more rows than there are users.
    assert max(on.batch_sizes) <= USERS


def test_the_rows_that_the_server_ran_are_the_requests_that_were_sent(
    sides: tuple[BatchingResult, BatchingResult],
) -> None:
    for side in sides:
        rows = sum(size * runs for size, runs in side.batch_sizes.items())
        requests = sum(result.requests for result in side.rounds)
        # Asking for metadata runs nothing, and neither does starting. But when the time is over each user may have one
        # request under way, which the server still runs and nobody counts.
        assert requests <= rows <= requests + USERS


def test_the_medians_are_those_of_the_only_round(sides: tuple[BatchingResult, BatchingResult]) -> None:
    for side in sides:
        (only,) = side.rounds
        assert (side.requests_per_s, side.p50_ms, side.p99_ms) == (only.requests_per_s, only.p50_ms, only.p99_ms)


@pytest.mark.usefixtures("sides")
def test_nothing_is_left_in_the_folder_for_temporary_files(scratch: Path) -> None:
    assert list(scratch.iterdir()) == []


def test_the_repository_itself_is_only_read(zoo: Repository, sides: tuple[BatchingResult, BatchingResult]) -> None:
    assert all(side.rounds for side in sides)
    assert zoo.config(MODEL).HasField("dynamic_batching"), "the comparison switches it off in a copy"


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"protocol": "htp"}, "'protocol'.*'htp'"), ({"rounds": 0}, "rounds?.*0"), ({"users": 0}, "user.*0")],
    ids=["protocol", "rounds", "users"],
)
def test_what_cannot_be_compared_is_refused_before_a_server_starts(
    zoo: Repository, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], message: str
) -> None:
    def unexpected(*_: object) -> None:
        raise AssertionError("a server was started")

    monkeypatch.setattr(_batching, "TritonServer", unexpected)
    with pytest.raises(InputError, match=message):
        compare_batching(zoo, MODEL, **({"duration_s": 1.0, "rounds": 1, "users": 1} | changes))  # type: ignore[arg-type]


def test_an_unknown_model_is_refused_with_the_closest(zoo: Repository) -> None:
    with pytest.raises(InputError, match=r"no model 'digits_cnm'.*Did you mean 'digits_cnn'\?"):
        compare_batching(zoo, "digits_cnm", rounds=1, duration_s=1)
