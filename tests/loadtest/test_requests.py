"""Requests as columns, and the figures of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tritium.loadtest._figures import figures, knee, latency_curve
from tritium.loadtest._requests import Outcome, Recorder, Requests


def recorded(*rows: tuple[str, Outcome, float, float], errors: tuple[str, ...] = ()) -> Requests:
    recorder = Recorder()
    for model, outcome, due_s, latency_ms in rows:
        recorder.add(model, outcome, due_s=due_s, latency_ms=latency_ms, error=errors[0] if errors else "")
    return Requests.merged([recorder.take()], began_s=7.0)


def test_a_recorder_gives_away_what_it_has_once() -> None:
    recorder = Recorder()
    recorder.add("cnn", Outcome.RIGHT, due_s=1, latency_ms=2, rows=3)
    assert len(Requests.merged([recorder.take()])) == 1
    assert len(Requests.merged([recorder.take()])) == 0


def test_what_several_processes_recorded_is_in_the_order_of_the_times_it_was_due() -> None:
    one, other = Recorder(), Recorder()
    one.add("cnn", Outcome.RIGHT, due_s=3, latency_ms=30)
    one.add("svm", Outcome.RIGHT, due_s=1, latency_ms=10)
    other.add("svm", Outcome.WRONG, due_s=2, latency_ms=20, error="WrongAnswerError: label\nand more")
    merged = Requests.merged([one.take(), other.take()])
    assert merged.due_s.tolist() == [1, 2, 3]
    assert [merged.models[number] for number in merged.model] == ["svm", "svm", "cnn"]
    assert merged.errors == {"WrongAnswerError: label": 1}
    assert merged.of_model("svm").latency_ms.tolist() == [10, 20]
    assert len(merged.of_model("mlp")) == 0
    assert merged.between(1, 3).due_s.tolist() == [1, 2]


def test_requests_come_back_from_their_file_as_they_were(tmp_path: Path) -> None:
    saved = recorded(("cnn", Outcome.FAILED, 0.5, 1.5), errors=("OSError: „weg“",))
    saved.save(tmp_path / "requests.npz")
    loaded = Requests.load(tmp_path / "requests.npz")
    assert (loaded.models, loaded.errors, loaded.began_s) == (("cnn",), {"OSError: „weg“": 1}, 7.0)
    assert all(
        np.array_equal(getattr(loaded, name), getattr(saved, name)) for name in ("due_s", "latency_ms", "outcome")
    )


def test_of_many_kinds_of_errors_the_most_frequent_are_kept() -> None:
    recorder = Recorder()
    for kind in range(80):
        for _ in range(kind + 1):
            recorder.add("cnn", Outcome.FAILED, due_s=0, latency_ms=1, error=f"ValueError: kind {kind}")
    errors = Requests.merged([recorder.take()]).errors
    assert list(errors.items()) == [(f"ValueError: kind {kind}", kind + 1) for kind in range(79, 29, -1)]


def test_figures_are_exact_and_latencies_those_of_right_answers() -> None:
    rows = [("cnn", Outcome.RIGHT, float(place), float(place)) for place in range(1, 101)]
    rows += [("cnn", outcome, 0.0, 5000.0) for outcome in Outcome if outcome is not Outcome.RIGHT]
    found = figures(recorded(*rows), 50.0)
    assert (found.requests, found.right, found.errors) == (104, 100, 4)
    assert (found.wrong, found.rejected, found.timed_out, found.failed) == (1, 1, 1, 1)
    assert [found.p50_ms, found.p99_ms, found.max_ms] == pytest.approx([50.5, 99.01, 100])
    assert found.requests_per_s == found.rows_per_s == 2.0
    assert found.share(found.wrong) == pytest.approx(1 / 104)


def test_figures_of_nothing_are_zero() -> None:
    found = figures(recorded(), 0.0)
    assert (found.requests, found.requests_per_s, found.p99_ms, found.share(0)) == (0, 0.0, 0.0, 0.0)
    assert latency_curve(recorded()) == []


def test_the_curve_ends_where_too_few_requests_lie_beyond() -> None:
    curve = latency_curve(recorded(*(("cnn", Outcome.RIGHT, 0.0, float(place)) for place in range(1000))))
    percents = [percent for percent, _ in curve]
    assert percents == sorted(percents)
    assert percents[0] == 0
    assert 98 < percents[-1] <= 99, "ten of a thousand lie beyond the 99th percentile"
    assert [value for _, value in curve] == sorted(value for _, value in curve)


def levels(*rates: float) -> list[object]:
    return [figures(recorded(*(("cnn", Outcome.RIGHT, 0.0, 1.0) for _ in range(int(rate)))), 1.0) for rate in rates]


@pytest.mark.parametrize(
    ("rates", "place"),
    [((10, 50, 96, 100), 2), ((100, 99, 98), 0), ((1, 2, 4, 8), 3), ((0, 0), None), ((), None)],
)
def test_the_knee_is_the_first_level_with_nearly_the_best_throughput(
    rates: tuple[float, ...], place: int | None
) -> None:
    assert knee(levels(*rates)) == place  # type: ignore[arg-type]
