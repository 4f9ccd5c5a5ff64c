"""A server whose backend processes have little shared memory: in a namespace of its own, with a small /dev/shm."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tritium.client import Client, Retries, ServerError
from tritium.server._stubs import stubs

from .conftest import config, doubler

# Serves until its standard input ends, and says where, or why not.
SERVE = """
import json, sys
from tritium.server import StartError, Supervisor, TritonServer
try:
    with Supervisor(TritonServer(sys.argv[1], onnx_backend="python")) as supervisor:
        server = supervisor.server
        print(json.dumps({"http": server.http_url, "grpc": server.grpc_url, "pid": server.pid}), flush=True)
        sys.stdin.read()
except StartError as exc:
    print(json.dumps({"error": str(exc)}), flush=True)
"""
NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
MOUNT = 'mount -t tmpfs -o size="$1" tmpfs /dev/shm && shift && exec "$@"'
MIB = 2**20


def within(size: str, *command: str) -> list[str]:
    """A command with so much shared memory."""
    return [*NAMESPACE, MOUNT, "sh", size, *command]


@pytest.fixture(scope="module", autouse=True)
def namespaces() -> None:
    try:
        tried = subprocess.run(within("1m", "true"), capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        pytest.skip("there is no unshare, of util-linux")
    if tried.returncode:
        pytest.skip(f"this system lets nobody have a /dev/shm of their own: {tried.stderr.strip()}")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    (folder / "doubler" / "1").mkdir(parents=True)
    (folder / "doubler" / "1" / "model.onnx").write_bytes(doubler(("batch", "n")))
    (folder / "doubler" / "config.pbtxt").write_text(config("x FP32 -1", "y FP32 -1"), encoding="utf-8")
    return folder


@contextmanager
def started(repository: Path, size: str) -> Iterator[dict[str, Any]]:
    command = within(size, sys.executable, "-c", SERVE, str(repository))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.stdin.close()
            assert process.wait(60) == 0


@pytest.fixture(scope="module")
def small(repository: Path) -> Iterator[dict[str, Any]]:
    with started(repository, "32m") as server:
        yield server


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_what_does_not_fit_is_refused_and_what_fits_is_answered(small: dict[str, Any], protocol: str) -> None:
    processes = stubs(small["pid"])
    assert list(processes.values()) == ["doubler"]
    fits, too_large = (np.arange(size // 4, dtype=np.float32)[None] for size in (4 * MIB, 64 * MIB))
    with Client(small[protocol], timeout_s=60, retries=Retries(attempts=1)) as client:
        model = client.model("doubler")
        # What is taken is refused before it is there, or when there is no room for the answer.
        for row in (too_large, np.arange(3 * MIB, dtype=np.float32)[None]):
            with pytest.raises(ServerError, match=r"shared memory pool.*No space left on device"):
                model(row)
            assert np.array_equal(model(fits), 2 * fits)

        def ask(number: int) -> None:
            row = too_large if number % 2 else fits
            try:
                assert np.array_equal(model(row), 2 * row)
                assert row is fits
            except ServerError as exc:
                assert "No space left on device" in str(exc)

        with ThreadPoolExecutor(4) as pool:
            for asked in [pool.submit(ask, number) for number in range(24)]:
                asked.result()
        # Nothing of it stays behind.
        for _ in range(10):
            assert np.array_equal(model(fits), 2 * fits)
    assert stubs(small["pid"]) == processes


def test_a_start_without_any_says_what_is_missing(repository: Path) -> None:
    with started(repository, "512k") as server:
        assert "doubler: " in server["error"]
        assert "shared memory" in server["error"]
        assert "No space left on device" in server["error"]
