"""Memory that this process and a server on the same machine both see.

A region is a file in /dev/shm that both map. It is taken away at the end of its ``with`` block; should this process die
before, a guard does it: a small process that waits for the end of the other.
"""

from __future__ import annotations

import json
import math
import mmap
import operator
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, SupportsIndex

import numpy as np
from numpy.typing import DTypeLike

from . import _queries as queries
from ._base import BaseClient
from ._errors import InputError
from ._fork import renew_after_fork
from ._queries import Query
from ._request import Place
from ._tensors import Array, triton_dtype

_FOLDER = Path("/dev/shm")
_ALIGNMENT = 64


class SharedMemory:
    """A region of shared memory, from :meth:`Client.shared_memory`.

    Attributes:
        name: what the server calls it.
        size_bytes: how large it is.
    """

    def __init__(self, name: str, size_bytes: int, memory: mmap.mmap) -> None:
        self.name = name
        self.size_bytes = size_bytes
        # The arrays keep the mapping alive for as long as somebody has one of them, also beyond the block.
        self._bytes: Array = np.frombuffer(memory, np.uint8)
        self._start: int = self._bytes.__array_interface__["data"][0]
        self._used = 0
        self._lock = threading.Lock()
        self._owner = os.getpid()
        # Until the server says otherwise: the guard sees to it if nobody else could.
        self.registered = True

    def mine(self) -> bool:
        """Whether this process made it, and not the one that this one was forked from."""
        return os.getpid() == self._owner

    def __repr__(self) -> str:
        """As in ``SharedMemory('tritium-…', 4096 bytes, 256 used)``."""
        return f"SharedMemory({self.name!r}, {self.size_bytes} bytes, {self._used} used)"

    def array(self, shape: SupportsIndex | Sequence[SupportsIndex], dtype: DTypeLike) -> Array:
        """An array in the region, at the next free place that is a multiple of 64 bytes; zeros at first.

        Args:
            shape: its shape.
            dtype: a dtype that Triton has, strings excepted.

        Raises:
            InputError: there is no room left for it, or the dtype is another one.
        """
        wanted = np.dtype(dtype)
        if wanted.kind == "O" or triton_dtype(wanted) == "BYTES":
            raise InputError(f"An array in shared memory must hold numbers or booleans, got {wanted} instead")
        try:
            lengths = tuple(map(operator.index, (shape,) if isinstance(shape, SupportsIndex) else shape))
        except TypeError as exc:
            raise InputError(f"The 'shape' parameter of array must be whole numbers, got {shape!r} instead") from exc
        if any(n < 0 for n in lengths):
            raise InputError(f"The 'shape' parameter of array must have no negative lengths, got {shape!r} instead")
        size = math.prod(lengths) * wanted.itemsize
        with self._lock:
            start = -(-self._used // _ALIGNMENT) * _ALIGNMENT
            if fits := start + size <= self.size_bytes:
                self._used = start + size
        if not fits:
            raise InputError(
                f"The region has {self.size_bytes} bytes, {start} of them used; an array of "
                f"{wanted}{list(lengths)} needs {size}"
            )
        return self._bytes[start : start + size].view(wanted).reshape(lengths)

    def locate(self, array: Array) -> Place | None:
        """Where in the region an array lies; None if it does not."""
        offset = _begin(array, self._start, self.size_bytes)
        return None if offset is None else Place(self.name, offset, array.nbytes)

    def registration(self) -> Query:
        """What makes it known to the server."""
        return queries.register_shared_memory(self.name, f"/{self.name}", self.size_bytes)

    def unregistration(self) -> Query:
        """What makes the server forget it."""
        return queries.unregister_shared_memory(self.name)


@contextmanager
def guarded(client: BaseClient[Any], size_bytes: int) -> Iterator[SharedMemory]:
    """A region's file, gone after the block or after the end of this process, whichever comes first.

    Raises:
        InputError: there is no such memory here, or not as much.
    """
    if isinstance(size_bytes, bool) or not isinstance(size_bytes, int) or size_bytes < 1:
        raise InputError(f"The 'size_bytes' parameter of shared_memory must be 1 or more, got {size_bytes!r} instead")
    if sys.platform != "linux" or not _FOLDER.is_dir():
        raise InputError("Shared memory needs Linux, and a server on this machine")
    name = f"tritium-client-{os.getpid()}-{secrets.token_hex(6)}"
    path = _FOLDER / name
    guard = _Guard(client, name)
    region: SharedMemory | None = None
    try:
        region = SharedMemory(name, size_bytes, _mapped(path, size_bytes))
        yield region
    finally:
        if region is None or region.mine():
            path.unlink(missing_ok=True)
            guard.dismiss(done=region is None or not region.registered)


def _mapped(path: Path, size_bytes: int) -> mmap.mmap:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            # All of it now: a full file system would otherwise end the process that writes to it.
            os.posix_fallocate(descriptor, 0, size_bytes)
            return mmap.mmap(descriptor, size_bytes)
        finally:
            os.close(descriptor)
    except (OSError, OverflowError) as exc:
        raise InputError(f"There is no room for {size_bytes} bytes of shared memory: {exc}") from exc


class _Guard:
    """The process that takes a region away if this one cannot. It is told through a pipe, whose end is its sign."""

    def __init__(self, client: BaseClient[Any], name: str) -> None:
        task = {"name": name, "url": client.url, **client._secrets()}
        # A session of its own, so that a Ctrl-C meant for this process does not end it.
        self._process = subprocess.Popen(
            # The file itself: importing the package would cost the guard more than all that it has to do.
            [sys.executable, "-P", str(Path(__file__).with_name("_region_guard.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._tell(json.dumps(task))
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In the new process: its end of the pipe would hide the end of the other one."""
        with suppress(OSError):
            self._pipe.close()

    def dismiss(self, *, done: bool) -> None:
        """Let it go: `done` says whether there is nothing left for it to do."""
        if done:
            self._tell("done")
        with suppress(OSError):
            self._pipe.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        with suppress(OSError):
            self._pipe.write(line.encode() + b"\n")
            self._pipe.flush()

    @property
    def _pipe(self) -> IO[bytes]:
        assert self._process.stdin is not None  # noqa: S101 — narrows the type
        return self._process.stdin


def _begin(array: Array, start: int, size_bytes: int) -> int | None:
    """At which byte of a piece of memory a contiguous array begins; None if it does not lie there as a whole."""
    if not isinstance(array, np.ndarray) or not array.nbytes or not array.flags.c_contiguous or array.dtype.kind == "O":
        return None
    offset: int = array.__array_interface__["data"][0] - start
    return offset if offset >= 0 and offset + array.nbytes <= size_bytes else None
