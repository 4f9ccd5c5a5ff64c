"""Running a suite against a real server, against wrong golden cases, and against no server at all."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tritium.client import InputError, MissingExtraError
from tritium.loadtest import LoadError, LoadResult, _run, run_suite
from tritium.repository import GoldenCases, Manifest, Repository, config_text, input_specs, load_golden, output_specs
from tritium.server import TritonServer

NOWHERE = "http://127.0.0.1:1"


def url(server: TritonServer, protocol: str) -> str:
    return server.http_url if protocol == "http" else server.grpc_url


def inference_count(server: TritonServer, model: str) -> int:
    """How many rows the server has run so far."""
    with server.client() as client:
        return sum(int(stats["inference_count"]) for stats in client.model(model).statistics()["model_stats"])


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_every_answer_of_every_model_is_right(zoo: Repository, server: TritonServer, protocol: str) -> None:
    before = {model: inference_count(server, model) for model in zoo.models()}
    result = run_suite("smoke", url=url(server, protocol), repository=zoo, users=4, duration_s=4)
    assert result.ok
    assert (result.suite, result.url, result.users) == ("smoke", url(server, protocol), 4)
    assert (result.failures, result.wrong, dict(result.errors)) == (0, 0, {})
    assert result.requests > 0
    assert 0 < result.p50_ms <= result.p99_ms
    assert 0 < result.duration_s < 10
    assert result.requests_per_s == pytest.approx(result.requests / result.duration_s)
    grown = {model: inference_count(server, model) - count for model, count in before.items()}
    assert all(count > 0 for count in grown.values())
    # Each user may have had one more under way when its time was over.
    assert result.requests <= sum(grown.values()) <= result.requests + 4


def test_only_the_models_asked_for_are_sent_to(zoo: Repository, server: TritonServer) -> None:
    before = {model: inference_count(server, model) for model in zoo.models()}
    result = run_suite("smoke", url=server.http_url, repository=zoo.path, models=["digits_mlp"], users=1, duration_s=4)
    assert result.ok
    grown = [model for model, count in before.items() if inference_count(server, model) > count]
    assert grown == ["digits_mlp"]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_wrong_answers_are_found_and_counted(tampered: Repository, server: TritonServer, protocol: str) -> None:
    result = run_suite("smoke", url=url(server, protocol), repository=tampered, users=2, duration_s=4)
    assert not result.ok
    assert 0 < result.wrong < result.requests, "one golden case of 32 is wrong"
    assert result.failures == result.wrong == sum(result.errors.values())
    assert all(error.startswith("WrongAnswerError: probabilities__0: max |Δ|") for error in result.errors)
    assert 0 < result.p50_ms <= result.p99_ms, "the right answers are measured all the same"


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_where_nobody_listens_each_user_fails_once_and_gives_up(zoo: Repository, silent_port: int, scheme: str) -> None:
    address = f"{scheme}://127.0.0.1:{silent_port}"
    result = run_suite("smoke", url=address, repository=zoo, users=3, duration_s=4)
    assert not result.ok
    assert (result.requests, result.failures, result.wrong) == (3, 3, 0)
    (error,) = result.errors
    assert error.startswith(f"ConnectFailedError: No connection to {address}")


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_server_that_never_answers_holds_nobody_beyond_the_duration(
    zoo: Repository, mute_port: int, scheme: str
) -> None:
    started = time.monotonic()
    result = run_suite("smoke", url=f"{scheme}://127.0.0.1:{mute_port}", repository=zoo, users=2, duration_s=4)
    assert time.monotonic() - started < 15
    assert not result.ok
    assert result.requests == result.failures


def test_a_model_that_the_server_does_not_serve_fails_for_each_user(
    copy_of: Callable[[str], Repository], server: TritonServer
) -> None:
    repository = copy_of("digits_mlp")
    (repository.path / "digits_mlp").rename(repository.path / "digits_mlq")
    config = repository.config("digits_mlq")
    config.name = "digits_mlq"
    (repository.path / "digits_mlq/config.pbtxt").write_text(config_text(config), encoding="utf-8")
    result = run_suite("smoke", url=server.http_url, repository=repository, users=2, duration_s=4)
    assert not result.ok
    assert (result.requests, result.failures, result.wrong) == (2, 2, 0)
    (error,) = result.errors
    assert error.startswith("ModelNotFoundError: 'digits_mlq'")
    assert "Did you mean 'digits_mlp'?" in error


def test_a_model_that_the_repository_does_not_have_is_refused(zoo: Repository) -> None:
    with pytest.raises(InputError, match=r"no model 'digits_cnm'.*Did you mean 'digits_cnn'\?"):
        run_suite("smoke", url=NOWHERE, repository=zoo, models=["digits_cnm"], users=1, duration_s=4)


def test_a_repository_without_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no models"):
        run_suite("smoke", url=NOWHERE, repository=tmp_path, users=1, duration_s=4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suite": "smok"}, "no suite 'smok'; there are smoke"),
        ({"url": "127.0.0.1:8000"}, "'url'.*http://.*got '127.0.0.1:8000' instead"),
        ({"url": "ftp://127.0.0.1"}, "'url'.*http://.*got 'ftp://127.0.0.1' instead"),
        ({"url": "http://"}, "'url'.*'http://'"),
        ({"url": "http://127.0.0.1:8000/v2"}, "'url'.*'http://127.0.0.1:8000/v2'"),
        ({"url": "grpc://127.0.0.1:99999"}, "99999"),
        ({"users": 0}, "1 user or more.*got 0"),
        ({"users": -1}, "1 user or more.*got -1"),
        ({"duration_s": 0.0}, "more than 0 s.*and 0"),
        ({"duration_s": -1.0}, "more than 0 s.*and -1"),
        ({"duration_s": math.nan}, "nan"),
        ({"duration_s": math.inf}, "inf"),
        ({"repository": "/nonexistent/models"}, "no model repository at /nonexistent/models"),
    ],
    ids=lambda value: "-".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else "",
)
def test_what_cannot_be_run_is_refused_before_locust_starts(
    zoo: Repository, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    def unexpected(*_: object) -> None:
        raise AssertionError("Locust was started")

    monkeypatch.setattr(_run, "_run_locust", unexpected)
    values: dict[str, Any] = {"suite": "smoke", "url": NOWHERE, "repository": zoo, "users": 1, "duration_s": 1.0}
    with pytest.raises(InputError, match=message):
        run_suite(**(values | changes))


def program(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Put another program in Locust's place."""
    run = _run._run_locust
    monkeypatch.setattr(_run, "_run_locust", lambda _, *rest: run([sys.executable, "-c", code], *rest))


