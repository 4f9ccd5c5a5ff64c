"""Running a suite against a real server, against wrong golden cases, and against no server at all."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tritium.client import ConnectFailedError, DeadlineExceededError, InputError, MissingExtraError, ModelNotFoundError
from tritium.loadtest import LoadError, LoadInterrupted, LoadReport, Stage, _locust, _run, _targets, run_suite
from tritium.loadtest._plan import Plan
from tritium.loadtest._requests import Outcome, Recorder, Requests
from tritium.repository import GoldenCases, Manifest, Repository, config_text, input_specs, load_golden, output_specs
from tritium.server import TritonServer

NOWHERE = "http://127.0.0.1:1"


def url(server: TritonServer, protocol: str) -> str:
    return server.http_url if protocol == "http" else server.grpc_url


def inference_counts(server: TritonServer) -> dict[str, int]:
    """How many rows the server has run of each model so far."""
    with server.client() as client:
        return {item["name"]: int(item["inference_count"]) for item in client.statistics()["model_stats"]}


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_every_answer_of_every_model_is_right_and_the_server_counts_the_same(
    zoo: Repository, server: TritonServer, protocol: str
) -> None:
    report = run_suite("smoke", url=url(server, protocol), repository=zoo, users=4, duration_s=2)
    assert report.ok
    assert [str(verdict) for verdict in report.verdicts] == ["errors=0: met, 0", "wrong=0: met, 0"]
    (run,) = report.runs
    assert (run.suite, run.url, run.errors, run.remarks) == ("smoke", url(server, protocol), {}, ())
    assert run.everywhere.requests > 0
    assert run.everywhere.errors == 0
    assert 0 < run.judged.p50_ms <= run.judged.p99_ms
    assert set(run.models) == set(zoo.models()) == set(run.work)
    # The server looked at before and after the plan saw its warm-up, too.
    assert sum(work.requests for work in run.work.values()) > 0


def test_only_the_models_asked_for_are_sent_to(zoo: Repository, server: TritonServer) -> None:
    before = inference_counts(server)
    report = run_suite("smoke", url=server.http_url, repository=zoo.path, models=["digits_mlp"], users=1, duration_s=1)
    assert report.ok
    assert list(report.runs[0].models) == ["digits_mlp"]
    assert [model for model, count in inference_counts(server).items() if count > before[model]] == ["digits_mlp"]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_wrong_answers_are_found_and_counted_and_the_verdict_is_no(
    tampered: Repository, server: TritonServer, protocol: str
) -> None:
    report = run_suite("smoke", url=url(server, protocol), repository=tampered, users=2, duration_s=1.5)
    assert not report.ok
    found = report.runs[0].everywhere
    assert 0 < found.wrong < found.requests, "one golden case of 32 is wrong"
    assert found.errors == found.wrong == sum(report.runs[0].errors.values())
    assert all(error.startswith("WrongAnswerError: probabilities__0: max |Δ|") for error in report.runs[0].errors)
    assert 0 < found.p50_ms <= found.p99_ms, "the right answers are measured all the same"
    assert [verdict.ok for verdict in report.verdicts] == [False, False]


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_where_nobody_listens_it_is_said_before_locust_starts(zoo: Repository, silent_port: int, scheme: str) -> None:
    address = f"{scheme}://127.0.0.1:{silent_port}"
    with pytest.raises(ConnectFailedError, match=f"No connection to {address}"):
        run_suite("smoke", url=address, repository=zoo, users=3, duration_s=1)


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_server_that_never_answers_is_given_up_when_a_request_may_take_no_longer(
    zoo: Repository, mute_port: int, scheme: str
) -> None:
    with pytest.raises(DeadlineExceededError):
        run_suite("smoke", url=f"{scheme}://127.0.0.1:{mute_port}", repository=zoo, timeout_s=0.5)


def test_a_model_that_the_server_does_not_serve_is_named(
    copy_of: Callable[[str], Repository], server: TritonServer
) -> None:
    repository = copy_of("digits_mlp")
    (repository.path / "digits_mlp").rename(repository.path / "digits_mlq")
    config = repository.config("digits_mlq")
    config.name = "digits_mlq"
    (repository.path / "digits_mlq/config.pbtxt").write_text(config_text(config), encoding="utf-8")
    with pytest.raises(ModelNotFoundError, match=r"'digits_mlq'.*Did you mean 'digits_mlp'\?"):
        run_suite("smoke", url=server.http_url, repository=repository, users=2, duration_s=1)


def test_objectives_decide_and_say_by_which_line(zoo: Repository, server: TritonServer) -> None:
    goals = "p99<30s, errors<0.1%, rps>1000000, wrong=0, digits_svm:p50<30s"
    report = run_suite("smoke", url=server.http_url, repository=zoo, users=2, duration_s=1, objectives=goals, repeats=2)
    assert [verdict.ok for verdict in report.verdicts] == [True, True, False, True, True]
    assert not report.ok
    assert len(report.runs) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suite": "smok"}, "no suite 'smok'; there are smoke, .*Did you mean 'smoke'"),
        ({"url": "127.0.0.1:8000"}, "'url'.*http://.*got '127.0.0.1:8000' instead"),
        ({"url": "ftp://127.0.0.1"}, "'url'.*http://.*got 'ftp://127.0.0.1' instead"),
        ({"url": "http://"}, "'url'.*'http://'"),
        ({"url": "http://127.0.0.1:8000/v2"}, "'url'.*'http://127.0.0.1:8000/v2'"),
        ({"url": "grpc://127.0.0.1:99999"}, "99999"),
        ({"protocol": "rest"}, "'protocol'.*'http' or 'grpc', got 'rest'"),
        ({"users": 0}, "'users'.*1 or more, got 0"),
        ({"users": -1}, "'users'.*1 or more, got -1"),
        ({"repeats": 0}, "'repeats'.*1 or more, got 0"),
        ({"workers": -1}, "'workers'.*0 or more, got -1"),
        ({"remote_workers": -1}, "'remote_workers'.*0 or more, got -1"),
        ({"bind": "5557"}, "An address is written as in '10.0.0.5:5557', got '5557'"),
        ({"bind": "host:99999"}, "got 'host:99999' instead"),
        ({"duration_s": 0.0}, "'duration_s'.*more than 0, got 0"),
        ({"duration_s": math.nan}, "nan"),
        ({"duration_s": math.inf}, "inf"),
        ({"rate": -5.0}, "'rate'.*more than 0, got -5"),
        ({"timeout_s": 0.0}, "'timeout_s'.*more than 0"),
        ({"objectives": "p99<fast"}, "'p99<fast' is no objective"),
        ({"models": ["digits_cnm"]}, r"no model 'digits_cnm'.*Did you mean 'digits_cnn'\?"),
        ({"suite": "chaos"}, "'chaos' needs a server of its own .it kills processes.*: leave out 'url'"),
        ({"suite": "batching", "url": None}, "'batching' compares one model with itself, so name one; got none"),
        ({"repository": "/nonexistent/models"}, "no model repository at /nonexistent/models"),
    ],
    ids=lambda value: "-".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else "",
)
def test_what_cannot_be_run_is_refused_before_anything_starts(
    zoo: Repository, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    def unexpected(*_: object) -> None:
        raise AssertionError("something was started")

    monkeypatch.setattr(_run, "run_locust", unexpected)
    monkeypatch.setattr(_run, "embedded", unexpected)
    values: dict[str, Any] = {"suite": "smoke", "url": NOWHERE, "repository": zoo, "users": 1, "duration_s": 1.0}
    with pytest.raises(InputError, match=message):
        run_suite(**(values | changes))


def requests_of(seconds: float) -> Requests:
    recorder = Recorder()
    for number in range(int(seconds * 100)):
        recorder.add("digits_mlp", Outcome.RIGHT, due_s=number / 100, latency_ms=1.0)
    return Requests.merged([recorder.take()], began_s=1000.0)


@pytest.mark.parametrize("cut_s", [None, 0.5])
def test_ctrl_c_between_and_within_runs_keeps_those_that_were_made(
    zoo: Repository, server: TritonServer, monkeypatch: pytest.MonkeyPatch, cut_s: float | None
) -> None:
    made = iter([requests_of(2), None if cut_s is None else replace(requests_of(2), cut_s=cut_s)])

    def fake(_: object) -> Requests:
        requests = next(made)
        if requests is None:
            raise KeyboardInterrupt
        return requests

    monkeypatch.setattr(_run, "run_locust", fake)
    with pytest.raises(LoadInterrupted) as caught:
        run_suite("smoke", url=server.http_url, repository=zoo, users=1, duration_s=2, repeats=5)
    report = caught.value.report
    assert report.interrupted
    assert not report.ok
    assert [run.interrupted for run in report.runs] == ([False] if cut_s is None else [False, True])
    assert all(verdict.ok for verdict in report.verdicts)


def test_ctrl_c_before_anything_was_measured_is_ctrl_c(
    zoo: Repository, server: TritonServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(_: object) -> Requests:
        raise KeyboardInterrupt

    monkeypatch.setattr(_run, "run_locust", fake)
    with pytest.raises(KeyboardInterrupt) as caught:
        run_suite("smoke", url=server.http_url, repository=zoo, users=1, duration_s=2)
    assert not isinstance(caught.value, LoadInterrupted)


def test_the_memory_of_a_server_elsewhere_is_left_out_of_what_must_be_met_by_default(
    zoo: Repository, server: TritonServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_run, "run_locust", lambda _: requests_of(2))
    monkeypatch.setattr(_targets, "server_process", lambda _: None)
    report = run_suite("soak", url=server.http_url, repository=zoo, users=1, duration_s=2)
    assert report.ok
    assert [verdict.objective for verdict in report.verdicts] == ["errors=0", "wrong=0"]
    assert "its memory was not looked at" in report.runs[0].remarks[-1]
    with pytest.raises(InputError, match="needs a server on this machine"):
        run_suite("soak", url=server.http_url, repository=zoo, users=1, duration_s=2, objectives="memory<5%")


def test_wrong_answers_are_never_good_enough(
    zoo: Repository, server: TritonServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_run, "run_locust", lambda _: requests_of(2))
    for objectives, judged in (
        ("p99<1s", ["p99<1s", "wrong=0"]),
        ("p99<1s, errors<1%", ["p99<1s", "errors<1%"]),
        ("wrong<2", ["wrong<2"]),
    ):
        report = run_suite("smoke", url=server.http_url, repository=zoo, users=1, duration_s=2, objectives=objectives)
        assert [verdict.objective for verdict in report.verdicts] == judged


def test_an_objective_about_a_model_that_is_not_sent_to_is_refused_before_anything_is_measured(
    zoo: Repository, server: TritonServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_run, "run_locust", lambda _: pytest.fail("it was measured"))
    with pytest.raises(InputError, match="is about 'digits_cmm', which is not sent to"):
        run_suite("smoke", url=server.http_url, repository=zoo, objectives="digits_cmm:p99<1ms")


@pytest.mark.parametrize(("users", "workers", "asked"), [(1, 0, 1), (1, 2, 2), (5, 2, 6), (6, 2, 6)])
def test_each_process_has_users_enough_whichever_of_them_is_asked_for_more(
    zoo: Repository, monkeypatch: pytest.MonkeyPatch, users: int, workers: int, asked: int
) -> None:
    seen: list[str] = []

    def fake(commands: Sequence[Sequence[str]], *_: object) -> float | None:
        seen.extend(commands[0])
        raise LoadError("enough")

    monkeypatch.setattr(_locust, "_run", fake)
    plan = Plan([Stage(name="all", duration_s=1.0, users=users)])
    job = _locust.Job(suite="smoke", url=NOWHERE, repository=zoo.path, plan=plan, workers=workers)
    with pytest.raises(LoadError, match="enough"):
        _locust.run_locust(job)
    assert seen[seen.index("--users") + 1] == str(asked)


def test_a_repository_without_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no models"):
        run_suite("smoke", url=NOWHERE, repository=tmp_path, users=1, duration_s=1)


def program(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Put another program in Locust's place."""
    run = _locust._run
    monkeypatch.setattr(_locust, "_run", lambda _, *rest: run([[sys.executable, "-c", code]], *rest))


