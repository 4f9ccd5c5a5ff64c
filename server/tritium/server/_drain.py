"""Ending a Triton in order: what it accepted is answered, and connections that nobody uses do not hold it.

Triton 2.51 by itself waits for idle HTTP connections until its time is up, goes on taking gRPC calls while it unloads
its models and answers them with errors, and never closes an open gRPC stream. What it lacks is done here, on its own
sockets.
"""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import os
import re
import socket
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ._process import BoundProcess

_LOOK_S = 0.05
# A busy connection rests for less than a millisecond between two answers: so all of them are watched closely for a
# moment, each for its share of that.
_MOMENT_S, _BLINK_S = 0.05, 0.0002
# The moment from which no request is under way any more, and what is said every second from then on.
_ALL_ANSWERED = re.compile(r"All models are stopped|Found \d+ live models")

_SYS_PIDFD_GETFD = 438
# Places in the kernel's `struct tcp_info`.
_STATE, _BYTES_ACKED, _BYTES_RECEIVED = slice(0, 1), slice(120, 128), slice(128, 136)
_ESTABLISHED = b"\x01"
_SO_ATTACH_FILTER = 26
# "return 1", an instruction of classic BPF: of what arrives, the TCP header alone is taken. So acknowledgments are, and
# data is not: its sender sees the connection close before a byte of an answer.
_RETURN_1 = struct.pack("HBBI", 0x06, 0, 0, 1)
# GOAWAY by RFC 9113 (6.8), of 8 bytes, for stream 0: all streams so far are served, no error. A client finishes its
# calls, makes new ones elsewhere, and closes the connection.
_GOAWAY = struct.pack(">I", 8)[1:] + struct.pack(">BBIII", 7, 0, 0, 2**31 - 1, 0)
_EPOLLIN, _EPOLLOUT = 1, 4
_INTEREST = re.compile(r"tfd:\s*(\d+) events:\s*([0-9a-f]+)")


def end_in_order(process: BoundProcess, ports: Mapping[str, int], timeout_s: float) -> int:
    """End Triton: it takes no more, answers what it took, and exits.

    Calls over gRPC get half of the time before Triton is told, since from then on it refuses them; over HTTP it serves
    until the last connection is closed. Where the system keeps us from Triton's sockets (a container may), it is told
    and no more.

    Args:
        process: Triton.
        ports: its ports; those of ``http`` and ``grpc`` are among them.
        timeout_s: seconds until it is killed.

    Returns:
        Its exit code; negative for the signal that ended it.
    """
    deadline = time.monotonic() + timeout_s
    with suppress(OSError):
        _finish_grpc(process, ports["grpc"], time.monotonic() + timeout_s / 2)
    process.terminate()
    with suppress(OSError):
        _close_idle(process, ports, deadline)
    return process.stop(max(0.0, deadline - time.monotonic()))


def _finish_grpc(process: BoundProcess, port: int, deadline: float) -> None:
    """Take no more connections, and let clients finish their calls and close those that are there."""
    told: set[str] = set()
    rests = _Rests()
    connected = 0
    while process.exit_code() is None:
        share_s, connected = _share_s(connected - len(told)), 0
        for taken in _sockets(process.pid, {port}):
            if time.monotonic() > deadline:
                return
            if taken.listens:
                taken.close()
            elif taken.is_connected and taken.has_received:
                connected += 1
                if taken.inode not in told and _soon(partial(rests.between_frames, taken), share_s):
                    told |= {taken.inode} if taken.send(_GOAWAY) else set()
        if not connected:
            return
        process.wait(_LOOK_S)


def _close_idle(process: BoundProcess, ports: Mapping[str, int], deadline: float) -> None:
    """Close every connection as soon as there is nothing to answer on it, until Triton has exited."""
    frozen: set[str] = set()
    idle: set[str] = set()
    rests = _Rests()
    connected = 0
    answered = False
    while process.exit_code() is None and time.monotonic() < deadline:
        answered = answered or any(map(_ALL_ANSWERED.search, list(process.tail)))
        idle_before, idle = idle, set()
        share_s, connected = _share_s(connected), 0
        for taken in _sockets(process.pid, set(ports.values())):
            if time.monotonic() > deadline:
                return
            if not taken.is_connected:
                continue
            if taken.port == ports["grpc"]:
                connected += 1
                nothing_left = answered and _soon(partial(rests.between_frames, taken), share_s)
            else:
                if taken.inode not in frozen:
                    taken.take_no_more()
                    frozen.add(taken.inode)
                nothing_left = taken.waits_for_a_request
            # Twice: what it read just before may be neither a request yet nor an answer.
            if nothing_left and taken.inode in idle_before:
                taken.close()
            elif nothing_left:
                idle.add(taken.inode)
        process.wait(_LOOK_S)


def _share_s(connections: int) -> float:
    """How long each of so many connections is watched; one look at each tells first how many they are."""
    return _MOMENT_S / connections if connections > 0 else 0.0


def _soon(is_so: Callable[[], bool], within_s: float) -> bool:
    """Whether something is so at one of many looks within that time."""
    ends_s = time.monotonic() + within_s
    while not (found := is_so()) and time.monotonic() < ends_s:
        time.sleep(_BLINK_S)
    return found


