"""The folders of running servers in the cache: who owns one, what it tells others, what is left of the dead.

A server's folder is `run/<id>`, and `<id>` also begins the names of its shared memory, so that whatever a crash leaves
can be told from everybody else's.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from tritium.repository import cache_dir

_SHM = Path("/dev/shm")
_RECORD = "server.json"
_KEPT_LOGS_S = 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class RunningServer:
    """What a running server tells other processes of the same user.

    Attributes:
        repository: the folder that it serves, or the URL of the repository in S3.
        http_url: as in ``http://127.0.0.1:8000``.
        grpc_url: as in ``grpc://127.0.0.1:8001``.
        secret: what administering it takes.
        supervisor_url: where its supervisor answers; None if it has none.
        watched: whether its supervisor reloads by itself what changes in the repository.
    """

    repository: str
    http_url: str
    grpc_url: str
    secret: str
    supervisor_url: str | None = None
    watched: bool = False

    def __repr__(self) -> str:
        """Without the secret."""
        return f"RunningServer(repository={self.repository!r}, http_url={self.http_url!r})"


def running_servers() -> list[RunningServer]:
    """The servers of this user and this cache that are running now."""
    return list(_running())


def run_folder(server_id: str) -> Path:
    """Where a server's log and record lie."""
    return cache_dir() / "run" / server_id


def shm_prefix(server_id: str) -> str:
    """What the names of a server's shared memory begin with."""
    return f"tritium-{server_id}-"


def sweep_shm(server_id: str) -> None:
    """Remove a server's shared memory, and no other's."""
    for region in _SHM.glob(f"{shm_prefix(server_id)}*"):
        region.unlink(missing_ok=True)


def hold(folder: Path) -> IO[str]:
    """Make a server's folder, with a lock in it that says for as long as it is open that the server has an owner."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / "lock").open("w", encoding="utf-8")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def write_record(folder: Path, record: RunningServer) -> None:
    """Tell other processes of this user about a server; nobody else may read it."""
    aside = folder / f".{_RECORD}"
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(record), file)
    aside.rename(folder / _RECORD)


def sweep_dead_owners() -> None:
    """Remove what servers of this cache left behind whose owner was killed: shared memory at once, logs after a day."""
    for folder in (cache_dir() / "run").glob("*-*"):
        # Another owner may be removing its folder just now, and what another user left is not ours to remove.
        with suppress(OSError), (folder / "lock").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            sweep_shm(folder.name)
            (folder / _RECORD).unlink(missing_ok=True)
            if time.time() - (folder / "triton.log").stat().st_mtime > _KEPT_LOGS_S:
                shutil.rmtree(folder)


def _running() -> Iterator[RunningServer]:
    for path in sorted((cache_dir() / "run").glob(f"*-*/{_RECORD}")):
        # A record without an owner is of a server that was killed; one that vanishes, of a server that stops.
        with suppress(OSError, ValueError, TypeError), (path.parent / "lock").open("r", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                yield RunningServer(**json.loads(path.read_text(encoding="utf-8")))