def smoke(server: TritonServer, zoo: Repository, **options: Any) -> LoadReport:
    return run_suite("smoke", url=server.http_url, repository=zoo, users=1, **({"duration_s": 1.0} | options))


def test_locust_that_ends_without_a_result_is_an_error_with_its_last_words(
    zoo: Repository, server: TritonServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(monkeypatch, "print('out of memory'); raise SystemExit(3)")
    with pytest.raises(LoadError, match="exit code 3:\nout of memory"):
        smoke(server, zoo)


def test_locust_that_does_not_end_is_killed(
    zoo: Repository, server: TritonServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(monkeypatch, "import threading; threading.Event().wait()")
    monkeypatch.setattr(_locust, "_GRACE_S", 0.0)
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def remembered(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*args, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", remembered)
    with pytest.raises(LoadError, match=r"still running 0\.7 s after its start"):
        smoke(server, zoo, duration_s=0.2, timeout_s=0.5)
    assert [process.poll() for process in started] == [-9]


def test_a_missing_locust_is_named_with_the_command_that_brings_it(
    zoo: Repository, server: TritonServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(monkeypatch, "raise SystemExit('No module named locust')")
    with pytest.raises(MissingExtraError, match=r"'locust'.*pip install 'tritium\[loadtest\]'"):
        smoke(server, zoo)


def test_a_run_leaves_no_files_behind(
    zoo: Repository, server: TritonServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert smoke(server, zoo, duration_s=0.5).ok
    assert list(tmp_path.iterdir()) == []


def test_answers_are_judged_by_the_version_that_is_served(copy_of: Callable[[str], Repository]) -> None:
    repository = copy_of("digits_mlp")
    served = repository.version_folder("digits_mlp")
    with TritonServer(repository.path) as server:
        # A newer version that is not loaded yet, and whose golden outputs are others.
        newer = served.with_name(str(int(served.name) + 1))
        shutil.copytree(served, newer)
        config = repository.config("digits_mlp")
        golden = load_golden(newer, config)
        outputs = {name: 1 - array for name, array in golden.outputs.items()}
        GoldenCases(golden.inputs, outputs).save(newer / "golden.npz", [*input_specs(config), *output_specs(config)])
        Manifest.load(newer).with_files(newer).save(newer)
        report = run_suite("smoke", url=server.http_url, repository=repository, users=2, duration_s=1)
    assert report.ok, report.runs[0].errors
