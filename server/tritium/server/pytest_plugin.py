"""A pytest plugin whose fixtures serve a model repository with a real Triton while tests run.

pytest imports this in every run, wherever Tritium is installed: whatever else is needed is imported where it is used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tritium.client import Client

    from ._server import TritonServer

_CHOICES = {"triton_onnx_backend": ("auto", "native", "python"), "triton_protocol": ("http", "grpc")}
# How much of Triton's log a report shows at most.
_SHOWN_BYTES = 16 * 1024
# As much of it as every test shows whose server did not start, and how the lines begin that say nothing of why.
_SHOWN_LINES = 20
_TABLE = ("|", "+")
_WHERE_FROM = (
    "The repository is what --triton-repository, else the ini option triton_repository names, or what a fixture "
    "triton_repository of your own gives; the models are those of --triton-models, else of triton_models, else all"
)


class _Log:
    """What a server's log got since somebody last asked."""

    def __init__(self, server: TritonServer) -> None:
        self._path = server.log
        # What was said at the start is of no test.
        self._position = self._path.stat().st_size
        self._fresh = ""

    def collect(self) -> None:
        """Read on. After this the file may vanish."""
        with suppress(FileNotFoundError):
            text, self._position = _tail(self._path, self._position)
            self._fresh += text

    def take(self) -> str:
        """All that is new, without its beginning if it is long."""
        self.collect()
        text, self._fresh = self._fresh, ""
        return text


_LOG = pytest.StashKey[_Log]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    group = parser.getgroup("triton", "Triton (tritium)")
    group.addoption("--triton-repository", metavar="DIR", help="the model repository that triton_server serves")
    group.addoption("--triton-models", metavar="NAMES", help="its models to load, with commas between; all by default")
    parser.addini(
        "triton_repository", "the model repository that triton_server serves, from rootdir", default="model_repository"
    )
    parser.addini("triton_models", "its models to load; all by default", type="args", default=[])
    parser.addini("triton_onnx_backend", "what runs ONNX models: auto, native or python", default="auto")
    parser.addini("triton_startup_timeout_s", "seconds until every model must be ready", default="120")
    parser.addini("triton_protocol", "what triton_client speaks: http or grpc", default="http")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse options that can never be right, before any test runs."""
    for option, choices in _CHOICES.items():
        if (given := config.getini(option)) not in choices:
            raise pytest.UsageError(f"The ini option {option} must be {' or '.join(choices)}, got {given!r} instead")
    _startup_timeout_s(config)


@pytest.fixture(scope="session")
def triton_repository(pytestconfig: pytest.Config) -> Path:
    """The folder of the model repository; override it to build or export one first."""
    if option := pytestconfig.getoption("triton_repository"):
        return pytestconfig.invocation_params.dir / str(option)
    return pytestconfig.rootpath / str(pytestconfig.getini("triton_repository"))


@pytest.fixture(scope="session")
def triton_server(triton_repository: Path, pytestconfig: pytest.Config) -> Iterator[TritonServer]:
    """A real Triton that serves `triton_repository` on free ports, from the first test that uses it to the last."""
    from tritium.client import TritiumError

    from ._server import TritonServer

    with ExitStack() as stack:
        try:
            server = stack.enter_context(
                TritonServer(
                    triton_repository,
                    models=_models(pytestconfig),
                    onnx_backend=pytestconfig.getini("triton_onnx_backend"),
                    startup_timeout_s=_startup_timeout_s(pytestconfig),
                    progress=print,
                )
            )
        except TritiumError as exc:
            # A fault of the set-up: neither this code nor what it called is what the reader has to look at.
            raise pytest.fail.Exception(_why(exc), pytrace=False) from None
        log = pytestconfig.stash[_LOG] = _Log(server)
        yield server
        log.collect()


@pytest.fixture(scope="session")
def triton_client(triton_server: TritonServer, pytestconfig: pytest.Config) -> Iterator[Client]:
    """A client of that server, over the protocol that the ini option triton_protocol names."""
    with triton_server.client(protocol=pytestconfig.getini("triton_protocol")) as client:
        yield client


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Add to a test's report what Triton's log got during this phase of it, as pytest adds what was printed."""
    log = item.config.stash.get(_LOG, None)
    # What comes in while a test without Triton runs is what another left behind.
    if log and (text := log.take()) and "triton_server" in getattr(item, "fixturenames", ()):
        item.add_report_section(call.when, "Triton log", text)


def _models(config: pytest.Config) -> list[str] | None:
    """The models that were asked for; None for all."""
    option = config.getoption("triton_models")
    given = [option] if option else config.getini("triton_models")
    return [name.strip() for text in given for name in text.split(",") if name.strip()] or None


def _startup_timeout_s(config: pytest.Config) -> float:
    given = config.getini("triton_startup_timeout_s")
    with suppress(ValueError):
        if 0 < float(given) < float("inf"):
            return float(given)
    raise pytest.UsageError(
        f"The ini option triton_startup_timeout_s must be a number of seconds above 0, got {given!r} instead"
    )


def _why(exc: Exception) -> str:
    """What a reader has to know of a server that did not start."""
    from tritium.client import InputError

    from ._errors import StartError

    if isinstance(exc, InputError):
        return f"{exc}\n{_WHERE_FROM}"
    if isinstance(exc, StartError) and exc.log:
        lines = [line for line in _tail(exc.log)[0].splitlines() if line and not line.startswith(_TABLE)]
        return "\n".join([f"{exc}\nIt ends so:", *lines[-_SHOWN_LINES:]])
    return str(exc)


def _tail(path: Path, start: int = 0) -> tuple[str, int]:
    """What a log has from this position on, without its beginning if it is long, and the position of its end."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        # A log that became shorter was rotated: all of it is new.
        start = start if start <= end else 0
        shown = max(start, end - _SHOWN_BYTES)
        file.seek(shown)
        text = file.read(end - shown).decode(errors="replace")
    if shown > start:
        text = "…\n" + text.partition("\n")[2]
    return text, end
