"""`tritium tune`: what it prints and writes of a result that is given, and Ctrl-C in the middle of a real run."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import tritium.loadtest
from tritium.loadtest import Figures, Trial, TuneResult
from tritium.loadtest._space import configured, knobs_of
from tritium.repository import Repository
from tritium.server import TritonServer

from .conftest import left

Run = Callable[..., Result]
MODEL = "digits_svm"


@pytest.fixture
def own(zoo: Repository, tmp_path: Path) -> Repository:
    shutil.copytree(zoo.path / MODEL, tmp_path / "models" / MODEL)
    return Repository(tmp_path / "models")


def found(repository: Repository, verdict: str) -> TuneResult:
    config = repository.config(MODEL)
    current = knobs_of(config)
    winner = replace(current, instances=2) if verdict == "better" else current
    still = (Figures(duration_s=1.0, requests=100, right=100, p99_ms=4.0),) * 2
    fast = (Figures(duration_s=1.0, requests=150, right=150, p99_ms=3.0),) * 2
    trials = (
        Trial(number=0, knobs=current, blocks=still, beside=still),
        Trial(number=1, knobs=replace(current, instances=2), blocks=fast, beside=still),
        Trial(number=2, knobs=replace(current, instances=4), state="failed", reason="no memory"),
    )
    return TuneResult(
        model=MODEL,
        backend="onnxruntime (native)",
        users=16,
        objectives="",
        space=60,
        trials=trials,
        finals=trials[:2] if verdict != "interrupted" else (),
        noise=0.04,
        winner=winner,
        verdict=verdict,
        reason=f"because it is {verdict}.",
        verdicts=(),
        before=config,
        after=configured(config, winner),
        duration_s=12.0,
    )


@pytest.fixture
def given(own: Repository, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """Puts a result in the place of measuring; what the tuner was called with comes back."""

    def put(verdict: str) -> dict[str, Any]:
        called: dict[str, Any] = {}

        def tune(model: str, **arguments: Any) -> TuneResult:
            called.update(arguments, model=model)
            return found(own, verdict)

        monkeypatch.setattr(tritium.loadtest, "tune", tune)
        return called

    return put


def test_people_get_the_trials_by_worth_the_finals_and_the_reason(
    run: Run, own: Repository, given: Callable[[str], dict[str, Any]]
) -> None:
    called = given("better")
    result = run("tune", MODEL, "--repository", own.path, "--budget", "2m", "--trials", 9, "--users", 4)
    assert result.exit_code == 0
    assert (called["budget_s"], called["trials"], called["users"]) == (120.0, 9, 4)
    lines = result.stdout.splitlines()
    assert lines[1].split()[:3] == ["1*", "1.50", "×"]
    assert lines[3].endswith("failed")
    assert "3 of 60 configs tried in 12 s" in result.stdout
    assert lines[-1].endswith("because it is better.")
    assert "nothing was written; --apply does that" in result.stderr
    assert [path.name for path in (own.path / MODEL).glob("config*")] == ["config.pbtxt"]


def test_apply_writes_the_winner_and_keeps_the_old_config(
    run: Run, own: Repository, given: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    given("better")
    before = (own.path / MODEL / "config.pbtxt").read_bytes()
    files = ["--output", tmp_path / "found.json", "--plot", tmp_path / "found.svg"]
    result = run("tune", MODEL, "--repository", own.path, "--apply", "--json", *files)
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["applied"] is True
    assert Path(document["kept"]).read_bytes() == before
    assert own.config(MODEL).instance_group[0].count == 2
    assert json.loads((tmp_path / "found.json").read_text())["verdict"] == "better"
    assert (tmp_path / "found.svg").exists()


@pytest.mark.parametrize(("verdict", "code"), [("keep", 0), ("missed", 1), ("interrupted", 1)])
def test_apply_writes_nothing_where_there_is_nothing_better(
    run: Run, own: Repository, given: Callable[[str], dict[str, Any]], verdict: str, code: int
) -> None:
    given(verdict)
    before = (own.path / MODEL / "config.pbtxt").read_bytes()
    result = run("tune", MODEL, "--repository", own.path, "--apply")
    assert result.exit_code == code
    assert result.stdout.splitlines()[-1] == f"because it is {verdict}."
    assert [path.name for path in (own.path / MODEL).glob("config*")] == ["config.pbtxt"]
    assert (own.path / MODEL / "config.pbtxt").read_bytes() == before


def test_ctrl_c_shows_the_best_so_far_and_leaves_nothing(own: Repository, server: TritonServer) -> None:
    import psutil

    command = [sys.executable, "-m", "tritium.cli", "tune", MODEL, "--repository", str(own.path), "--apply", "--json"]
    # Where the tests run in the background of a script, Ctrl-C is ignored, and a child would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    assert process.stderr is not None
    for line in process.stderr:
        if line.lstrip().startswith("1 "):
            break
    started = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    document = json.loads(stdout)
    assert (document["verdict"], document["applied"]) == ("interrupted", False)
    assert len(document["trials"]) >= 2
    assert [path.name for path in (own.path / MODEL).glob("config*")] == ["config.pbtxt"]
    assert left(started) == []
