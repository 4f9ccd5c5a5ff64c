"""A TCP proxy that misbehaves by a plan, to put before a real server.

A plan is an iterable of faults. Before an HTTP server one is drawn for each exchange: the first of a connection as it
is accepted, each further one as its request arrives. Before a gRPC server one is drawn for each connection, and all
bytes from the server are its "response". When the plan ends, everything passes. Whatever is random is seeded.
"""

from __future__ import annotations

import json
import random
import re
import selectors
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import BinaryIO, Literal, Self, TypeAlias
from urllib.parse import urlsplit

_CHUNK_BYTES = 65536
# How a connection ends: by a reset, or by a half-close after which the proxy still reads.
End: TypeAlias = Literal["RST", "FIN"]
# When a client is gone, the server may finish what it has begun, until it has been still for so long: Triton 2.51 can
# crash when gRPC requests that it runs are cancelled (https://github.com/triton-inference-server/server/issues/8034).
_STILL_S = {"http": 0.0, "grpc": 0.05}  # over HTTP it has finished by then
_LENGTH = re.compile(rb"\r\n(content-length: *)(\d+)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to a response. The fields combine, in this order; a fault without any lets the response pass.

    Attributes:
        refuse: the connection is reset, and the server hears nothing of the request.
        answer: the whole response, which is the proxy's own; the server is not asked. HTTP only.
        rewrite: from the response, and the one before on this connection (empty at first), to what is sent instead.
        delay_s: seconds before the response. It then comes in one packet, however many the server had sent.
        piece_bytes: the response comes in packets of 1 to so many bytes.
        pause_s: seconds between those.
        cut_after: bytes of the response that still pass, all of them if None; over HTTP a negative number counts from
            the end. The others never come.
        end: how the connection ends then; None if it does not.
    """

    refuse: bool = False
    answer: bytes | None = None
    rewrite: Callable[[bytes, bytes], bytes] = lambda response, _before: response
    delay_s: float = 0.0
    piece_bytes: int | None = None
    pause_s: float = 0.0
    cut_after: int | None = None
    end: End | None = None


def refusal(status: str, retry_after: str | None = None) -> Fault:
    """A well-formed error of the proxy's own, such as ``503 Service Unavailable``; the connection stays."""
    body = json.dumps({"error": f"the proxy says {status}"}).encode()
    header = f"Retry-After: {retry_after}\r\n" if retry_after is not None else ""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{header}Content-Length: {len(body)}\r\n\r\n"
    return Fault(answer=head.encode() + body)


def noise(size_bytes: int) -> bytes:
    """Bytes that mean nothing."""
    return random.Random(size_bytes).randbytes(size_bytes)


def _with_length(change: Callable[[int], object]) -> Callable[[bytes, bytes], bytes]:
    def rewrite(response: bytes, _before: bytes) -> bytes:
        return _LENGTH.sub(lambda found: b"\r\n%b%b" % (found[1], str(change(int(found[2]))).encode()), response, 1)

    return rewrite


def _with_other_id(response: bytes, _before: bytes) -> bytes:
    return re.sub(rb'("id" *: *")([^"]+)"', lambda found: b'%b%b"' % (found[1], b"~" * len(found[2])), response)


PASS = Fault()
FAULTS: Mapping[str, Fault] = {
    "delay": Fault(delay_s=0.01),
    "silence": Fault(delay_s=3600),
    "silence_in_body": Fault(cut_after=-5),
    "dribble": Fault(piece_bytes=1, pause_s=0.02),
    "split": Fault(piece_bytes=7),
    "bytewise": Fault(piece_bytes=1),
    "reset_at_connect": Fault(refuse=True),
    "reset_before": Fault(cut_after=0, end="RST"),
    "reset_in_header": Fault(cut_after=20, end="RST"),
    "reset_in_body": Fault(cut_after=-5, end="RST"),
    "reset_after": Fault(end="RST"),
    "fin_before": Fault(cut_after=0, end="FIN"),
    "fin_in_header": Fault(cut_after=20, end="FIN"),
    "fin_in_body": Fault(cut_after=-5, end="FIN"),
    "fin_after": Fault(end="FIN"),
    "unavailable": refusal("503 Service Unavailable"),
    "unavailable_for_a_second": refusal("503 Service Unavailable", retry_after="1"),
    "noise": Fault(rewrite=lambda _response, _before: noise(300)),
    "noise_with_a_status": Fault(rewrite=lambda _response, _before: b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % noise(300)),
    "noise_after": Fault(rewrite=lambda response, _before: response + noise(40)),
    "duplicate": Fault(rewrite=lambda response, _before: response * 2),
    "duplicate_bytewise": Fault(rewrite=lambda response, _before: response * 2, piece_bytes=1),
    "response_before": Fault(rewrite=lambda response, before: before or response),
    # Of the same length, so that nothing else is wrong.
    "other_id": Fault(rewrite=_with_other_id),
    "length_of_words": Fault(rewrite=_with_length(lambda _length: "many")),
    "negative_length": Fault(rewrite=_with_length(lambda length: -length - 1)),
    "short_length": Fault(rewrite=_with_length(lambda length: length // 2)),
    # More than ever comes: without the end that follows it would be silence.
    "long_length": Fault(rewrite=_with_length(lambda length: length + 7), end="FIN"),
}


def now_and_then(faults: Sequence[Fault], *, share: float, seed: int) -> Iterator[Fault]:
    """An endless plan: a random one of the faults for this share of all exchanges, and nothing for the others."""
    chance = random.Random(seed)
    while True:
        yield chance.choice(faults) if chance.random() < share else PASS


@dataclass
class Changing(Iterator[Fault]):
    """An endless plan that repeats one fault, until the test assigns another."""

    fault: Fault = PASS

    def __next__(self) -> Fault:
        return self.fault


class FaultyProxy:
    """Stands before the server of a URL, on a free port of the loopback, inside a ``with`` block.

    Attributes:
        url: where clients find it: the server's scheme with the proxy's address.
        connections: how many it has accepted.
        ended: how many it has ended; the client may not have noticed yet.
        done: how often each fault was drawn.
    """

    def __init__(self, server_url: str, plan: Iterable[Fault] = ()) -> None:
        parts = urlsplit(server_url)
        self._server = (parts.hostname or "127.0.0.1", parts.port or 0)
        self._serve = self._serve_http if parts.scheme == "http" else self._serve_stream
        self._still_s = _STILL_S[parts.scheme]
        self._plan = iter(plan)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"{parts.scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = self.ended = 0
        self.done: Counter[Fault] = Counter()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._clients: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)  # closing alone would not wake a thread that waits on it
        self.break_connections()
        for thread in self._threads:  # the first adds to them, and ends before the loop goes on
            thread.join(timeout=10)
            assert not thread.is_alive(), f"{thread} goes on"
        self._listener.close()

    def break_connections(self) -> None:
        """End all clients' connections of this moment, in the middle of whatever they do."""
        with self._lock:
            for opened in self._clients:
                with suppress(OSError):
                    opened.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def _held(self, client: socket.socket) -> Iterator[None]:
        """A client's connection can be broken from outside as long as it is open."""
        with client:
            with self._lock:
                if self._stopping.is_set():
                    raise ConnectionAbortedError
                self._clients.add(client)
            try:
                yield
            finally:
                with self._lock:
                    self._clients.discard(client)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                self._threads.append(threading.Thread(target=self._converse, args=(client,)))
                self._threads[-1].start()

    def _converse(self, client: socket.socket) -> None:
        # Either side may go away at any time.
        with suppress(OSError, EOFError), self._held(client):
            if (fault := self._draw()).refuse:
                self._end(client, "RST")
                return
            with socket.create_connection(self._server) as server:
                for opened in (client, server):
                    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    self._end(client, self._serve(client, server, fault))
                finally:
                    _drain(server, self._still_s)
            _drain(client, None)

    def _end(self, client: socket.socket, end: End) -> None:
        if end == "FIN":
            client.shutdown(socket.SHUT_WR)
        else:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        self.ended += 1

    def _draw(self) -> Fault:
        with self._lock:
            fault = next(self._plan, PASS)
            self.done[fault] += 1
            return fault

    def _serve_http(self, client: socket.socket, server: socket.socket, first: Fault) -> End:
        fault: Fault | None = first
        before = b""
        with client.makefile("rb") as requests, server.makefile("rb") as responses:
            while True:
                request = _message(requests)
                fault = fault or self._draw()
                if fault.refuse:
                    return "RST"
                if not (response := fault.answer or b""):
                    server.sendall(request)
                    arrived = _message(responses)
                    response, before = fault.rewrite(arrived, before), arrived
                self._reply(client, response[: fault.cut_after], fault)
                if fault.end:
                    return fault.end
                fault = None

    def _serve_stream(self, client: socket.socket, server: socket.socket, fault: Fault) -> End:
        if fault.answer is not None or (fault.cut_after or 0) < 0:
            raise ValueError(f"{fault} needs to know where a response ends, and is for HTTP only")
        passed, before = 0, b""
        with selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ)
            selector.register(server, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                if client in ready:
                    if not (request := client.recv(_CHUNK_BYTES)):
                        raise EOFError
                    server.sendall(request)
                if server in ready:
                    self._stopping.wait(fault.delay_s)
                    if not (arrived := server.recv(_CHUNK_BYTES)):
                        return "FIN"
                    data, before = fault.rewrite(arrived, before), arrived
                    if fault.cut_after is not None:
                        data = data[: fault.cut_after - passed]
                    self._reply(client, data, replace(fault, delay_s=0.0))
                    passed += len(data)
                    if fault.end and passed == fault.cut_after:
                        return fault.end

    def _reply(self, client: socket.socket, response: bytes, fault: Fault) -> None:
        chance, sent, stopped = random.Random(len(response)), 0, self._stopping.wait(fault.delay_s)
        while sent < len(response) and not stopped:
            end = sent + chance.randint(1, fault.piece_bytes) if fault.piece_bytes else len(response)
            client.sendall(response[sent:end])
            sent, stopped = end, self._stopping.wait(fault.pause_s)


def _message(stream: BinaryIO) -> bytes:
    """One HTTP message with its body."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        if not (line := stream.readline()):
            raise EOFError
        head += line
    length = _LENGTH.search(head)
    return head + stream.read(int(length[2]) if length else 0)


def _drain(opened: socket.socket, still_s: float | None) -> None:
    """Read until the end, or until nothing has come for so long."""
    opened.settimeout(still_s)
    with suppress(OSError):
        while opened.recv(_CHUNK_BYTES):
            pass


def setter(plan: Changing, fault: Fault) -> Callable[[], None]:
    """What puts a fault into a plan when it is called."""

    def change() -> None:
        plan.fault = fault

    return change


def upcoming(faults: list[Fault]) -> Iterator[Fault]:
    """A plan that takes what stands in a list, and can be added to later."""
    while True:
        yield faults.pop(0) if faults else PASS
