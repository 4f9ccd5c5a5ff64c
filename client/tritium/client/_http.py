"""HTTP for `Client`: connections that are kept, and shared by all its threads."""

from __future__ import annotations

import os
import queue
import socket
import ssl
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from . import _answers as answers
from ._deadline import Deadline
from ._encoding import SMALL_BYTES, Data
from ._endpoint import Endpoint
from ._errors import DeadlineExceededError, TransportError
from ._fork import renew_after_fork
from ._http_reader import BadResponseError, ResponseReader
from ._http_wire import HttpWire
from ._idle import Watch
from ._options import Limits
from ._queries import Query
from ._request import InferAnswer, InferRequest

# More buffers than that no system takes at once.
_MOST_BUFFERS = 512
# TLS encrypts what it sends, so it copies anyhow: small parts are better joined into one record.
_JOINED_BYTES = 64 * 1024
# What a server that hung up said before is there already, if it said anything.
_LAST_WORDS_S = 0.2


class HttpTransport:
    """One server over HTTP/1.1.

    Args:
        endpoint: where it is.
        headers: sent with every request.
        context: TLS; None for plain HTTP.
        limits: how many connections there may be, and how long one may take to be made.
    """

    def __init__(
        self, endpoint: Endpoint, headers: Mapping[str, str], context: ssl.SSLContext | None, limits: Limits
    ) -> None:
        self.endpoint = endpoint
        self._wire = HttpWire(endpoint, headers)
        self._context = context
        self._limits = limits
        self._start()
        renew_after_fork(self)

    def _start(self) -> None:
        # The connection used last is used next, so that those beyond what is needed are the ones that grow old.
        self._idle: deque[_Connection] = deque()
        self._open = 0
        # Those who wait for a connection, in the order in which they came; each gets one, or None: leave to open one.
        self._line: deque[queue.SimpleQueue[_Connection | None]] = deque()
        self._lock = threading.Lock()
        self._closed = False

    def infer(self, request: InferRequest, deadline: Deadline) -> InferAnswer:
        """Run a model."""
        connection = self._take(deadline)
        try:
            # Only now: what is left of the time goes along.
            parts = self._wire.inference(request, deadline.need_s(self.endpoint))
            return self._wire.answer(request, connection.exchange(parts, deadline))
        finally:
            self._give_back(connection)

    def ask(self, query: Query, deadline: Deadline) -> Any:
        """Anything else, answered as plain JSON types."""
        connection = self._take(deadline)
        try:
            return self._wire.result(query, connection.exchange(self._wire.query(query), deadline))
        finally:
            self._give_back(connection)

    def close(self) -> None:
        """Close every connection, at the latest when its call ends."""
        self._closed = True
        with suppress(IndexError):
            while True:
                self._discard(self._idle.pop())

    def after_fork(self) -> None:
        """In a process that was forked: the connections are the parent's, which goes on using them."""
        for connection in self._idle:
            connection.abandon()
        closed = self._closed
        self._start()
        self._closed = closed

    def _take(self, deadline: Deadline) -> _Connection:
        while not self._closed:
            connection = self._idle_now() or self._next(deadline)
            if connection is None:
                return self._connect(deadline)
            try:
                if connection.usable():
                    return connection
            except BaseException:  # a greenlet may be ended where it looks
                self._discard(connection)
                raise
            self._discard(connection)
        raise answers.client_closed()

    def _idle_now(self) -> _Connection | None:
        """The usual way, which takes no lock: a deque's ends are safe between threads."""
        try:
            return None if self._line else self._idle.pop()
        except IndexError:
            return None

    def _next(self, deadline: Deadline) -> _Connection | None:
        """A connection that is given back, or None: leave to open one. Whoever has to wait for it stands in line."""
        with self._lock:
            if self._open < self._limits.max_connections:
                self._open += 1
                return None
            place: queue.SimpleQueue[_Connection | None] = queue.SimpleQueue()
            self._line.append(place)
        try:
            self._serve_line()  # one may have been given back just now
            return place.get(timeout=deadline.need_s(self.endpoint))
        except queue.Empty:
            self._leave(place)
            raise deadline.exceeded(self.endpoint) from None
        except BaseException:
            self._leave(place)
            raise

    def _leave(self, place: queue.SimpleQueue[_Connection | None]) -> None:
        with self._lock, suppress(ValueError):
            self._line.remove(place)
        # It may have been this one's turn at the same moment.
        with suppress(queue.Empty):
            connection = place.get_nowait()
            if connection is None:
                self._released()
            else:
                self._give_back(connection)

    def _serve_line(self) -> None:
        with self._lock, suppress(IndexError):
            while self._line:
                connection = self._idle.pop()
                self._line.popleft().put(connection)

    def _connect(self, deadline: Deadline) -> _Connection:
        try:
            return _Connection(self.endpoint, self._context, deadline, self._limits.connect_timeout_s)
        except BaseException:
            self._released()
            raise

    def _give_back(self, connection: _Connection) -> None:
        if not connection.reusable:
            self._discard(connection)
            return
        connection.forget()
        self._idle.append(connection)
        if self._line:
            self._serve_line()
        if self._closed:  # perhaps by another thread, just now
            self.close()

    def _discard(self, connection: _Connection) -> None:
        connection.close()
        self._released()

    def _released(self) -> None:
        """One connection less is open: the first in line may open another."""
        with self._lock:
            if self._line:
                self._line.popleft().put(None)
            else:
                self._open -= 1


