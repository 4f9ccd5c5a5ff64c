"""What a run came to: its stages, its seconds, its file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tritium.client import InputError
from tritium.loadtest import LoadReport, LoadResult, Stage, Verdict
from tritium.loadtest._observer import Look
from tritium.loadtest._plan import Plan
from tritium.loadtest._requests import Outcome, Recorder, Requests
from tritium.loadtest._result import result_of

STAGES = (
    Stage(name="few", duration_s=2.0, users=1, judged=False),
    Stage(name="many", duration_s=2.0, users=8),
)


def requests(*rows: tuple[float, float, Outcome], model: str = "cnn") -> Requests:
    recorder = Recorder()
    for due_s, latency_ms, outcome in rows:
        recorder.add(model, outcome, due_s=due_s, latency_ms=latency_ms, error="" if not outcome else outcome.name)
    return Requests.merged([recorder.take()], began_s=1000.0)


def evenly(until_s: float, rate: float, latency_ms: float, begin_s: float = 0.0) -> list[tuple[float, float, Outcome]]:
    count = round((until_s - begin_s) * rate)
    return [(begin_s + place / rate, latency_ms, Outcome.RIGHT) for place in range(count)]


def looks(*memory_mb: float) -> list[Look]:
    return [
        Look(1000.0 + at_s, {"cnn": {"requests": 10 * at_s, "rows": 20 * at_s, "executions": 5 * at_s}}, 0.5 * at_s,
             int(size * 1e6), 2)
        for at_s, size in enumerate(memory_mb)
    ]  # fmt: skip


def result(found: Requests, seen: Sequence[Look] = (), *, find_knee: bool = False) -> LoadResult:
    return result_of("smoke", "http://127.0.0.1:8000", Plan(STAGES), found, seen, find_knee=find_knee)


def test_the_begin_of_each_stage_is_in_no_figure() -> None:
    slow = [(0.1, 900.0, Outcome.RIGHT), (2.1, 900.0, Outcome.RIGHT)]
    run = result(requests(*slow, *evenly(4.0, 10, 1.0)))
    assert [item.figures.max_ms for item in run.stages] == [1.0, 1.0]
    assert [item.figures.requests_per_s for item in run.stages] == [pytest.approx(10, abs=1)] * 2
    assert run.everywhere.max_ms == 900.0


def test_only_judged_stages_are_judged_but_everything_is_counted() -> None:
    run = result(requests((1.0, 5.0, Outcome.WRONG), *evenly(4.0, 10, 1.0, begin_s=2.0)))
    assert (run.judged.wrong, run.everywhere.wrong) == (0, 1)
    assert run.models["cnn"].requests == run.judged.requests
    assert run.errors == {"WRONG": 1}


def test_in_a_ramp_the_knee_is_judged() -> None:
    run = result(requests(*evenly(2.0, 100, 1.0), *evenly(4.0, 100, 50.0, begin_s=2.0)), find_knee=True)
    assert run.knee == "few"
    assert run.judged.p50_ms == 1.0


def test_each_second_has_both_sides() -> None:
    run = result(requests((0.5, 7.0, Outcome.FAILED), *evenly(4.0, 10, 2.0)), looks(50, 50, 51, 52, 53))
    assert [second.at_s for second in run.timeline] == [0, 1, 2, 3]
    first = run.timeline[0]
    assert (first.right, first.errors, first.p50_ms) == (10, 1, 2.0)
    assert [second.cpu_percent for second in run.timeline] == [pytest.approx(50)] * 4
    assert [second.memory_mb for second in run.timeline] == [50, 51, 52, 53]
    assert run.work["cnn"].requests == 40
    assert run.stages[1].work is not None
    assert run.stages[1].work.mean_batch_size == 4.0


def test_the_rise_of_memory_leaves_the_warm_up_out() -> None:
    assert result(requests(*evenly(4.0, 1, 1.0)), looks(10, 100, 100, 100, 110)).memory_rise_percent == pytest.approx(
        10
    )
    assert result(requests(*evenly(4.0, 1, 1.0))).memory_rise_percent is None


def test_a_late_load_generator_is_remarked_on() -> None:
    recorder = Recorder()
    for place in range(100):
        recorder.add("cnn", Outcome.RIGHT, due_s=2.5 + place / 100, latency_ms=60, late_ms=50)
    (remark,) = result(Requests.merged([recorder.take()])).remarks
    assert "sent 50 ms late or later" in remark


def test_a_run_that_was_cut_has_the_figures_of_its_time_and_is_not_good() -> None:
    found = replace(requests(*evenly(4.0, 10, 1.0)), cut_s=3.0)
    run = result(found)
    assert run.interrupted
    assert run.remarks == ("the run was interrupted after 3.0 of 4 s",)
    assert [item.stage.duration_s for item in run.stages] == [2.0, 1.0]
    assert run.everywhere.requests == 30
    assert run.judged.requests_per_s == pytest.approx(10, abs=1)
    assert len(run.timeline) == 3
    assert not LoadReport(runs=(run,), verdicts=()).ok


def test_a_run_that_was_cut_before_anything_is_judged_has_no_figures_to_judge() -> None:
    run = result(replace(requests(*evenly(4.0, 10, 1.0)), cut_s=1.0))
    assert (run.judged.requests, run.judged.requests_per_s) == (0, 0.0)
    assert run.everywhere.requests == 10


def test_a_run_without_requests_is_not_good_whatever_the_objectives_say() -> None:
    run = result(requests())
    assert run.remarks == ("no request was answered, or failed, in the whole run",)
    assert not LoadReport(runs=(run,), verdicts=()).ok


def report(*verdicts: Verdict, repeats: int = 1) -> LoadReport:
    run = result(requests((1.0, 5.0, Outcome.WRONG), *evenly(4.0, 10, 1.5)), looks(50, 50, 51, 52, 53))
    return LoadReport(runs=(run,) * repeats, verdicts=verdicts)


def test_a_report_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    saved = report(Verdict("p99<25ms", True, 1.5, "1.5 ms"), repeats=2)
    saved.save(tmp_path / "result.json")
    assert LoadReport.load(tmp_path / "result.json") == saved
    assert list(tmp_path.iterdir()) == [tmp_path / "result.json"]


def test_its_json_has_the_verdict_and_rates_and_nothing_that_json_has_not() -> None:
    document = json.loads(json.dumps(report(Verdict("wrong=0", False, 1, "1")).to_json(), allow_nan=False))
    assert (document["suite"], document["ok"], document["format"]) == ("smoke", False, 1)
    assert document["runs"][0]["stages"][1]["figures"]["requests_per_s"] == pytest.approx(10, abs=1)


def test_the_rounds_of_a_level_are_all_stages_of_its_name_in_all_runs() -> None:
    levels = report(repeats=3).levels
    assert [(level.name, level.load, len(level.rounds)) for level in levels] == [
        ("few", "1 user", 3),
        ("many", "8 users", 3),
    ]
    assert levels[1].median("p50_ms") == 1.5
    assert levels[1].work is not None
    assert levels[1].work.requests == 60


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "is no result of `tritium load`: KeyError: 'format'"),
        ("[]", "is no result of `tritium load`"),
        ("no json", "is no result of `tritium load`"),
        ('{"format": 99}', "has the form 99; this version reads 1"),
        ('{"format": 1, "verdicts": [], "runs": [{}]}', "is no result of `tritium load`"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "result.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        LoadReport.load(tmp_path / "result.json")


def test_a_report_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        LoadReport.load(tmp_path / "none.json")
