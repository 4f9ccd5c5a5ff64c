"""What the bench against peers makes of its measurements: medians, verdicts, the page."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from benchmarks.peers._page import BEGIN, END, write
from benchmarks.peers._report import Timing, medians, verdicts

OURS = {"requests_per_s": 200.0, "p50_ms": 1.0, "p99_ms": 2.0, "errors": 0}
THEIRS = {"requests_per_s": 100.0, "p50_ms": 3.0, "p99_ms": 4.0, "errors": 0}


def timings(in_flight: int = 16, *, ours: dict[str, Any] = OURS, theirs: dict[str, Any] = THEIRS) -> list[Timing]:
    return [
        Timing(round=number, protocol="http", model="cnn", in_flight=in_flight, peer=peer, **figures)
        for number in (1, 2, 3)
        for peer, figures in (("native", ours), ("python", ours), ("fastapi_1", theirs), ("litserve", THEIRS))
    ]


def missed(found: list[Timing]) -> list[str]:
    return [f"{verdict.measure} {verdict.best}" for verdict in verdicts(medians(found)) if not verdict.met]


def test_a_cell_has_the_medians_of_the_rounds_and_all_their_errors() -> None:
    rounds = [
        Timing(round=number, protocol="http", model="cnn", in_flight=1, peer="native", requests_per_s=rate, p50_ms=1.0,
               p99_ms=9.0 / rate, errors=number)
        for number, rate in enumerate((100.0, 300.0, 200.0))
    ]  # fmt: skip
    (cell,) = medians(rounds).values()
    assert (cell.requests_per_s, cell.p99_ms, cell.errors) == (200.0, 9.0 / 200, 3)


def test_ahead_of_all_is_ahead() -> None:
    found = verdicts(medians(timings()))
    assert [(verdict.measure, verdict.ratio, verdict.met) for verdict in found] == [
        ("requests_per_s", 2.0, True),
        ("p50_ms", pytest.approx(1 / 3), True),
        ("p99_ms", 0.5, True),
    ]


@pytest.mark.parametrize(("measure", "value"), [("requests_per_s", 300.0), ("p50_ms", 0.5), ("p99_ms", 1.0)])
def test_behind_the_best_of_them_is_not_ahead_and_names_it(measure: str, value: float) -> None:
    assert missed(timings(theirs=THEIRS | {measure: value})) == [f"{measure} fastapi_1"]


def test_as_good_is_not_ahead() -> None:
    assert len(missed(timings(theirs=OURS))) == 3


def test_with_an_error_of_ours_nothing_is_met() -> None:
    assert len(missed(timings(ours=OURS | {"errors": 1}))) == 3


def test_quick_errors_of_a_peer_are_no_latency_to_be_measured_by() -> None:
    assert missed(timings(theirs=THEIRS | {"p50_ms": 0.1, "p99_ms": 0.1, "errors": 9})) == []


def test_where_a_peer_is_ahead_beyond_what_is_asked_for_the_page_says_so_and_notes_stay(tmp_path: Path) -> None:
    document = {
        "date": "2026-05-04",
        "machine": {"cpu": "a processor", "cores": 2, "python": "3.11", "onnxruntime": "1.31"},
        "versions": {},
        "rounds": 3,
        "duration_s": 2,
        "levels": [1, 16],
        "models": ["cnn"],
        "failures": {},
        "ceilings": {"http": {"1": 9000.0, "16": 90000.0}},
        "in_process": {},
        "starts": [],
        "timings": [asdict(item) for item in [*timings(1, theirs=THEIRS | {"p99_ms": 1.0}), *timings(16)]],
    }
    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN}\nwritten by hand\n{END}")
    write(document, verdicts(medians([Timing(**item) for item in document["timings"]])), page)  # type: ignore[attr-defined]
    text = page.read_text()
    assert "It is in 5 of 5." in text
    assert "- cnn, HTTP, 1 in flight: p99 2.00 × that of FastAPI, 1 worker" in text
    assert "written by hand" in text
    assert page.with_suffix(".png").stat().st_size > 10_000
