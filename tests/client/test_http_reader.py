"""Reading HTTP responses: however their bytes are split, whatever says their length, and where they are none."""

from __future__ import annotations

import http.client
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritium.client._http_reader import BadResponseError, ResponseReader

OK = b"HTTP/1.1 200 OK\r\n"
SETTINGS = settings(deadline=None, derandomize=True, database=None, max_examples=200)
SERVER_ERROR = 500


@dataclass(frozen=True)
class Response:
    """What was read: `rest` is what of the bytes was not taken."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    json_length: int | None
    keep_alive: bool
    rest: bytes


def _read(pieces: Iterable[bytes], *, ended: bool = False, reader: ResponseReader | None = None) -> Response | None:
    """Give the pieces to a reader as a connection does; None if the response is not complete after them."""
    reader = reader or ResponseReader()
    reader.start()
    data, complete = iter(pieces), False
    rest = b""
    for piece in data:
        rest = piece
        while rest and not complete:
            space = reader.space()
            assert len(space) > 0
            count = min(len(space), len(rest))
            # The buffer is still held while it is reported as filled: so does asyncio.
            space[:count] = rest[:count]
            rest = rest[count:]
            complete = reader.filled(count)
            del space
        if complete:
            break
    if not complete and ended:
        reader.ended()
    elif not complete:
        return None
    headers = tuple(sorted(reader.headers.items()))
    body = reader.body.tobytes()
    rest += b"".join(data)
    return Response(reader.status, headers, body, reader.json_length, reader.keep_alive, rest)


def _cut(data: bytes, places: Iterable[int]) -> Iterator[bytes]:
    """The data in pieces that end at those places, as far as there are so many bytes."""
    start = 0
    for place in sorted({place % (len(data) + 1) for place in places}):
        yield data[start:place]
        start = place
    yield data[start:]


PLACES = st.lists(st.integers(0, 10_000), max_size=12)
HEADER_TEXT = st.text(st.characters(codec="ascii", min_codepoint=33, max_codepoint=126, exclude_characters=":"))
STATUSES = st.sampled_from([200, 201, 400, 404, 429, SERVER_ERROR, 503, 599])
BODIES = st.one_of(st.binary(max_size=300), st.binary(min_size=1, max_size=40).map(lambda part: part * 700))


@st.composite
def responses(draw: st.DrawFn, framings: tuple[str, ...] = ("length", "chunks", "end", "none")) -> tuple[bytes, bool]:
    """A whole response, and whether the end of the connection is its end."""
    framing = draw(st.sampled_from(framings))
    lines = [f"X-{index}: {draw(HEADER_TEXT)}".encode() for index in range(draw(st.integers(0, 3)))]
    if draw(st.booleans()):
        lines.append(b"X-Long: " + b"y" * draw(st.integers(0, 40_000)))
    if draw(st.booleans()):
        lines.append(draw(st.sampled_from([b"Connection: close", b"connection: keep-alive", b"Connection: Close"])))
    body = draw(BODIES)
    if framing == "none":
        status, body = draw(st.sampled_from([204, 304])), b""
        lines += draw(st.sampled_from([[], [b"Content-Length: 5"]]))
    else:
        status = draw(STATUSES)
    if framing in ("length", "chunks") and draw(st.booleans()):
        lines.append(b"Inference-Header-Content-Length: %d" % draw(st.integers(0, len(body))))
    if framing == "length":
        lines.append(b"Content-Length: %d" % len(body))
    if framing == "chunks":
        lines.append(b"Transfer-Encoding: chunked")
        parts = [part for part in _cut(body, draw(PLACES)) if part]
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n"
        body += draw(st.sampled_from([b"", b"X-Trailer: 1\r\n"])) + b"\r\n"
    interim = draw(st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100\r\nX: 1\r\n\r\n" * 2]))
    head = b"HTTP/1.1 %d Reason\r\n" % status + b"".join(line + b"\r\n" for line in draw(st.permutations(lines)))
    return interim + head + b"\r\n" + body, framing == "end"


@given(whole=responses(), places=PLACES)
@SETTINGS
def test_any_split_into_pieces_gives_the_same_response(whole: tuple[bytes, bool], places: list[int]) -> None:
    data, ended = whole
    response = _read([data], ended=ended)
    assert response is not None
    assert _read(_cut(data, places), ended=ended) == response


@given(whole=responses())
@settings(SETTINGS, max_examples=40)
def test_a_response_byte_by_byte_is_the_same(whole: tuple[bytes, bool]) -> None:
    data, ended = whole
    assert _read((data[index : index + 1] for index in range(len(data))), ended=ended) == _read([data], ended=ended)


class _Socket:
    """What `http.client` reads a response from."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


@given(whole=responses())
@SETTINGS
def test_a_response_is_what_the_standard_library_reads_too(whole: tuple[bytes, bool]) -> None:
    data, ended = whole
    theirs = http.client.HTTPResponse(cast(Any, _Socket(data)))
    theirs.begin()
    body = theirs.read()
    ours = _read([data], ended=ended)
    assert ours is not None
    assert (ours.status, ours.body) == (theirs.status, body)
    assert dict(ours.headers) == {key.lower().encode(): value.encode() for key, value in theirs.getheaders()}
    # After a 500 some servers close the connection without saying so.
    assert ours.keep_alive == (not theirs.will_close and not ended and theirs.status != SERVER_ERROR)


