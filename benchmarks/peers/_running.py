"""A server in processes of its own: started, found ready by its answers, weighed, and ended with all it started."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from benchmarks._h2load import ask_grpc
from benchmarks._shared import Array, BenchError, Model, free_port
from benchmarks._wrk import Side, ask
from benchmarks.peers._peers import OWN_BIN, Peer, Place

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 10.0
_PR_SET_CHILD_SUBREAPER = 36
_TAIL_CHARS = 2000
_SHM = Path("/dev/shm")


@dataclass(frozen=True)
class Running:
    """A server that answers rightly.

    Attributes:
        sides: by protocol.
        ready_s: from its start until every model was answered rightly over every protocol.
    """

    sides: Mapping[str, Side]
    ready_s: float


@dataclass(frozen=True)
class Memory:
    """Of all processes of a server, together; 1 MB is 1 000 000 bytes, a page that several share is counted once."""

    pss_mb: float
    processes: int


@contextmanager
def running(peer: Peer, bin_folder: Path | None, models: Sequence[Model], folder: Path) -> Iterator[Running]:
    """Start a server, alone, until the caller is done with it; in a new folder."""
    folder.mkdir(parents=True)
    ports = {protocol: free_port() for protocol in ("http", "grpc")}
    place = Place(bin_folder or OWN_BIN, folder, ports, models)
    command = peer.command(place)
    sides = {
        protocol: Side(peer.title, ports[protocol], {model.name: call(model, folder) for model in models})
        for protocol, call in peer.calls.items()
    }
    begun = time.perf_counter()
    with process(command, environment_of(peer, place), folder) as (popen, log):
        while problem := fault(sides, models):
            if popen.poll() is not None or time.perf_counter() - begun > START_TIMEOUT_S:
                raise BenchError(f"{peer.title} does not start: {problem}\n{log.read_text()[-_TAIL_CHARS:]}")
            time.sleep(0.02)
        yield Running(sides, time.perf_counter() - begun)


def environment_of(peer: Peer, place: Place) -> dict[str, str]:
    """The variables that a server is started with; it may keep what it compiles, as everybody's does."""
    env = os.environ | {"PATH": f"{place.bin}{os.pathsep}{os.environ['PATH']}"}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    if not peer.ours:
        served = [{"name": model.name, "file": str(model.file), "shape": model.row.shape} for model in place.models]
        env |= {"PYTHONPATH": str(ROOT), "BENCH_MODELS": json.dumps(served), "BENCH_FOLDER": str(place.folder)}
        env |= {f"BENCH_{protocol.upper()}_PORT": str(number) for protocol, number in place.ports.items()}
    return env | {name: value.format(folder=place.folder) for name, value in peer.env.items()}


@contextmanager
def process(
    command: Sequence[str], env: Mapping[str, str], folder: Path
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A program and its log; at the end it and all that it started are ended."""
    log = folder / "server.log"
    before = set(_SHM.iterdir())
    with log.open("wb") as output:
        popen = subprocess.Popen(
            command,
            env=env,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield popen, log
        finally:
            popen.terminate()
            with suppress(subprocess.TimeoutExpired):
                popen.wait(STOP_TIMEOUT_S)
            _end_all()
            popen.wait()
            _sweep(before)


def _sweep(before: set[Path]) -> None:
    """Remove the shared memory that a server left which had to be killed: of ours, new, and mapped by nobody."""
    left = {path for path in set(_SHM.iterdir()) - before if path.owner() == psutil.Process().username()}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            left -= {Path(mapped.path) for mapped in process.memory_maps()}
    for path in left:
        path.unlink(missing_ok=True)


def fault(sides: Mapping[str, Side], models: Sequence[Model]) -> str:
    """What is wrong with the first answer that is not right; empty if all are."""
    try:
        for protocol, side in sides.items():
            for model in models:
                answer = ask(side, model.name) if protocol == "http" else _read_grpc(side, model)
                model.check(answer, side.name)
    except BenchError as exc:
        return str(exc)
    return ""


def memory() -> Memory:
    """Of all that this process has started, which is one server."""
    sizes = []
    for item in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ended meanwhile
            sizes.append(item.memory_full_info().pss / 1e6)
    return Memory(sum(sizes), len(sizes))


def adopt_orphans() -> None:
    """What a server leaves behind becomes this process's child, so that it is found, weighed and ended."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _read_grpc(side: Side, model: Model) -> Array:
    return side.calls[model.name].read(ask_grpc(side, model.name))


def _end_all() -> None:
    """Until there is none: one that is ended may leave others, which are adopted."""
    while left := psutil.Process().children(recursive=True):
        for item in left:
            with suppress(psutil.NoSuchProcess):
                item.kill()
        psutil.wait_procs(left, timeout=STOP_TIMEOUT_S)