@dataclass(frozen=True)
class _Taken:
    """A TCP socket of Triton's that is ours too, for a moment: it cannot be closed for as long.

    Attributes:
        inode: what tells it from others, with a number that another one may have later.
        interest: what Triton's event loops wait for on it, as epoll's bits.
    """

    inode: str
    socket: socket.socket
    port: int
    interest: int

    @property
    def listens(self) -> bool:
        return bool(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))

    @property
    def is_connected(self) -> bool:
        """Whether both sides are open."""
        return self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _STATE.stop) == _ESTABLISHED

    @property
    def has_received(self) -> bool:
        """Whether anything ever arrived on a connection."""
        info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED.stop)
        return any(info[_BYTES_RECEIVED])

    @property
    def unread_bytes(self) -> int:
        return self._count(termios.FIONREAD)

    @property
    def unsent_bytes(self) -> int:
        """With those that were not acknowledged."""
        return self._count(termios.TIOCOUTQ)

    @property
    def waits_for_a_request(self) -> bool:
        """Whether nothing is under way on an HTTP connection: Triton reads none while a model has its request."""
        waits = self.interest & _EPOLLIN and not self.interest & _EPOLLOUT
        return bool(waits) and self.unread_bytes == 0 and self.unsent_bytes == 0

    @property
    def acked_bytes(self) -> int:
        """How much was sent in all, and has arrived."""
        info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.stop)
        return int.from_bytes(info[_BYTES_ACKED], sys.byteorder)

    @property
    def little_bytes(self) -> int:
        """What surely fits into the send buffer at once."""
        return self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 4

    def send(self, data: bytes) -> bool:
        """Put something between what Triton sends; whether that was possible."""
        try:
            self.socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:  # full, or closed by the other side
            return False
        return True

    def close(self) -> None:
        """Close it for both sides, whoever else has it."""
        with suppress(OSError):  # the other side was quicker
            self.socket.shutdown(socket.SHUT_RDWR)

    def take_no_more(self) -> None:
        """Leave what arrives from now on to its sender."""
        code = ctypes.create_string_buffer(_RETURN_1)
        program = struct.pack("HP", 1, ctypes.addressof(code))
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)

    def _count(self, request: int) -> int:
        count = array.array("i", [0])
        fcntl.ioctl(self.socket, request, count)
        return count[0]


class _Rests:
    """Since when nothing waits to be sent on each connection: whether what Triton writes next begins a frame.

    It writes whole frames, unless the send buffer gets full in one; then the rest of the frame comes when there is room
    again, and Triton gets to it. So little that was sent between two moments of rest ends with a frame: it was written
    at once, into a buffer with room for more. Where nothing was sent, or where a connection has had much to send, only
    a long rest tells that there is no rest of a frame to come.
    """

    def __init__(self) -> None:
        self._since: dict[str, tuple[int, float]] = {}
        self._much: set[str] = set()

    def between_frames(self, taken: _Taken) -> bool:
        """Whether it is so now."""
        unsent_bytes, little_bytes, now_s = taken.unsent_bytes, taken.little_bytes, time.monotonic()
        acked_bytes = taken.acked_bytes
        before_bytes, since_s = self._since.get(taken.inode, (acked_bytes, now_s))
        sent_bytes = acked_bytes - before_bytes
        if max(sent_bytes, unsent_bytes) >= little_bytes:
            self._much.add(taken.inode)
        if unsent_bytes:
            return False
        if sent_bytes or taken.inode not in self._since:
            self._since[taken.inode] = acked_bytes, now_s
        if sent_bytes and taken.inode not in self._much:
            return True
        return not sent_bytes and now_s - since_s >= _LOOK_S


def _sockets(pid: int, ports: set[int]) -> Iterator[_Taken]:
    """A process's TCP sockets with these ports of its own.

    Raises:
        OSError: the process has ended, or the system does not allow it.
    """
    files = _files(pid)
    interests = _interests(pid, files)
    pidfd = os.pidfd_open(pid)
    try:
        for number, target in files.items():
            if not target.startswith("socket:"):
                continue
            try:
                taken = _duplicate(pidfd, number)
            except OSError as exc:
                if exc.errno == errno.EBADF:  # closed meanwhile
                    continue
                raise
            with taken:
                if taken.family not in (socket.AF_INET, socket.AF_INET6) or taken.type != socket.SOCK_STREAM:
                    continue
                port = taken.getsockname()[1]
                if port in ports:
                    # By now the number may be another file's.
                    inode = f"socket:[{os.fstat(taken.fileno()).st_ino}]"
                    yield _Taken(inode, taken, port, interests.get(number, 0) if inode == target else 0)
    finally:
        os.close(pidfd)


def _files(pid: int) -> dict[int, str]:
    """What each open file of a process is, by its number."""
    found = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found[int(path.name)] = str(path.readlink())
    return found


def _interests(pid: int, files: Mapping[int, str]) -> dict[int, int]:
    """What a process's event loops wait for, by the number of the file that they wait on."""
    found: dict[int, int] = {}
    for number, target in files.items():
        if target == "anon_inode:[eventpoll]":
            with suppress(FileNotFoundError):
                for waited, events in _INTEREST.findall(Path(f"/proc/{pid}/fdinfo/{number}").read_text()):
                    found[int(waited)] = found.get(int(waited), 0) | int(events, 16)
    return found


def _duplicate(pidfd: int, number: int) -> socket.socket:
    libc = ctypes.CDLL(None, use_errno=True)
    copy = libc.syscall(_SYS_PIDFD_GETFD, pidfd, number, 0)
    if copy < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return socket.socket(fileno=copy)
