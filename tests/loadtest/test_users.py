"""Locust users and their recorder. Importing Locust patches a process, so they are looked at in one of their own."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import tritium.loadtest
from tritium.repository import Repository
from tritium.server import TritonServer

USERS = Path(tritium.loadtest.__file__).with_name("users.py")


def look(code: str, *arguments: str) -> Any:
    """Run code that sets `seen`; what it set, by way of JSON."""
    program = f"{textwrap.dedent(code)}\nimport json\nprint(json.dumps(seen))"
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_recorder_keeps_exact_percentiles_of_right_answers_and_counts_the_rest() -> None:
    seen = look(
        """
        from tritium.loadtest.suites._suite import Recorder
        from tritium.loadtest.users import WrongAnswerError
        recorder = Recorder()
        for latency in range(1, 101):
            recorder.on_request(response_time=float(latency), exception=None, name="digits_cnn")
        for _ in range(3):
            recorder.on_request(response_time=5000.0, exception=WrongAnswerError("label: agreement 0.0%"))
        recorder.on_request(response_time=9000.0, exception=TimeoutError("too late\\nand more"))
        seen = recorder.result("smoke", "http://127.0.0.1:1", 7).to_json()
        """
    )
    # From the start of the first request, the one that took longest, to the end of the last.
    assert 9.0 <= seen.pop("duration_s") < 60
    seen.pop("requests_per_s")
    assert seen == {
        "suite": "smoke",
        "url": "http://127.0.0.1:1",
        "users": 7,
        "requests": 104,
        "failures": 4,
        "wrong": 3,
        "p50_ms": pytest.approx(50.5),
        "p99_ms": pytest.approx(99.01),
        "errors": {"WrongAnswerError: label: agreement 0.0%": 3, "TimeoutError: too late": 1},
        "ok": False,
    }


def test_a_recorder_that_saw_nothing_has_a_result_that_is_not_good() -> None:
    seen = look(
        """
        from tritium.loadtest.suites._suite import Recorder
        seen = Recorder().result("smoke", "http://127.0.0.1:1", 1).to_json()
        """
    )
    assert (seen["requests"], seen["duration_s"], seen["p99_ms"], seen["ok"]) == (0, 0.0, 0.0, False)


def test_errors_of_many_kinds_are_listed_by_how_often_they_came_and_within_bounds() -> None:
    seen = look(
        """
        from tritium.loadtest.suites._suite import Recorder
        recorder = Recorder()
        for kind in range(50):
            for _ in range(kind + 1):
                recorder.on_request(response_time=1.0, exception=ValueError(f"kind {kind}"))
        seen = recorder.result("smoke", "", 1).to_json()
        """
    )
    assert seen["failures"] == sum(range(51))
    assert list(seen["errors"].items()) == [(f"ValueError: kind {kind}", kind + 1) for kind in range(49, 29, -1)]


def test_golden_traffic_goes_through_the_models_in_turn_and_through_all_cases_of_each(
    zoo: Repository, server: TritonServer
) -> None:
    seen = look(
        """
        import itertools, sys
        from tritium.client import Client
        from tritium.loadtest.users import GoldenTraffic
        from tritium.repository import Repository
        traffic = GoldenTraffic(Repository(sys.argv[1]), Client(sys.argv[2]))
        def taken(seed):
            requests = itertools.islice(traffic.requests(seed), 96)
            return [(model, pixels(case), len(case)) for model, case in requests]
        def pixels(case):
            (array,) = case.inputs.values()
            return array.tobytes().hex()
        seen = [taken(1), taken(1), taken(2)]
        """,
        str(zoo.path),
        server.http_url,
    )
    first, again, other = seen
    assert first == again
    assert first != other
    assert [model for model, _, _ in first] == ["digits_cnn", "digits_mlp", "digits_svm"] * 32
    assert {rows for _, _, rows in first} == {1}
    assert all(len({row for model, row, _ in first if model == name}) == 32 for name in zoo.models())
    assert sorted(first) == sorted(other)


def test_an_answer_is_right_within_the_tolerance_of_its_version_and_no_further(
    zoo: Repository, server: TritonServer
) -> None:
    seen = look(
        """
        import sys
        from tritium.client import Client
        from tritium.loadtest.users import GoldenTraffic, WrongAnswerError
        from tritium.repository import Repository
        traffic = GoldenTraffic(Repository(sys.argv[1]), Client(sys.argv[2]), ["digits_svm"])
        model, case = next(traffic.requests(0))
        def verdict(**changes):
            try:
                traffic.check(model, case, {**case.outputs, **changes})
            except WrongAnswerError as exc:
                return str(exc)
        near = verdict(probabilities=case.outputs["probabilities"] + 9e-5)
        far = verdict(probabilities=case.outputs["probabilities"] + 2e-4)
        seen = [near, far, verdict(label=case.outputs["label"] + 1)]
        """,
        str(zoo.path),
        server.http_url,
    )
    assert seen[0] is None
    assert seen[1].startswith("probabilities: max |Δ| 2.0e-04")
    assert seen[2].startswith("label: agreement 0.0%")


@pytest.mark.parametrize(
    ("user", "host"),
    [("TritonHttpUser", "grpc://127.0.0.1:1"), ("TritonGrpcUser", "http://127.0.0.1:1"), ("TritonHttpUser", None)],
)
def test_a_user_refuses_a_host_that_its_protocol_does_not_speak(user: str, host: str | None) -> None:
    seen = look(
        f"""
        from locust.env import Environment
        from tritium.client import InputError
        from tritium.loadtest import users
        class Mine(users.{user}):
            host = {host!r}
        try:
            Mine(Environment(user_classes=[Mine]))
        except InputError as exc:
            seen = str(exc)
        """
    )
    assert seen.startswith("Mine needs --host with ")
    assert seen.endswith(f"got {host!r} instead")


def test_the_locustfile_in_the_docs_runs(zoo: Repository, server: TritonServer, tmp_path: Path) -> None:
    docs = ast.get_docstring(ast.parse(USERS.read_text(encoding="utf-8"))) or ""
    example = textwrap.dedent(docs.partition("::\n")[2])
    assert "class Digits(TritonHttpUser)" in example
    (tmp_path / "locustfile.py").write_text(example, encoding="utf-8")
    command = [sys.executable, "-m", "locust", "-f", str(tmp_path / "locustfile.py"), "--headless", "--json"]
    command += ["--users", "2", "--spawn-rate", "2", "--run-time", "4s", "--host", server.http_url]
    # The example has no `repository`: it means the one in the folder where Locust runs.
    (tmp_path / "model_repository").symlink_to(zoo.path)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (stats,) = json.loads(done.stdout)
    assert stats["name"] == "digits_cnn"
    assert stats["num_requests"] > 0
    assert stats["num_failures"] == 0
