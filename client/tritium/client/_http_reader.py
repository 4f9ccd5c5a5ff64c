"""Reads one HTTP/1.1 response from a connection, whoever receives its bytes. Pure: nothing here does I/O.

The head is collected in a buffer that the connection keeps; `httptools` takes it apart, unless it is the one before
again. What of a body of known length does not come with the head is received straight into the memory that the caller's
tensors become views of, placed so that the first tensor is aligned.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import httptools
import numpy as np

_HEAD_BYTES = 8 * 1024
_LONGEST_HEAD_BYTES = 64 * 1024
_ALIGNMENT = 16


class BadResponseError(Exception):
    """What arrived is not HTTP, or is cut short. Becomes one of the client's errors where it is caught."""


class _Head(NamedTuple):
    """The head of a response with a body of known length, and what it says."""

    text: bytes
    length: int
    status: int
    headers: Mapping[bytes, bytes]
    keep_alive: bool
    body_bytes: int
    json_length: int | None
    pad: int


class ResponseReader:
    """Reads the responses of one connection, one after the other.

    Fill :meth:`space` and say how much with :meth:`filled` until that says that the response is complete. Then
    `status`, `headers` (names in lower case), `body` and `keep_alive` are there; :meth:`start` begins the next.
    """

    __slots__ = (
        "_body_view",
        "_chunked",
        "_filled",
        "_head",
        "_known",
        "_received",
        "body",
        "headers",
        "json_length",
        "keep_alive",
        "status",
    )

    def __init__(self) -> None:
        self._head = bytearray(_HEAD_BYTES)
        self._known: _Head | None = None
        self._filled = 0
        self.status = 0
        self.headers: Mapping[bytes, bytes] = {}
        self.json_length: int | None = None
        self.keep_alive = False
        self.start()

    def start(self) -> None:
        """Forget the last response and begin with the next."""
        self._received = 0
        self._body_view: memoryview | None = None
        self._chunked: _UnknownLength | None = None
        self.body = _EMPTY

    @property
    def begun(self) -> bool:
        """Whether anything of the response has arrived."""
        return self._received > 0

    def space(self) -> memoryview:
        """Where the next bytes go; never empty before the response is complete."""
        if self._body_view is not None:
            return self._body_view[self._filled :]
        return memoryview(self._head)[0 if self._chunked else self._received :]

    def filled(self, count: int) -> bool:
        """Take what was put into the space; whether the response is complete.

        Raises:
            BadResponseError: it is not an HTTP response, or more arrived than it has.
        """
        if self._body_view is not None:
            self._filled += count
            return self._filled == len(self._body_view)
        if self._chunked is not None:
            return self._feed(self._chunked, self._head[:count])
        known = self._known
        if known is not None and not self._received and count >= known.length and self._head.startswith(known.text):
            # Servers say much the same each time, so that most heads were read before.
            self._received = count
            return self._begin_body(known)
        searched = max(0, self._received - 3)
        self._received += count
        while (end := self._head.find(b"\r\n\r\n", searched, self._received)) >= 0:
            complete = self._read_head(end + 4)
            if complete is not None:
                return complete
            searched = 0  # that was an announcement; what follows it may be there already
        if not self._head.startswith(b"HTTP/"[: self._received]):
            raise BadResponseError("it does not begin as HTTP does")
        if self._received == len(self._head):
            if self._received >= _LONGEST_HEAD_BYTES:
                raise BadResponseError(f"headers of more than {_LONGEST_HEAD_BYTES} bytes")
            # A new one: whoever filled the old one may hold on to its place in it.
            self._head = self._head + bytearray(len(self._head))
        return False

    def ended(self) -> None:
        """The server closed the connection. That is the end of a body that says nothing of its length.

        Raises:
            BadResponseError: it is too early.
        """
        if self._chunked is None or b"transfer-encoding" in self.headers:
            raise BadResponseError("the connection was closed in the middle of the answer")
        self._take(self._chunked)
        self.keep_alive = False

    def _read_head(self, length: int) -> bool | None:
        """Whether the response is complete with its head; None if it only announces the real one."""
        head = memoryview(self._head)[:length]
        if not self._head.startswith(b"HTTP/1."):
            raise BadResponseError("it does not begin as HTTP does")
        found: dict[bytes, bytes] = {}
        parser = httptools.HttpResponseParser(_HeadersOnly(found))
        try:
            parser.feed_data(head)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            raise BadResponseError(exc) from exc
        status = parser.get_status_code()
        if status < 100:
            raise BadResponseError(f"a status of {status}")
        if 100 <= status < 200:
            self._received -= length
            self._head[: self._received] = self._head[length : length + self._received]
            return None
        headers = {name.lower(): value for name, value in found.items()}
        # The parser's own judgement is gone where the body is empty. After a 500 some servers close without saying so.
        said = headers.get(b"connection", b"").lower()
        stays = b"close" not in said if parser.get_http_version() == "1.1" else b"keep-alive" in said
        size = b"0" if status in (204, 304) else headers.get(b"content-length")
        if size is None:
            self.status, self.headers, self.keep_alive = status, headers, stays and status != 500
            self._chunked = _UnknownLength()
            return self._feed(self._chunked, self._head[: self._received])
        json_length = _json_length(headers, int(size))
        keep_alive, pad = stays and status != 500, _pad(json_length)
        self._known = _Head(bytes(head), length, status, headers, keep_alive, int(size), json_length, pad)
        return self._begin_body(self._known)

    def _begin_body(self, head: _Head) -> bool:
        _, start, self.status, self.headers, self.keep_alive, size, self.json_length, pad = head
        end = start + size
        if self._received == end:
            # All of it is there already, behind the head: the end of that is what the tensors are aligned by.
            self.body = memoryview(self._head[start - pad : end])[pad:]
            return True
        if self._received > end:
            raise BadResponseError("more arrived than the answer has")
        self.body = self._body_view = _empty(size, pad)
        self._filled = self._received - start
        self.body[: self._filled] = memoryview(self._head)[start : self._received]
        return False

    def _feed(self, chunked: _UnknownLength, data: bytearray) -> bool:
        try:
            chunked.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            raise BadResponseError(exc) from exc
        if chunked.complete:
            self._take(chunked)
        return chunked.complete

    def _take(self, chunked: _UnknownLength) -> None:
        whole = b"".join(chunked.chunks)
        self.json_length = _json_length(self.headers, len(whole))
        self.body = _empty(len(whole), _pad(self.json_length))
        self.body[:] = whole


