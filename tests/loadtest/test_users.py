"""Locust users. Importing Locust patches a process, so they are looked at in one of their own."""

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


def test_a_user_that_cannot_begin_says_why_and_stops(silent_port: int) -> None:
    seen = look(
        f"""
        from locust.env import Environment
        from locust.exception import StopUser
        from tritium.loadtest import users
        class Mine(users.TritonHttpUser):
            host = "http://127.0.0.1:{silent_port}"
        user = Mine(Environment(user_classes=[Mine]))
        try:
            user.on_start()
        except StopUser:
            seen = Mine.hindered
        """
    )
    assert seen.startswith("ConnectFailedError: No connection to ")


def test_the_locustfile_in_the_docs_runs(zoo: Repository, server: TritonServer, tmp_path: Path) -> None:
    docs = ast.get_docstring(ast.parse(USERS.read_text(encoding="utf-8"))) or ""
    example = textwrap.dedent(docs.partition("::\n")[2])
    assert "class Digits(TritonHttpUser)" in example
    (tmp_path / "locustfile.py").write_text(example, encoding="utf-8")
    command = [sys.executable, "-m", "locust", "-f", str(tmp_path / "locustfile.py"), "--headless", "--json"]
    command += ["--users", "2", "--spawn-rate", "2", "--run-time", "3s", "--host", server.http_url]
    # The example has no `repository`: it means the one in the folder where Locust runs.
    (tmp_path / "model_repository").symlink_to(zoo.path)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (stats,) = json.loads(done.stdout)
    assert stats["name"] == "digits_cnn"
    assert stats["num_requests"] > 0
    assert stats["num_failures"] == 0
