"""The faulty proxy itself, before a small HTTP server and before an echo: it must do what its faults say."""

from __future__ import annotations

import http.client
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from urllib.parse import urlsplit

import pytest

from .faulty_proxy import FAULTS, PASS, Changing, Fault, FaultyProxy, noise, now_and_then, refusal


class _Echo(BaseHTTPRequestHandler):
    """Answers what it was sent."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(OSError):  # the proxy may not wait for it
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class _StreamEcho(socketserver.BaseRequestHandler):
    """Returns every byte."""

    def handle(self) -> None:
        while data := self.request.recv(65536):
            self.request.sendall(data)


@pytest.fixture(scope="module")
def http_echo() -> Iterator[str]:
    """The URL of a server that answers a POST with its body."""
    yield from _running(ThreadingHTTPServer(("127.0.0.1", 0), _Echo), "http")


@pytest.fixture(scope="module")
def stream_echo() -> Iterator[str]:
    """The URL of a server that returns every byte, over what the proxy does not know."""
    yield from _running(socketserver.ThreadingTCPServer(("127.0.0.1", 0), _StreamEcho), "grpc")


def _running(server: socketserver.TCPServer, scheme: str) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    with server:
        thread.start()
        yield f"{scheme}://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def _connection(proxy: FaultyProxy) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=5)


def _post(connection: http.client.HTTPConnection, body: bytes) -> tuple[int, bytes]:
    connection.request("POST", "/", body)
    response = connection.getresponse()
    return response.status, response.read()


def _raw(proxy: FaultyProxy, body: bytes) -> socket.socket:
    """A connection that has sent a request and read nothing."""
    opened = socket.create_connection(("127.0.0.1", urlsplit(proxy.url).port or 0), timeout=5)
    with ExitStack() as unless_sent:
        unless_sent.enter_context(opened)
        opened.sendall(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        unless_sent.pop_all()
    return opened


def _until_end(opened: socket.socket) -> bytes:
    received = b""
    while data := opened.recv(65536):
        received += data
    return received


def test_without_a_plan_everything_passes_on_one_connection(http_echo: str) -> None:
    with FaultyProxy(http_echo) as proxy:
        connection = _connection(proxy)
        assert [_post(connection, b"%d" % number) for number in range(3)] == [(200, b"0"), (200, b"1"), (200, b"2")]
        connection.close()
    assert (proxy.connections, proxy.done) == (1, {PASS: 3})


def test_plan_gives_each_exchange_its_fault_and_then_everything_passes(http_echo: str) -> None:
    with FaultyProxy(http_echo, [PASS, FAULTS["unavailable"]]) as proxy:
        connection = _connection(proxy)
        assert [_post(connection, b"x")[0] for _ in range(3)] == [200, 503, 200]
        connection.close()


def test_refusal_is_well_formed_and_keeps_the_connection(http_echo: str) -> None:
    with FaultyProxy(http_echo, [refusal("429 Too Many Requests", retry_after="7")]) as proxy:
        connection = _connection(proxy)
        connection.request("POST", "/", b"x")
        response = connection.getresponse()
        assert (response.status, response.headers["Retry-After"]) == (429, "7")
        assert response.read() == b'{"error": "the proxy says 429 Too Many Requests"}'
        assert _post(connection, b"y") == (200, b"y")
        connection.close()
    assert proxy.connections == 1


@pytest.mark.parametrize("name", ["reset_at_connect", "reset_before"])
def test_reset_before_the_response_gives_no_byte(http_echo: str, name: str) -> None:
    with FaultyProxy(http_echo, [FAULTS[name]]) as proxy, pytest.raises(ConnectionError), _raw(proxy, b"x") as opened:
        assert opened.recv(100) == b""
        pytest.fail("a half-close instead of a reset")


@pytest.mark.parametrize(
    ("name", "passing"),
    [("fin_before", 0), ("fin_in_header", 20), ("fin_in_body", -5), ("fin_after", None)],
)
def test_half_close_lets_so_much_pass_and_reads_on(http_echo: str, name: str, passing: int | None) -> None:
    with FaultyProxy(http_echo) as proxy, _raw(proxy, b"1234567") as opened:
        opened.shutdown(socket.SHUT_WR)
        whole = _until_end(opened)
    with FaultyProxy(http_echo, [FAULTS[name]]) as proxy, _raw(proxy, b"1234567") as opened:
        assert _without_date(_until_end(opened)) == _without_date(whole[:passing])
        for _ in range(3):  # a reset would be noticed by the second
            opened.sendall(b"more")


def test_reset_in_the_middle_comes_after_that_many_bytes(http_echo: str) -> None:
    with FaultyProxy(http_echo, [Fault(cut_after=15, end="RST")]) as proxy, _raw(proxy, b"x") as opened:
        received = b""
        with pytest.raises(ConnectionResetError):
            while data := opened.recv(100):
                received += data
    assert received in (b"HTTP/1.0 200 OK"[:15], b"HTTP/1.1 200 OK"[:15], b"")  # a reset may overtake what it follows


def test_silence_lets_the_start_pass_and_keeps_the_connection(http_echo: str) -> None:
    with FaultyProxy(http_echo, [Fault(cut_after=4)]) as proxy, _raw(proxy, b"x") as opened:
        assert opened.recv(100) == b"HTTP"
        opened.settimeout(0.05)
        with pytest.raises(TimeoutError):
            opened.recv(100)


def test_delay_holds_the_response_back(http_echo: str) -> None:
    with FaultyProxy(http_echo, [Fault(delay_s=0.2)]) as proxy, _raw(proxy, b"x") as opened:
        opened.settimeout(0.05)
        with pytest.raises(TimeoutError):
            opened.recv(100)
        opened.settimeout(5)
        assert opened.recv(65536).endswith(b"\r\n\r\nx")


@pytest.mark.parametrize("name", ["split", "bytewise"])
def test_split_response_is_whole_in_the_end(http_echo: str, name: str) -> None:
    with FaultyProxy(http_echo, [FAULTS[name]]) as proxy:
        connection = _connection(proxy)
        assert _post(connection, b"x" * 500) == (200, b"x" * 500)
        connection.close()


@pytest.mark.parametrize(
    ("name", "length", "after"),
    [
        ("length_of_words", b"many", b"12345678"),
        ("negative_length", b"-9", b"12345678"),
        ("short_length", b"4", b"12345678"),
        ("long_length", b"15", b"12345678"),
        ("noise_after", b"8", b"12345678" + noise(40)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rewritten_response_is_wrong_where_its_name_says(
    http_echo: str, name: str, length: bytes, after: bytes
) -> None:
    with FaultyProxy(http_echo, [FAULTS[name]]) as proxy, _raw(proxy, b"12345678") as opened:
        opened.shutdown(socket.SHUT_WR)
        head, _, body = _until_end(opened).partition(b"\r\n\r\n")
    assert (head.rpartition(b": ")[2], body) == (length, after)


def test_response_before_answers_a_request_with_the_one_before(http_echo: str) -> None:
    with FaultyProxy(http_echo, Changing(FAULTS["response_before"])) as proxy:
        connection = _connection(proxy)
        assert [_post(connection, b"%d" % number)[1] for number in range(3)] == [b"0", b"0", b"1"]
        connection.close()


def test_duplicate_comes_twice(http_echo: str) -> None:
    with FaultyProxy(http_echo, [FAULTS["duplicate"]]) as proxy, _raw(proxy, b"x") as opened:
        opened.shutdown(socket.SHUT_WR)
        assert _until_end(opened).count(b"\r\n\r\nx") == 2


def test_other_id_has_the_length_of_the_right_one(http_echo: str) -> None:
    with FaultyProxy(http_echo, [FAULTS["other_id"]]) as proxy:
        connection = _connection(proxy)
        assert _post(connection, b'{"id":"abc","x":1}') == (200, b'{"id":"~~~","x":1}')
        connection.close()


def test_same_seed_gives_the_same_plan() -> None:
    faults = [FAULTS["delay"], FAULTS["split"]]
    once, again = (list(islice(now_and_then(faults, share=0.5, seed=1), 50)) for _ in range(2))
    assert once == again
    assert {PASS, *faults} == set(once)


def test_other_protocols_pass_and_are_cut_after_so_many_bytes(stream_echo: str) -> None:
    with FaultyProxy(stream_echo, [Fault(cut_after=6, end="FIN"), FAULTS["bytewise"]]) as proxy:
        address = ("127.0.0.1", urlsplit(proxy.url).port or 0)
        with socket.create_connection(address, timeout=5) as cut, socket.create_connection(address, timeout=5) as split:
            cut.sendall(b"0123")
            assert cut.recv(100) == b"0123"
            cut.sendall(b"4567")
            assert _until_end(cut) == b"45"
            split.sendall(b"0123456789")
            assert b"".join(split.recv(1) for _ in range(10)) == b"0123456789"


def test_leaving_ends_connections_that_still_wait(http_echo: str) -> None:
    with FaultyProxy(http_echo, Changing(FAULTS["silence"])) as proxy:
        waiting = [_raw(proxy, b"x") for _ in range(3)]
        idle = socket.create_connection(("127.0.0.1", urlsplit(proxy.url).port or 0), timeout=5)
        while proxy.connections < 4:
            threading.Event().wait(0.005)
    for opened in (*waiting, idle):
        with opened:
            assert opened.recv(100) == b""
    # The server's own threads may still be about to end.
    assert not any("_converse" in repr(thread) or "_accept" in repr(thread) for thread in threading.enumerate())


def _without_date(response: bytes) -> list[bytes]:
    return [line for line in response.split(b"\r\n") if not line.startswith(b"Date:")]
