"""The command in this process, and as a process of its own."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner, Result

from tritium.cli._main import tritium
from tritium.repository import GoldenCases, Manifest, Repository, input_specs, load_golden, output_specs
from tritium.server import TritonServer

TAMPERED_MODEL = "digits_mlp"
DEADLINE_S = 60.0
FREE_PORTS = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0", "--health-port", "0"]


@dataclass
class Serving:
    """A `tritium serve` that is running, and what it has printed so far."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def wait_for(self, what: str, found: Callable[[], Any]) -> Any:
        """What `found` returns, as soon as it returns something."""
        deadline = time.monotonic() + DEADLINE_S
        while not (value := found()):
            # This is also how the loop pauses: it goes on at once if the process ends.
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.02)
                value = found()
                assert value, f"it ended without {what}:\n{self.out.read_text()}\n{self.err.read_text()}"
                return value
            assert time.monotonic() < deadline, f"{what} did not come:\n{self.out.read_text()}\n{self.err.read_text()}"
        return value

    def document(self) -> dict[str, Any]:
        """The document that says that it is ready."""

        def whole() -> dict[str, Any] | None:
            try:
                found: dict[str, Any] = json.loads(self.out.read_text())
            except ValueError:  # nothing or half of it
                return None
            return found

        found: dict[str, Any] = self.wait_for("a ready document", whole)
        return found

    def banner(self) -> str:
        """What it tells people when it is ready."""
        self.wait_for("a banner", lambda: "Ctrl-C stops it." in self.err.read_text())
        return self.err.read_text()

    def started(self) -> list[psutil.Process]:
        """Every process below it."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def shared_memory(self) -> list[str]:
        """What lies in shared memory under its process id."""
        return [path.name for path in Path("/dev/shm").glob(f"tritium-{self.process.pid}-*")]


@pytest.fixture
def serve(zoo: Repository, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Starts `tritium serve` on free ports; it is stopped with the block that it is used in."""

    @contextmanager
    def running(*arguments: object, repository: Path = zoo.path) -> Iterator[Serving]:
        command = [sys.executable, "-m", "tritium.cli", "serve", "--repository", repository, *FREE_PORTS, *arguments]
        out, err = tmp_path / "out.txt", tmp_path / "err.txt"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen([str(part) for part in command], stdout=stdout, stderr=stderr)
        try:
            yield Serving(process, out, err)
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(DEADLINE_S)

    # Where the tests run in the background of a script, Ctrl-C is ignored, and a child would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield running
    signal.signal(signal.SIGINT, before)


def left(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; what has ended and waits for somebody to take note of it does not."""

    def runs(process: psutil.Process) -> bool:
        with suppress(psutil.NoSuchProcess):
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return False

    return [process for process in processes if runs(process)]


@pytest.fixture
def run() -> Callable[..., Result]:
    """Runs `tritium` with arguments in this process; what is no error of Tritium's own goes through."""

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(tritium, [str(argument) for argument in arguments], catch_exceptions=False)

    return invoke


@pytest.fixture
def spawn() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `tritium` with arguments as a process and waits for its end."""

    def invoke(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tritium.cli", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    return invoke


@pytest.fixture(autouse=True)
def signals_restored() -> Iterator[None]:
    """`tritium serve` takes SIGTERM and Ctrl-C over; here it must not do so beyond its test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def fill() -> Callable[[object, TritonServer, Repository], str]:
    """Puts the server's URL and the repository's path where an argument names them."""

    def filled(argument: object, server: TritonServer, zoo: Repository) -> str:
        return str(argument).format(http=server.http_url, grpc=server.grpc_url, repository=zoo.path)

    return filled


@pytest.fixture
def tampered(zoo: Repository, tmp_path: Path) -> Repository:
    """A copy of the perceptron in whose golden cases one of 32 outputs is not what the model says."""
    shutil.copytree(zoo.path / TAMPERED_MODEL, tmp_path / "tampered" / TAMPERED_MODEL)
    repository = Repository(tmp_path / "tampered")
    config = repository.config(TAMPERED_MODEL)
    specs = [*input_specs(config), *output_specs(config)]
    for version in repository.versions(TAMPERED_MODEL):
        folder = repository.version_folder(TAMPERED_MODEL, version)
        golden = load_golden(folder, config)
        outputs = {name: array.copy() for name, array in golden.outputs.items()}
        outputs["probabilities__0"][3] = 0.1
        GoldenCases(golden.inputs, outputs).save(folder / "golden.npz", specs)
        Manifest.load(folder).with_files(folder).save(folder)
    return repository