def test_locust_that_ends_without_a_result_is_an_error_with_its_last_words(
    zoo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(monkeypatch, "print('out of memory'); raise SystemExit(3)")
    with pytest.raises(LoadError, match="exit code 3:\nout of memory"):
        run_suite("smoke", url=NOWHERE, repository=zoo, users=1, duration_s=4)


def test_locust_that_does_not_end_is_killed(zoo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    program(monkeypatch, "import threading; threading.Event().wait()")
    monkeypatch.setattr(_run, "_GRACE_S", 0.0)
    started: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen

    def remembered(*args: Any, **options: Any) -> subprocess.Popen[str]:
        started.append(popen(*args, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", remembered)
    with pytest.raises(LoadError, match=r"still running 0\.2 s after its start"):
        run_suite("smoke", url=NOWHERE, repository=zoo, users=1, duration_s=0.2)
    assert [process.poll() for process in started] == [-9]


def test_a_missing_locust_is_named_with_the_command_that_brings_it(
    zoo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(monkeypatch, "raise SystemExit('No module named locust')")
    with pytest.raises(MissingExtraError, match=r"'locust'.*pip install 'tritium\[loadtest\]'"):
        run_suite("smoke", url=NOWHERE, repository=zoo, users=1, duration_s=4)


def test_a_run_leaves_no_files_behind(
    zoo: Repository, silent_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    result: LoadResult = run_suite(
        "smoke", url=f"http://127.0.0.1:{silent_port}", repository=zoo, users=1, duration_s=1
    )
    assert not result.ok
    assert list(tmp_path.iterdir()) == []


def test_answers_are_judged_by_the_version_that_is_served(copy_of: Callable[[str], Repository], tmp_path: Path) -> None:
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
        result = run_suite("smoke", url=server.http_url, repository=repository, users=2, duration_s=4)
    assert result.ok, result.errors