class _Connection:
    """A socket, and the reader of what comes from it. One exchange at a time.

    Raises:
        ConnectFailedError: the server does not take it.
        DeadlineExceededError: it took too long.
    """

    __slots__ = ("_endpoint", "_gathers", "_reader", "_socket", "_tls", "_watch", "reusable")

    def __init__(
        self, endpoint: Endpoint, context: ssl.SSLContext | None, deadline: Deadline, connect_timeout_s: float
    ) -> None:
        made = _connected(endpoint, deadline, connect_timeout_s)
        try:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                made.settimeout(min(deadline.need_s(endpoint), connect_timeout_s))
                made = context.wrap_socket(made, server_hostname=endpoint.host.strip("[]"))
        except (OSError, UnicodeError) as exc:
            made.close()
            raise _not_connected(exc, endpoint, deadline) from exc
        self._socket = made
        self._endpoint = endpoint
        self._reader = ResponseReader()
        self._watch = Watch(made.fileno())
        # What TLS has deciphered, the socket does not show any more.
        self._tls = made if isinstance(made, ssl.SSLSocket) else None
        # TLS encrypts what it sends, and Windows has no such call.
        self._gathers = context is None and hasattr(made, "sendmsg")
        self.reusable = True

    def usable(self) -> bool:
        """Whether nothing has arrived since the last answer: neither its end nor words that nobody asked for."""
        if not self._watch.readable() and (self._tls is None or not self._tls.pending()):
            return True
        try:  # TLS has words of its own
            self._socket.settimeout(0)
            self._socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return False

    def exchange(self, parts: Sequence[Data], deadline: Deadline) -> ResponseReader:
        """Send a request and receive its response.

        Raises:
            ConnectFailedError: the connection broke.
            DeadlineExceededError: the response took too long.
            ProtocolError: what arrived is no HTTP response.
        """
        # Whatever ends this early, the rest of the response must never meet another request.
        self.reusable = False
        reader, receive = self._reader, self._socket.recv_into
        broken = self._send(parts, deadline)
        try:
            while True:
                count = receive(reader.space())
                if not count:
                    if not reader.begun:
                        raise answers.no_server(self._endpoint, broken or "closed before any answer", sent=True)
                    reader.ended()
                    break
                if reader.filled(count):
                    break
                self._socket.settimeout(deadline.need_s(self._endpoint))
        except BadResponseError as exc:
            raise answers.no_answer(self._endpoint, exc) from exc
        except DeadlineExceededError:
            raise
        except OSError as exc:
            raise self._failed(broken or exc, deadline) from exc
        self.reusable = reader.keep_alive and broken is None
        return reader

    def forget(self) -> None:
        """Let go of the last answer, which may be large."""
        self._reader.start()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def abandon(self) -> None:
        """Let the socket go without a word to the server, for which another process still holds it."""
        os.close(self._socket.detach())

    def _failed(self, exc: OSError, deadline: Deadline) -> TransportError:
        # The socket's own time is what is left of the call's.
        if isinstance(exc, TimeoutError) and exc.errno is None:
            return deadline.exceeded(self._endpoint)
        return answers.no_server(self._endpoint, exc, sent=True)

    def _send(self, parts: Sequence[Data], deadline: Deadline) -> OSError | None:
        """Send all parts, from where they lie. A server that hangs up meanwhile may have said why: see what it sent."""
        sock = self._socket
        try:
            if not self._gathers and sum(map(len, parts)) <= _JOINED_BYTES:
                parts = [b"".join(parts)]
            if len(parts) == 1 or not self._gathers:
                for part in parts:
                    sock.settimeout(deadline.need_s(self._endpoint))
                    sent = sock.send(part)  # nearly always all of it; under gevent, sendall asks the system twice
                    if sent < len(part):
                        sock.settimeout(deadline.need_s(self._endpoint))
                        sock.sendall(memoryview(part)[sent:])
                if len(parts[-1]) > SMALL_BYTES:  # which may have taken its time
                    sock.settimeout(deadline.need_s(self._endpoint))
                return None
            sock.settimeout(deadline.need_s(self._endpoint))
            sent = sock.sendmsg(parts[:_MOST_BUFFERS])
            left = [memoryview(part) for part in parts if len(part)]
            while True:
                while left and sent >= len(left[0]):
                    sent -= len(left.pop(0))
                if not left:
                    sock.settimeout(deadline.need_s(self._endpoint))  # for what is received next
                    return None
                left[0] = left[0][sent:]
                sock.settimeout(deadline.need_s(self._endpoint))
                sent = sock.sendmsg(left[:_MOST_BUFFERS])
        except DeadlineExceededError:
            raise
        except (BrokenPipeError, ConnectionResetError) as exc:
            sock.settimeout(min(_LAST_WORDS_S, deadline.need_s(self._endpoint)))
            return exc
        except OSError as exc:
            raise self._failed(exc, deadline) from exc


