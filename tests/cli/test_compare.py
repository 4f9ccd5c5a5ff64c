"""`tritium compare`, and the report that `tritium load` writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tritium.loadtest import LoadReport
from tritium.repository import Repository
from tritium.server import TritonServer

from ..loadtest.made import report

Run = Callable[..., Result]


@pytest.fixture
def results(tmp_path: Path) -> dict[str, Path]:
    """Files of made results: of a server, of one half as fast, and of another suite."""
    made = {
        "fast": report("smoke", repeats=4, noise=0.02),
        "slow": report("smoke", repeats=4, noise=0.02, speed=0.5),
        "other": report("mixed", repeats=4, noise=0.02),
        "once": report("mixed", noise=0.02),
    }
    for name, item in made.items():
        item.save(tmp_path / f"{name}.json")
    return {name: tmp_path / f"{name}.json" for name in made}


def test_a_worse_result_is_exit_code_1_and_says_in_what(run: Run, results: dict[str, Path]) -> None:
    result = run("compare", results["fast"], results["slow"])
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert any(line.startswith("noise: 4 rounds of each level; A and B are medians") for line in lines)
    assert [line.partition(": ×")[0] for line in lines if line.startswith("WORSE")] == [
        "WORSE: all, requests/s",
        "WORSE: all, p50 ms",
        "WORSE: all, p99 ms",
    ]
    assert f"B: {results['slow']}, smoke, 4 runs" in result.stderr


def test_a_result_that_is_no_worse_is_exit_code_0(run: Run, results: dict[str, Path]) -> None:
    for first, second in (("slow", "fast"), ("fast", "fast")):
        result = run("compare", results[first], results[second])
        assert result.exit_code == 0
        assert "B is not worse than A beyond the noise" in result.stdout


def test_what_is_tolerated_may_be_more(run: Run, results: dict[str, Path]) -> None:
    assert run("compare", results["fast"], results["slow"], "--tolerance", "200%").exit_code == 0


def test_the_json_is_one_document_with_the_verdict(run: Run, results: dict[str, Path]) -> None:
    result = run("compare", results["fast"], results["slow"], "--json")
    document = json.loads(result.stdout)
    assert (result.exit_code, document["ok"], document["b"]) == (1, False, str(results["slow"]))


def test_a_single_run_is_compared_by_its_seconds_and_that_is_said(run: Run, results: dict[str, Path]) -> None:
    result = run("compare", results["once"], results["once"])
    assert result.exit_code == 0
    assert "10 blocks of seconds within a run" in result.stdout
    assert "note: a level was run once only" in result.stdout


@pytest.mark.parametrize(
    ("second", "options", "message"),
    [
        ("other", (), "Only results of one suite can be compared"),
        ("missing", (), "cannot be read: No such file"),
        ("broken", (), "is no result of `tritium load`"),
        ("fast", ("--tolerance", "much"), "takes a percentage, as in 5%, got 'much'"),
        ("fast", ("--confidence", "100"), "must be between 0 and 100"),
    ],
)
def test_wrong_usage_is_exit_code_2_with_the_reason(
    run: Run, results: dict[str, Path], second: str, options: tuple[str, ...], message: str
) -> None:
    folder = results["fast"].parent
    (folder / "broken.json").write_text("{}")
    result = run("compare", results["fast"], folder / f"{second}.json", *options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_load_test_writes_its_result_and_its_report_and_exits_by_its_objectives(
    run: Run, server: TritonServer, zoo: Repository, tmp_path: Path
) -> None:
    files = tmp_path / "result.json", tmp_path / "report.html"
    where = ["--url", server.http_url, "--repository", zoo.path, "--model", "digits_mlp", "--duration", 4]
    result = run("load", "smoke", *where, "--slo", "p99<1us, wrong=0", "--output", files[0], "--report", files[1])
    assert result.exit_code == 1
    assert "p99<1us: NOT met" in result.stdout
    assert [verdict.ok for verdict in LoadReport.load(files[0]).verdicts] == [False, True]
    page = files[1].read_text(encoding="utf-8")
    assert "✗ NOT good enough" in page
    assert "Latency over time" in page
