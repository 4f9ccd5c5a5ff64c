"""The command in this process, and as a process of its own."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tritium.cli._main import tritium
from tritium.repository import GoldenCases, Manifest, Repository, input_specs, load_golden, output_specs
from tritium.server import TritonServer

TAMPERED_MODEL = "digits_mlp"


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
    """`tritium serve` takes SIGTERM over; here it must not do so beyond its test."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


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
