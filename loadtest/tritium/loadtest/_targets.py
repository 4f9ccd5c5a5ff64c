"""What a run loads: a server that is there already, or one of the run's own."""

from __future__ import annotations

import random
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tritium.client import Client, InputError, TritiumError
from tritium.repository import Repository, config_text
from tritium.server import Supervisor, TritonServer

from ._observer import server_process
from ._suites import DELAYS_US, variant

# How often chaos does something.
_CHAOS_EVERY_S = 3.0


@dataclass
class Target:
    """A server to load.

    Attributes:
        url: where the load goes; the scheme chooses HTTP or gRPC.
        repository: whose golden cases are sent.
        client: to look at it with.
        pid: its process, if it runs on this machine.
        events: what was done to it, and when, in seconds of Unix time.
    """

    url: str
    repository: Repository
    client: Client
    pid: int | None
    events: list[tuple[float, str]] = field(default_factory=list)


@contextmanager
def existing(url: str, repository: Repository) -> Iterator[Target]:
    """A server that is there already."""
    with Client(url) as client:
        yield Target(url, repository, client, server_process(url))


@contextmanager
def embedded(repository: Repository, protocol: str) -> Iterator[Target]:
    """A server of the run's own, with everything in a repository."""
    with TritonServer(repository.path) as server, server.client() as client:
        yield Target(_url(server, protocol), repository, client, server.pid)


@contextmanager
def with_variants(repository: Repository, protocol: str, models: Sequence[str]) -> Iterator[Target]:
    """A server of the run's own, with a model's copies: dynamic batching off, and on with several delays.

    All are in one server, so that none is warmer than another.
    """
    with tempfile.TemporaryDirectory(prefix="tritium-batching-") as folder:
        for model in models:
            if repository.config(model).max_batch_size < 1:
                raise InputError(f"{model} takes no batches (max_batch_size is 0), so there is nothing to compare")
            for delay_us in DELAYS_US:
                _copy_with_delay(repository, model, delay_us, Path(folder))
        with embedded(Repository(folder), protocol) as target:
            yield target


@contextmanager
def in_chaos(repository: Repository, protocol: str, models: Sequence[str]) -> Iterator[Target]:
    """A supervised server of the run's own, with the models that are asked for, which is disturbed all the time."""
    triton = TritonServer(repository.path, models=models or None)
    with Supervisor(triton) as supervisor, supervisor.server.client() as client:
        target = Target(_url(supervisor.server, protocol), repository, client, supervisor.server.pid)
        with _chaos(target, supervisor, models or repository.models()):
            yield target


@contextmanager
def _chaos(target: Target, supervisor: Supervisor, models: Sequence[str]) -> Iterator[None]:
    """Every few seconds, by turns: kill a backend process, and reload a version. What is done goes to the events."""
    over = threading.Event()
    chance = random.Random(0)  # noqa: S311 — mischief, no secret

    def note(text: str) -> None:
        target.events.append((time.time(), text))

    def kill() -> None:
        with suppress(psutil.Error):
            # A child of Triton's is a backend process: a model's own.
            stubs = psutil.Process(supervisor.server.pid).children(recursive=True)
            if not stubs:
                note("found no backend process to kill: these models run within Triton")
            else:
                victim = chance.choice(stubs)
                note(f"killed {victim.name()} {victim.pid}")
                victim.kill()

    def reload() -> None:
        model = chance.choice(models)
        try:
            supervisor.reload(model)
            note(f"reloaded {model}")
        except TritiumError as exc:
            note(f"could not reload {model}: {exc}")

    def disturb() -> None:
        # Nothing of this before somebody asks: users begin by asking what the models are like.
        while not over.wait(0.5) and not _asked(target.client):
            pass
        acts = (kill, reload)
        turn = 0
        while not over.wait(_CHAOS_EVERY_S):
            acts[turn % len(acts)]()
            turn += 1

    thread = threading.Thread(target=disturb, name="tritium-chaos", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _asked(client: Client) -> bool:
    """Whether a server has answered anything yet."""
    with suppress(TritiumError):
        return any(int(item["inference_count"]) for item in client.statistics()["model_stats"])
    return False


def _copy_with_delay(repository: Repository, model: str, delay_us: int | None, folder: Path) -> None:
    """A copy of a model's latest version under another name, its batches waiting so long for more requests."""
    config = repository.config(model)
    config.name = variant(model, delay_us)
    if delay_us is None:
        config.ClearField("dynamic_batching")
    else:
        config.dynamic_batching.max_queue_delay_microseconds = delay_us
    version = repository.version_folder(model)
    target = folder / config.name
    shutil.copytree(version, target / version.name)
    for extra in (repository.path / model).iterdir():
        if extra.is_file():
            shutil.copy2(extra, target)
    (target / "config.pbtxt").write_text(config_text(config), encoding="utf-8")


def _url(server: TritonServer, protocol: str) -> str:
    return server.http_url if protocol == "http" else server.grpc_url