def _connected(endpoint: Endpoint, deadline: Deadline, connect_timeout_s: float) -> socket.socket:
    """A socket to the first of the host's addresses that takes it, all of them within one time."""
    ends = deadline.shortened(connect_timeout_s)
    failure: Exception = TimeoutError("it took too long")
    try:
        addresses = _addresses(endpoint.host.strip("[]"), endpoint.port)
    except (OSError, UnicodeError) as exc:
        raise _not_connected(exc, endpoint, deadline) from exc
    for family, address in addresses:
        left_s = ends.left_s()
        if left_s <= 0:
            break
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            made.settimeout(left_s)
            made.connect(address)
        except OSError as exc:
            made.close()
            failure = exc
        else:
            return made
    raise _not_connected(failure, endpoint, deadline) from failure


def _addresses(host: str, port: int) -> list[tuple[int, Any]]:
    """Where a host is. Of a number nobody need be asked, and the system's resolver has locks that a fork can break."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):
            socket.inet_pton(family, host)
            return [(family, (host, port))]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


def _not_connected(exc: Exception, endpoint: Endpoint, deadline: Deadline) -> TransportError:
    if isinstance(exc, DeadlineExceededError):
        return exc
    if isinstance(exc, TimeoutError) and deadline.left_s() <= 0:
        return deadline.exceeded(endpoint)
    return answers.no_server(endpoint, exc, sent=False)
