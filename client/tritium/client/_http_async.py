"""HTTP for `AsyncClient`: connections that are kept, all in one event loop."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import _answers as answers
from ._deadline import Deadline
from ._encoding import Data
from ._endpoint import Endpoint
from ._errors import CallError, InputError
from ._http_reader import BadResponseError, ResponseReader
from ._http_wire import HttpWire
from ._idle import Watch
from ._options import Limits
from ._queries import Query
from ._request import InferAnswer, InferRequest

# A request that is smaller goes out in one piece, which costs a copy and saves system calls.
_JOINED_BYTES = 64 * 1024


class AsyncHttpTransport:
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
        self._idle: list[_Connection] = []
        self._places = asyncio.Semaphore(limits.max_connections)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def infer(self, request: InferRequest, deadline: Deadline) -> InferAnswer:
        """Run a model."""
        connection, reader = await self._exchange(lambda left_s: self._wire.inference(request, left_s), deadline)
        try:
            return self._wire.answer(request, reader)
        finally:
            self._give_back(connection)

    async def ask(self, query: Query, deadline: Deadline) -> Any:
        """Anything else, answered as plain JSON types."""
        connection, reader = await self._exchange(lambda _: self._wire.query(query), deadline)
        try:
            return self._wire.result(query, reader)
        finally:
            self._give_back(connection)

    async def close(self) -> None:
        """Close every connection, at the latest when its call ends."""
        self._closed = True
        if self._loop is not asyncio.get_running_loop():
            return  # its connections went with their loop
        while self._idle:
            self._idle.pop().close()
        # The loop closes sockets in its next round.
        await asyncio.sleep(0)

    async def _exchange(
        self, make: Callable[[float], Sequence[Data]], deadline: Deadline
    ) -> tuple[_Connection, ResponseReader]:
        """Send a request and receive its response; the connection is to be given back once that is read.

        The request is made when there is a connection for it: what is left of the time goes along.
        """
        self._check_use()
        try:
            async with asyncio.timeout(deadline.need_s(self.endpoint)):
                await self._places.acquire()
                try:
                    connection = self._reused() or await self._connected(deadline)
                    try:
                        return connection, await connection.exchange(make(deadline.need_s(self.endpoint)))
                    except BaseException:
                        connection.close()
                        raise
                except BaseException:
                    self._places.release()
                    raise
        except CallError:
            raise
        except TimeoutError as exc:
            if exc.errno is not None:  # the system's own, of a connection that went silent
                raise answers.no_server(self.endpoint, exc, sent=True) from exc
            raise deadline.exceeded(self.endpoint) from exc
        except BadResponseError as exc:
            raise answers.no_answer(self.endpoint, exc) from exc
        except OSError as exc:
            raise answers.no_server(self.endpoint, exc, sent=True) from exc

    def _give_back(self, connection: _Connection) -> None:
        if connection.reusable and not self._closed:
            connection.forget()
            self._idle.append(connection)
        else:
            connection.close()
        self._places.release()

    def _reused(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable():
                return connection
            connection.close()
        return None

    async def _connected(self, deadline: Deadline) -> _Connection:
        loop, endpoint = asyncio.get_running_loop(), self.endpoint
        host = endpoint.host.strip("[]")
        try:
            async with asyncio.timeout(min(self._limits.connect_timeout_s, deadline.need_s(endpoint))):
                _, connection = await loop.create_connection(
                    lambda: _Connection(loop),
                    host,
                    endpoint.port,
                    ssl=self._context,
                    server_hostname=host if self._context else None,
                )
        except (OSError, UnicodeError) as exc:
            if isinstance(exc, TimeoutError) and deadline.left_s() <= 0:
                raise deadline.exceeded(endpoint) from exc
            cause = "it took too long" if isinstance(exc, TimeoutError) and exc.errno is None else exc
            raise answers.no_server(endpoint, cause, sent=False) from exc
        return connection

    def _check_use(self) -> None:
        if self._closed:
            raise answers.client_closed()
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise InputError("This AsyncClient belongs to another event loop; make one in each loop that needs one")


class _Connection(asyncio.BufferedProtocol):
    """A connection, and the reader of what comes from it. One exchange at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._reader = ResponseReader()
        self._transport: asyncio.Transport
        self._answered: asyncio.Future[ResponseReader] | None = None
        self.reusable = False

    async def exchange(self, parts: Sequence[Data]) -> ResponseReader:
        """Send a request and receive its response.

        Raises:
            OSError: the connection broke.
            BadResponseError: what arrived is no HTTP response.
        """
        self.reusable = False
        answered = self._answered = self._loop.create_future()
        if self._transport.is_closing():
            raise ConnectionResetError("the connection was closed")
        if len(parts) == 1:
            self._transport.write(parts[0])
        elif sum(map(len, parts)) <= _JOINED_BYTES:
            self._transport.write(b"".join(parts))
        else:
            for part in parts:
                self._transport.write(part)
        reader: ResponseReader = await answered
        unsent = self._transport.get_write_buffer_size()
        self.reusable = reader.keep_alive and not unsent and not self._transport.is_closing()
        return reader

    def forget(self) -> None:
        """Let go of the last answer, which may be large."""
        self._answered = None
        self._reader.start()

    def usable(self) -> bool:
        """Whether nothing has arrived since the last answer, also nothing that the loop has not come to yet."""
        return self.reusable and not self._watch.readable()

    def close(self) -> None:
        """Close the connection, whatever is still on its way."""
        self.reusable = False
        self._transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 — narrows the type
        self._transport = transport
        self._watch = Watch(transport.get_extra_info("socket").fileno())

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 — the loop's own guess
        """Where the next bytes go."""
        return self._reader.space() if self._waits() else memoryview(bytearray(64))

    def buffer_updated(self, count: int) -> None:
        """They are there."""
        answered = self._answered
        if answered is None or answered.done():
            # Words that nobody asked for: whatever they are, the connection is of no use any more.
            self.close()
            return
        try:
            if self._reader.filled(count):
                answered.set_result(self._reader)
        except BadResponseError as exc:
            answered.set_exception(exc)

    def eof_received(self) -> None:
        """The server ended its side: the loop closes the other one."""
        self._lost(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._lost(exc)

    def _waits(self) -> bool:
        return self._answered is not None and not self._answered.done()

    def _lost(self, exc: Exception | None) -> None:
        self.reusable = False
        answered = self._answered
        if answered is None or answered.done():
            return
        if exc is None and self._reader.begun:
            try:
                self._reader.ended()
                answered.set_result(self._reader)
            except BadResponseError as bad:
                answered.set_exception(bad)
        else:
            answered.set_exception(exc or ConnectionResetError("closed before any answer"))
