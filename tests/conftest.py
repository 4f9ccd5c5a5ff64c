"""Fixtures that tests of several roots share. Servers run on free ports and are stopped at the end."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import boto3
import pytest
from filelock import FileLock
from moto.server import ThreadedMotoServer

from tritium.client import Client
from tritium.exporters.zoo import MODELS, Built, build
from tritium.repository import Repository
from tritium.server import ADMIN_GROUPS, TritonServer

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[1]
SHM = Path("/dev/shm")
DIGITS = ("digits_cnn", "digits_mlp", "digits_svm")
# `make test` runs two lanes side by side. These keep one core busy or wait long, and do not mind what runs beside them;
# all others ask servers against the clock, and share a lane so that they never disturb each other. Each lane takes
# about half of the time.
SECOND_LANE = (
    "exporters",
    "loadtest/test_compare.py",
    "loadtest/test_report.py",
    "loadtest/test_suites.py",
    "repository",
    "server/conformance",
    "server/test_doctor.py",
    "server/test_fuzz.py",
    "server/test_native.py",
    "server/test_pytest_plugin.py",
    "server/test_runtime.py",
    "test_packaging.py",
)


def lane(nodeid: str) -> str:
    """Which lane a test is in."""
    path = PurePosixPath(nodeid.partition("::")[0])
    return "second" if any(path.is_relative_to(f"tests/{part}") for part in SECOND_LANE) else "first"


# Optional, for runs without pytest-xdist, whose own groups do nothing since pytest 9.2 (its issue 1386).
@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each lane to one worker, where `--dist loadgroup` asks for groups."""
    if config.getoption("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = lane
    return scheduler


def pytest_configure() -> None:
    """A shell starts what runs in its background deaf to Ctrl-C, and so would be all that the tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """After all tests no shared memory of ours is left."""
    yield
    left = [path.name for path in SHM.glob(f"tritium-{os.getpid()}-*")]
    assert not left, f"left in /dev/shm: {left}"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The URL of an S3 in this process, which keeps what it is sent in memory."""
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def s3_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials for that S3, and nothing that this machine may have for a real one."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def s3_url(s3_endpoint: str, s3_environment: None) -> str:
    """A place for a model repository in a bucket of its own, as Triton writes it."""
    bucket = f"models-{secrets.token_hex(6)}"
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket=bucket)
    return f"s3://{s3_endpoint}/{bucket}/prod"


@pytest.fixture(scope="session")
def built() -> Callable[[str], Built]:
    """Builds a reference model in the project's own repository, unless it is up to date; one lane waits for another."""
    project = Repository(ROOT / "model_repository")

    def once(name: str) -> Built:
        with FileLock(project.path / f".{name}.lock"):
            return build(name, project, progress=print)

    return once


@pytest.fixture(scope="session")
def whole_zoo(built: Callable[[str], Built]) -> Repository:
    """The project's own model repository, with every reference model built."""
    for name in MODELS:
        built(name)
    return Repository(ROOT / "model_repository")


@pytest.fixture(scope="session")
def zoo(built: Callable[[str], Built], tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository of the reference models of digits, which are enough for most tests; built in the project's own."""
    project = Repository(ROOT / "model_repository")
    few = tmp_path_factory.mktemp("zoo")
    for name in DIGITS:
        version = built(name).version
        shutil.copytree(project.version_folder(name, version), few / name / str(version))
        for beside in ("config.pbtxt", "labels.txt"):
            shutil.copy2(project.path / name / beside, few / name)
    return Repository(few)


@pytest.fixture(scope="session")
def server(zoo: Repository) -> Iterator[TritonServer]:
    """A Triton that serves those. Tests must not load or unload on it."""
    with TritonServer(zoo.path, open_groups=ADMIN_GROUPS) as running:
        yield running


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, server: TritonServer) -> Iterator[Client]:
    """A client of that server, over each protocol."""
    with server.client(protocol=request.param) as connected:
        yield connected
