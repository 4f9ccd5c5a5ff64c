"""Fixtures that tests of several roots share. Servers run on free ports and are stopped at the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tritium.client import Client
from tritium.exporters.zoo import MODELS, build
from tritium.repository import Repository
from tritium.server import TritonServer

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[1]
SHM = Path("/dev/shm")
DIGITS = ("digits_cnn", "digits_mlp", "digits_svm")


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """After all tests no shared memory of ours is left."""
    yield
    left = [path.name for path in SHM.glob(f"tritium-{os.getpid()}-*")]
    assert not left, f"left in /dev/shm: {left}"


@pytest.fixture(scope="session")
def whole_zoo() -> Repository:
    """The project's own model repository, with every reference model built."""
    repository = Repository(ROOT / "model_repository")
    for name in MODELS:
        build(name, repository, progress=print)
    return repository


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository of the reference models of digits, which are enough for most tests; built in the project's own."""
    project = Repository(ROOT / "model_repository")
    few = tmp_path_factory.mktemp("zoo")
    for name in DIGITS:
        built = build(name, project, progress=print)
        shutil.copytree(project.version_folder(name), few / name / str(built.version))
        for beside in ("config.pbtxt", "labels.txt"):
            shutil.copy2(project.path / name / beside, few / name)
    return Repository(few)


@pytest.fixture(scope="session")
def server(zoo: Repository) -> Iterator[TritonServer]:
    """A Triton that serves those. Tests must not load or unload on it."""
    with TritonServer(zoo.path) as running:
        yield running


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, server: TritonServer) -> Iterator[Client]:
    """A client of that server, over each protocol."""
    with server.client(protocol=request.param) as connected:
        yield connected