@given(first=responses(), second=responses(("length", "chunks", "none")), places=PLACES)
@SETTINGS
def test_a_reader_keeps_nothing_of_the_response_before(
    first: tuple[bytes, bool], second: tuple[bytes, bool], places: list[int]
) -> None:
    reader = ResponseReader()
    _read([first[0]], ended=first[1], reader=reader)
    assert _read(_cut(second[0], places), reader=reader) == _read([second[0]])


@given(first=responses(), first_places=PLACES, cut=st.integers(0, 10_000), second=responses(("length", "chunks")))
@SETTINGS
def test_a_reader_keeps_nothing_of_a_response_that_was_given_up(
    first: tuple[bytes, bool], first_places: list[int], cut: int, second: tuple[bytes, bool]
) -> None:
    reader = ResponseReader()
    _read(_cut(first[0][: cut % len(first[0])], first_places), reader=reader)
    assert _read([second[0]], reader=reader) == _read([second[0]])


# the end


@pytest.mark.parametrize(
    "second",
    [
        OK + b"Content-Length: 12\r\n\r\n" + b"b" * 12,
        OK + b"Content-Length: 13\r\n\r\n" + b"b" * 13,
        OK + b"Content-Length: 1\r\n\r\nb",
        OK + b"Content-Length: 12\r\nConnection: close\r\n\r\n" + b"b" * 12,
        b"HTTP/1.1 503 No\r\nContent-Length: 12\r\n\r\n" + b"b" * 12,
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 12\r\n\r\n" + b"b" * 12,
    ],
)
def test_a_head_like_the_one_before_is_read_by_its_own_bytes(second: bytes) -> None:
    expected = _read([second])
    assert expected is not None
    for cut in range(1, len(second)):
        reader = ResponseReader()
        for _ in range(2):
            assert _read([OK + b"Content-Length: 12\r\n\r\n" + b"a" * 12], reader=reader) is not None
        assert _read([second[:cut], second[cut:]], reader=reader) == expected


def test_bodies_of_responses_with_the_same_head_are_arrays_of_their_own() -> None:
    reader, bodies = ResponseReader(), []
    for letter in b"abc":
        assert _read([OK + b"Content-Length: 4\r\n\r\n" + bytes([letter] * 4)], reader=reader) is not None
        bodies.append(reader.body)
    assert [bytes(body) for body in bodies] == [b"aaaa", b"bbbb", b"cccc"]


@given(whole=responses(("length", "chunks", "none")), cut=st.integers(0, 100_000), places=PLACES)
@SETTINGS
def test_a_response_that_is_cut_short_is_an_error(whole: tuple[bytes, bool], cut: int, places: list[int]) -> None:
    data = whole[0][: cut % len(whole[0])]
    assert _read(_cut(data, places)) is None
    with pytest.raises(BadResponseError, match="closed in the middle of the answer"):
        _read(_cut(data, places), ended=True)


@given(
    whole=responses(("length", "chunks", "none")),
    extra=st.one_of(st.just(OK), st.binary(min_size=1, max_size=20).filter(lambda data: data.strip(b"\r\n"))),
    places=PLACES,
)
@SETTINGS
def test_what_comes_after_a_response_is_never_a_part_of_it(
    whole: tuple[bytes, bool], extra: bytes, places: list[int]
) -> None:
    data, expected = whole[0], _read([whole[0]])
    assert expected is not None
    try:
        response = _read(_cut(data + extra, places))
    except BadResponseError:
        return
    # It is left where it is, for the connection to stumble over.
    assert response == replace(expected, rest=extra)


def test_more_than_the_length_says_is_an_error_where_it_is_seen() -> None:
    for head in (b"Content-Length: 1\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n\r\n"):
        with pytest.raises(BadResponseError):
            _read([OK + head + b"}"])


# lengths


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 2\r\nContent-Length: 2",
        b"Content-Length: 2\r\nContent-Length: 3",
        b"Content-Length: 2, 2",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 2",
        b"Content-Length:",
        b"Content-Length: +2",
        b"Content-Length: -2",
        b"Content-Length: 0x2",
        b"Content-Length: 1_0",
        b"Content-Length: two",
        b"Content-Length: 2.0",
        b"Content-Length : 2",
        b"Content-Length: 9223372036854775807",
        b"Content-Length: 18446744073709551615",
        b"Content-Length: 99999999999999999999999999",
        b"Content-Length: 2\r\nInference-Header-Content-Length: 3",
        b"Content-Length: 2\r\nInference-Header-Content-Length: -1",
        b"Content-Length: 2\r\nInference-Header-Content-Length: \xb2",
        b"X: 1\r\n folded",
        b"X",
        b"X: \0",
    ],
)
def test_a_head_that_could_mean_two_things_is_an_error(head: bytes) -> None:
    with pytest.raises(BadResponseError):
        _read([OK + head + b"\r\n\r\n{}"])
    with pytest.raises(BadResponseError):
        _read([bytes((byte,)) for byte in OK + head + b"\r\n\r\n{}"], ended=True)


