"""What a load test measured, as numbers and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tritium.loadtest import BatchingResult, LoadResult
from tritium.loadtest._result import percentile_ms


def result(**changes: object) -> LoadResult:
    values: dict[str, object] = {
        "suite": "smoke",
        "url": "http://127.0.0.1:8000",
        "users": 4,
        "duration_s": 2.0,
        "requests": 100,
        "failures": 0,
        "wrong": 0,
        "p50_ms": 1.25,
        "p99_ms": 4.5,
    }
    return LoadResult(**(values | changes))  # type: ignore[arg-type]


def test_a_result_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    saved = result(failures=2, wrong=1, errors={"WrongAnswerError: label": 1, "ServerBusyError: „voll“": 1})
    saved.save(tmp_path / "result.json")
    assert LoadResult.load(tmp_path / "result.json") == saved


def test_the_json_of_a_result_has_its_fields_and_its_verdict() -> None:
    measured = result(failures=20, wrong=5, errors={"x": 20})
    document = json.loads(json.dumps(measured.to_json(), allow_nan=False))
    assert document == {
        "suite": "smoke",
        "url": "http://127.0.0.1:8000",
        "users": 4,
        "duration_s": 2.0,
        "requests": 100,
        "failures": 20,
        "wrong": 5,
        "p50_ms": 1.25,
        "p99_ms": 4.5,
        "errors": {"x": 20},
        "requests_per_s": 40.0,
        "ok": False,
    }


@pytest.mark.parametrize(
    ("changes", "ok", "requests_per_s"),
    [
        ({}, True, 50.0),
        ({"failures": 1}, False, 49.5),
        ({"requests": 0, "duration_s": 0.0}, False, 0.0),
        ({"requests": 3, "failures": 3}, False, 0.0),
    ],
)
def test_a_run_is_good_if_there_were_answers_and_all_were_right(
    changes: dict[str, object], ok: bool, requests_per_s: float
) -> None:
    assert result(**changes).ok is ok
    assert result(**changes).requests_per_s == requests_per_s


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1.0), (50, 50.5), (99, 99.01), (100, 100.0)], ids=lambda value: str(value)
)
def test_percentiles_are_exact(percent: float, expected: float) -> None:
    assert percentile_ms([float(value) for value in range(100, 0, -1)], percent) == pytest.approx(expected)


def test_the_percentile_of_no_latencies_is_zero() -> None:
    assert percentile_ms([], 99) == 0.0


def test_a_side_of_the_comparison_gives_medians_and_the_mean_batch() -> None:
    rounds = [
        result(requests=requests, p50_ms=p50, p99_ms=9 * p50) for requests, p50 in ((20, 3.0), (80, 1.0), (50, 2.0))
    ]
    side = BatchingResult(True, rounds, {1: 6, 2: 1, 8: 3})
    assert (side.requests_per_s, side.p50_ms, side.p99_ms) == (25.0, 2.0, 18.0)
    assert side.mean_batch_size == pytest.approx((6 + 2 + 24) / 10)


def test_a_side_whose_model_never_ran_has_no_mean_batch() -> None:
    assert BatchingResult(False, [result()], {}).mean_batch_size == 0.0
