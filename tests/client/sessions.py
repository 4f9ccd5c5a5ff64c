"""Clients of either kind, used as if both were of the simple one; and what looks after their shared memory."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from tritium.client import AsyncClient, Client, SharedMemory


@contextmanager
def session(surface: str, url: str | list[str]) -> Iterator[tuple[Any, Callable[[Any], Any]]]:
    """A client of that kind, and what gives the result of one of its calls."""
    if surface == "sync":
        with Client(url) as client:
            yield client, lambda result: result
        return
    with asyncio.Runner() as runner:
        tasks = AsyncClient(url)
        try:
            yield tasks, runner.run
        finally:
            runner.run(tasks.close())


@contextmanager
def region_of(client: Any, run: Callable[[Any], Any], size_bytes: Any) -> Iterator[SharedMemory]:
    """A region of such a client."""
    memory = client.shared_memory(size_bytes)
    if isinstance(client, Client):
        with memory as region:
            yield region
        return
    region = run(memory.__aenter__())
    try:
        yield region
    except BaseException:
        run(memory.__aexit__(*sys.exc_info()))
        raise
    run(memory.__aexit__(None, None, None))


def wait_until(condition: Callable[[], bool], within_s: float = 30) -> None:
    """Wait for what is sure to come."""
    ends_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < ends_s, "what was waited for did not come"
        threading.Event().wait(0.01)


def guards(pid: int) -> list[psutil.Process]:
    """The processes that look after the regions of another one."""
    return [child for child in psutil.Process(pid).children() if "_region_guard" in " ".join(child.cmdline())]


def is_gone(process: psutil.Process) -> bool:
    """Whether a process is over, also if nobody has asked for its end yet."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