@pytest.mark.parametrize("coding", [b"gzip", b"identity", b"chunked, gzip"])
def test_a_coding_that_nobody_asked_for_has_no_end(coding: bytes) -> None:
    with pytest.raises(BadResponseError):
        _read([OK + b"Transfer-Encoding: " + coding + b"\r\n\r\n2\r\nab\r\n0\r\n\r\n"], ended=True)


@pytest.mark.parametrize("size", [b"ffffffffffffffffff", b"-1", b"g", b" 2", b"0x2"])
def test_a_chunk_of_no_size_is_an_error(size: bytes) -> None:
    with pytest.raises(BadResponseError):
        _read([OK + b"Transfer-Encoding: chunked\r\n\r\n" + size + b"\r\nab\r\n0\r\n\r\n"])


def test_headers_may_be_huge_up_to_a_limit() -> None:
    head = OK + b"X: " + b"y" * 60_000 + b"\r\nContent-Length: 2\r\n\r\n"
    response = _read([head + b"{}"])
    assert response is not None
    assert response.body == b"{}"
    with pytest.raises(BadResponseError, match="headers of more than 65536 bytes"):
        _read([OK + b"X: " + b"y" * 70_000 + b"\r\nContent-Length: 2\r\n\r\n{}"])


def test_a_head_without_end_is_an_error_before_the_memory_is_full() -> None:
    with pytest.raises(BadResponseError, match="headers of more than"):
        _read(OK if not index else b"X: 1\r\n" for index in range(1_000_000))


@pytest.mark.parametrize("count", [1, 510, 4000])
def test_any_number_of_announcements_may_come_before_the_response(count: int) -> None:
    response = _read([b"HTTP/1.1 100\r\n\r\n" * count + OK + b"Content-Length: 2\r\n\r\n{}"])
    assert response is not None
    assert (response.status, response.body) == (200, b"{}")


def test_a_change_of_protocol_is_no_response() -> None:
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    with pytest.raises(BadResponseError):
        _read([switch], ended=True)


@pytest.mark.parametrize("status", [b"000", b"099", b"20", b"2000", b"-20", b"OK"])
def test_a_status_that_is_none_is_no_response(status: bytes) -> None:
    with pytest.raises(BadResponseError):
        _read([b"HTTP/1.1 " + status + b" OK\r\nContent-Length: 0\r\n\r\n"], ended=True)


def test_an_older_http_ends_with_the_connection() -> None:
    response = _read([b"HTTP/1.0 200 OK\r\n\r\n{}"], ended=True)
    assert response is not None
    assert (response.body, response.keep_alive) == (b"{}", False)


# garbage

WORDS = [
    *(b"HTTP/1.1 ", b"HTTP/", b"HTTP/1.0 200\r\n", b"HTTP/2.0 200 OK\r\n", OK, b"200", b"100 Continue", b"000 X\r\n"),
    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\0", b":", b"0", b"2\r\nab\r\n", b"0\r\n\r\n", b"-1", b"9" * 30),
    *(b"Content-Length: 2\r\n", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n"),
    *(b"Inference-Header-Content-Length: 1\r\n", b"Connection: upgrade\r\nUpgrade: h2c\r\n", b"101 X\r\n", b"{}"),
    *(b"a" * 9000, b"\x80\xff", b"\x16\x03\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n"),
]


@given(
    data=st.one_of(st.binary(max_size=200), st.lists(st.sampled_from(WORDS), max_size=12).map(b"".join)),
    begun=st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 101 OK\r\n"]),
    places=PLACES,
)
@settings(SETTINGS, max_examples=1000)
def test_garbage_is_never_anything_but_a_bad_response(data: bytes, begun: bytes, places: list[int]) -> None:
    try:
        response = _read(_cut(begun + data, places), ended=True)
    except BadResponseError:
        return
    assert response is not None
    assert (begun + data).startswith(b"HTTP/1.")
    assert response.status >= 200


# alignment


@given(
    json_length=st.integers(0, 500),
    size=st.integers(0, 64).map(lambda count: count * 8),
    chunked=st.booleans(),
    places=PLACES,
)
@SETTINGS
def test_the_first_tensor_of_a_body_is_aligned(json_length: int, size: int, chunked: bool, places: list[int]) -> None:
    body = b"j" * json_length + bytes(size)
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked and body else body or b"0\r\n\r\n" * chunked
    reader = ResponseReader()
    head = OK + b"Inference-Header-Content-Length: %d\r\n" % json_length + framing + b"\r\n\r\n"
    assert _read(_cut(head + sent, places), reader=reader) is not None
    assert reader.json_length == json_length
    tensor = np.frombuffer(reader.body[json_length:], np.float64)
    assert tensor.flags.aligned
    assert tensor.flags.writeable