class _HeadersOnly:
    """What the parser calls when only the head is given to it: each header goes into a dict, without a detour."""

    __slots__ = ("on_header",)

    def __init__(self, headers: dict[bytes, bytes]) -> None:
        self.on_header = headers.__setitem__


class _UnknownLength:
    """A response whose body comes in chunks, or ends with the connection: the parser sees all of it."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.complete = False
        self.parser = httptools.HttpResponseParser(self)

    def on_message_begin(self) -> None:
        """The begin of a response, which must be the only one."""
        if self.complete:
            raise BadResponseError("more arrived than the answer has")

    def on_body(self, chunk: bytes) -> None:
        """A part of the body."""
        self.chunks.append(chunk)

    def on_message_complete(self) -> None:
        """The end of the response."""
        self.complete = True


def _json_length(headers: Mapping[bytes, bytes], size: int) -> int | None:
    """How much of a body is JSON before binary tensors; None if all of it is."""
    given = headers.get(b"inference-header-content-length")
    if given is None:
        return None
    if not given.isdigit() or int(given) > size:
        raise BadResponseError(f"{given!r} bytes of JSON in a body of {size}")
    return int(given)


def _pad(json_length: int | None) -> int:
    """How many bytes before a body align what follows its JSON."""
    return -(json_length or 0) % _ALIGNMENT


def _empty(size: int, pad: int) -> memoryview:
    """Room for a body; not zeroed, so that large ones cost no time."""
    try:
        return np.empty(size + pad, np.uint8).data[pad:]
    except (ValueError, MemoryError) as exc:
        raise BadResponseError(f"a body of {size} bytes: {exc}") from exc


_EMPTY = memoryview(b"")
