"""Whether a result is worse than another one, and when that is the noise."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tritium.client import InputError, MissingExtraError
from tritium.loadtest import Comparison, Difference, LoadReport, Stage, compare_reports
from tritium.loadtest._compare import _welch

from .made import report, run


def found(comparison: Comparison, metric: str, level: str = "all") -> Difference:
    (item,) = [item for item in comparison.differences if (item.metric, item.level) == (metric, level)]
    return item


def repeated(suite: str, repeats: int, *, first: int = 0, **changes: Any) -> LoadReport:
    runs = tuple(run(suite, seed=first + number, **changes) for number in range(repeats))
    return LoadReport(runs=runs, verdicts=())


def test_a_slower_server_is_worse_beyond_the_noise_and_a_faster_one_is_better() -> None:
    quick, slow = repeated("smoke", 5, noise=0.03), repeated("smoke", 5, noise=0.03, first=100, speed=0.7)
    worse = compare_reports(quick, slow)
    assert [item.metric for item in worse.worse] == ["requests/s", "p50 ms", "p99 ms"]
    assert not worse.ok
    rate = found(worse, "requests/s")
    assert rate.low is not None
    assert rate.high is not None
    assert rate.low < 0.7 < rate.high
    better = compare_reports(slow, quick)
    assert better.ok
    assert [item.verdict for item in better.differences if item.judged] == ["better", "better", "better", "same"]


def test_the_same_change_within_a_larger_noise_is_unclear() -> None:
    comparison = compare_reports(repeated("smoke", 3, noise=0.3), repeated("smoke", 3, noise=0.3, first=100, speed=0.7))
    assert comparison.ok
    assert found(comparison, "p99 ms").verdict == "unclear"


def test_what_changes_less_than_is_tolerated_is_the_same() -> None:
    a, b = repeated("smoke", 5, noise=0.001), repeated("smoke", 5, noise=0.001, first=100, speed=0.97)
    assert found(compare_reports(a, b), "p50 ms").verdict == "same"
    assert found(compare_reports(a, b, tolerance_percent=0.0), "p50 ms").verdict == "worse"


def test_many_levels_make_a_false_alarm_no_likelier() -> None:
    alarms = 0
    for seed in range(0, 1_200, 6):
        a, b = (repeated("ramp", 3, noise=0.2, first=seed + shift) for shift in (0, 3))
        alarms += not compare_reports(a, b, tolerance_percent=0.0).ok
    assert alarms <= 10  # of 200: one side of 95 %


def test_welchs_interval_is_that_of_the_textbook() -> None:
    # A at 95 %: the means differ by 3, the spread of their difference is 1.2909944, with 5.8823529 degrees of freedom.
    a, b = np.array([1.0, 2.0, 3.0, 4.0]), np.array([3.0, 5.0, 6.0, 8.0])
    low, high = _welch(a, b, 0.95)
    freedom_parts = a.var(ddof=1) / 4, b.var(ddof=1) / 4
    assert (low + high) / 2 == pytest.approx(3.0)
    # Student's t for 5 and for 6 degrees of freedom: 2.571 and 2.447.
    spread = float(np.sqrt(sum(freedom_parts)))
    assert 2.447 * spread < (high - low) / 2 < 2.571 * spread


def test_levels_that_ran_once_are_compared_by_blocks_of_their_seconds_and_that_is_said() -> None:
    stages = [Stage(name="all", duration_s=32.0, users=4)]
    a = repeated("soak", 1, noise=0.03, stages=stages)
    b = repeated("soak", 1, noise=0.03, stages=stages, first=100, speed=0.7)
    comparison = compare_reports(a, b)
    assert comparison.blocks
    assert any("--repeats" in remark for remark in comparison.remarks)
    assert found(comparison, "requests/s").samples_a == 10
    assert found(comparison, "mean batch").a == pytest.approx((40 + 3 * 10) / 50)
    assert found(comparison, "p90 ms").verdict == "unknown"
    assert [item.metric for item in comparison.worse] == ["requests/s", "p50 ms", "p99 ms"]


def test_a_stage_that_was_cut_is_no_sample_and_what_is_wrong_with_a_result_is_said() -> None:
    whole, other = repeated("spike", 3), repeated("spike", 3, first=100)
    cut = replace(other.runs[-1], interrupted=True, everywhere=replace(other.runs[-1].everywhere, wrong=2))
    other = replace(other, runs=(*other.runs[:-1], cut), interrupted=True)
    comparison = compare_reports(whole, other)
    after = next(item for item in comparison.differences if (item.level, item.metric) == ("after", "requests/s"))
    assert (after.samples_a, after.samples_b) == (3, 2)
    assert {"B was interrupted", "B had 2 wrong answers"} <= set(comparison.remarks)


def test_errors_are_compared_by_their_share() -> None:
    def failing(errors: int) -> LoadReport:
        made = repeated("smoke", 3)
        runs = []
        for place, one in enumerate(made.runs):
            (item,) = one.stages
            figures = replace(item.figures, requests=item.figures.requests + errors + place, failed=errors + place)
            runs.append(replace(one, stages=(replace(item, figures=figures),)))
        return replace(made, runs=tuple(runs))

    comparison = compare_reports(repeated("smoke", 3), failing(40))
    (worse,) = comparison.worse
    assert worse.metric == "errors %"
    assert worse.ratio == pytest.approx(100 * 41 / 241, abs=0.1)  # percentage points: there is nothing to divide by
    assert compare_reports(failing(40), failing(40)).ok


def test_a_server_that_answers_nothing_any_more_is_worse() -> None:
    comparison = compare_reports(repeated("smoke", 3, noise=0.05), repeated("smoke", 3, right=False))
    assert [item.metric for item in comparison.worse] == ["requests/s", "errors %"]
    assert found(comparison, "p99 ms").b is None
    assert found(comparison, "p99 ms").verdict == "unknown"


def test_stages_that_are_not_judged_are_shown_and_do_not_count() -> None:
    comparison = compare_reports(repeated("spike", 5, noise=0.02), repeated("spike", 5, noise=0.02, speed=0.5))
    assert {item.level for item in comparison.worse} == {"after"}
    assert found(comparison, "p50 ms", "spike").verdict == "worse"
    assert not found(comparison, "p50 ms", "spike").judged


def test_what_differs_beside_the_server_is_said() -> None:
    few, many = ([Stage(name="all", duration_s=9.0, users=users)] for users in (4, 8))
    b = repeated("soak", 2, stages=many)
    b = replace(b, runs=tuple(replace(one, machine={**one.machine, "cpus": 64}, models={}) for one in b.runs))
    remarks = compare_reports(repeated("soak", 2, stages=few), b).remarks
    assert "all was 4 users in A and 8 users in B" in remarks
    assert "A was about digits_cnn, B about no model" in remarks
    assert "cpus was 2 in A and 64 in B" in remarks


def test_only_levels_of_both_are_compared() -> None:
    one, two = ([Stage(name=name, duration_s=5.0, users=1) for name in names] for names in ("xy", "yz"))
    comparison = compare_reports(repeated("ramp", 2, stages=one), repeated("ramp", 2, stages=two))
    assert {item.level for item in comparison.differences} == {"y"}
    assert {"only A has x", "only B has z"} <= set(comparison.remarks)


def test_the_json_says_whether_it_is_worse_and_in_what() -> None:
    slow = repeated("smoke", 4, noise=0.02, first=50, speed=0.5)
    document = json.loads(
        json.dumps(compare_reports(repeated("smoke", 4, noise=0.02), slow).to_json(), allow_nan=False)
    )
    assert document["ok"] is False
    assert [item["metric"] for item in document["worse"]] == ["requests/s", "p50 ms", "p99 ms"]
    assert document["tolerance_percent"] == 5.0


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (report("smoke"), report("mixed"), "A is of 'smoke', B of 'mixed'"),
        (
            repeated("ramp", 1, stages=[Stage(name="x", duration_s=5.0, users=1)]),
            repeated("ramp", 1, stages=[Stage(name="y", duration_s=5.0, users=1)]),
            "A has the levels x, B has y: none is in both",
        ),
        (
            repeated("smoke", 1, stages=[Stage(name="all", duration_s=2.0, users=1)]),
            repeated("smoke", 3, stages=[Stage(name="all", duration_s=2.0, users=1)]),
            "Nothing is known of the noise",
        ),
    ],
    ids=["suites", "levels", "noise"],
)
def test_what_cannot_be_compared_is_refused(a: LoadReport, b: LoadReport, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compare_reports(a, b)


@pytest.mark.parametrize(
    "arguments",
    [{"tolerance_percent": -1.0}, {"confidence_percent": 100.0}, {"tolerance_percent": float("nan")}],
    ids=str,
)
def test_arguments_out_of_range_are_refused_with_what_is_valid(arguments: dict[str, float]) -> None:
    with pytest.raises(InputError, match=rf"The '{next(iter(arguments))}' parameter must be"):
        compare_reports(report("smoke"), report("smoke"), **arguments)


def test_a_missing_scipy_is_named_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    with pytest.raises(MissingExtraError, match=r"'scipy'.*tritium\[loadtest\]"):
        compare_reports(repeated("smoke", 3, noise=0.1), repeated("smoke", 3, noise=0.1))
