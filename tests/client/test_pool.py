"""Many threads, many clients, few connections: nobody gets another's answer, nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import psutil
import pytest

from tritium.client import (
    AsyncClient,
    Client,
    DeadlineExceededError,
    InputError,
    Limits,
    Model,
    Retries,
)
from tritium.server import TritonServer

from .served_models import identity_name

IDENTITY = identity_name("INT64", 1)
ONCE = Retries(attempts=1)
THREADS = 32
# Generous for what Python itself keeps, and a fraction of what clients or connections would be if they stayed.
SPARE_BYTES = 8 * 2**20
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def _url(server: TritonServer, protocol: str) -> str:
    return server.http_url if protocol == "http" else server.grpc_url


def _right(model: Model, *numbers: int) -> bool:
    """Make a call that nobody else makes; whether its answer is its own."""
    sent = np.array(numbers)
    return bool(np.array_equal(model(sent), sent))


def _sockets(url: str) -> int:
    """How many connections this process has to a server."""
    port = int(url.rpartition(":")[2])
    connections = psutil.Process().net_connections("tcp")
    return sum(bool(found.raddr) and found.raddr.port == port for found in connections)


def _wait_until(condition: Callable[[], bool], within_s: float = 30) -> None:
    ends_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < ends_s, "what was waited for did not come"
        threading.Event().wait(0.005)


# threads


@pytest.mark.parametrize(("protocol", "calls"), [("http", 2000), ("grpc", 200)])
def test_one_client_serves_32_threads(protocol: str, calls: int, protocol_server: TritonServer) -> None:
    url, most = _url(protocol_server, protocol), 16
    before = _sockets(url)
    with Client(url, retries=ONCE, limits=Limits(max_connections=most)) as client, ThreadPoolExecutor(THREADS) as pool:
        model = client.model(IDENTITY)

        def work(thread: int) -> int:
            # Of different lengths, so that an answer that is cut wrong is seen as well.
            return sum(_right(model, thread, index, *range(index % 5)) for index in range(calls))

        done, peak = [pool.submit(work, thread) for thread in range(THREADS)], 0
        while wait(done, timeout=0.1).not_done:
            peak = max(peak, _sockets(url) - before)
        assert [future.result() for future in done] == [calls] * THREADS
    assert 0 < peak <= (most if protocol == "http" else 1)


def test_threads_that_wait_for_the_only_connection_all_get_their_turn(protocol_server: TritonServer) -> None:
    made, enough, failed = [0] * 8, 20, threading.Event()
    with Client(protocol_server.http_url, retries=ONCE, limits=Limits(max_connections=1), timeout_s=10) as client:
        model = client.model(IDENTITY)

        def work(thread: int) -> None:
            try:
                # Whoever has had enough goes on, so that it could keep the others from theirs.
                while min(made) < enough and not failed.is_set():
                    assert _right(model, thread, made[thread])
                    made[thread] += 1
            except BaseException:
                failed.set()
                raise

        with ThreadPoolExecutor(len(made)) as pool:
            list(pool.map(work, range(len(made))))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """An address whose connections the test itself takes, and answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(30)
        yield listening


def _receive(connection: socket.socket) -> None:
    """Read a request that has no body."""
    connection.settimeout(30)
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        more = connection.recv(4096)
        assert more, "the connection was closed"
        received += more


def _address(listening: socket.socket) -> str:
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_call_waits_for_a_connection_no_longer_than_it_may(listener: socket.socket) -> None:
    with (
        Client(_address(listener), retries=ONCE, limits=Limits(max_connections=1)) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        holds = pool.submit(client.is_ready)
        taken, _ = listener.accept()
        with taken:
            _receive(taken)
            for timeout_s in (0.1, 1e-6):
                with pytest.raises(DeadlineExceededError):
                    client.wait_ready(timeout_s=timeout_s)
            assert not holds.done()
            taken.sendall(EMPTY)
            assert holds.result(timeout=30) is True
            # Nothing of those that waited in vain is in the way of the next.
            again = pool.submit(client.is_ready)
            _receive(taken)
            taken.sendall(EMPTY)
            assert again.result(timeout=30) is True


def test_tasks_share_the_only_connection(protocol_server: TritonServer) -> None:
    async def run() -> None:
        limits = Limits(max_connections=1)
        async with AsyncClient(protocol_server.http_url, retries=ONCE, limits=limits) as client:
            model = client.model(IDENTITY)
            before = _sockets(protocol_server.http_url)

            async def ask(number: int) -> bool:
                sent = np.array([number, *range(number % 5)])
                return bool(np.array_equal(await model(sent), sent))

            assert all(await asyncio.gather(*(ask(number) for number in range(500))))
            assert _sockets(protocol_server.http_url) - before <= 1

    asyncio.run(run())


def test_a_task_waits_for_a_connection_no_longer_than_it_may(silent_address: str) -> None:
    async def run() -> None:
        limits = Limits(max_connections=1)
        async with AsyncClient(f"http://{silent_address}", retries=ONCE, limits=limits) as client:
            holds = asyncio.create_task(client.is_ready())
            await asyncio.sleep(0)
            with pytest.raises(DeadlineExceededError):
                await client.wait_ready(timeout_s=0.1)
            assert not holds.done()
            holds.cancel()
            await asyncio.wait([holds])
            # Its place is free again: this one connects, and waits for an answer.
            with pytest.raises(DeadlineExceededError):
                await client.wait_ready(timeout_s=0.1)

    asyncio.run(run())


# opening and closing


def _churn(url: str, count: int, every: int) -> None:
    for index in range(count):
        with Client(url) as client:
            if not index % every:
                assert _right(client.model(IDENTITY), index)


def _churn_tasks(url: str, count: int, every: int) -> None:
    async def run() -> None:
        for index in range(count):
            async with AsyncClient(url) as client:
                if not index % every:
                    assert (await client.model(IDENTITY)(np.array([index]))).tolist() == [index]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("churn", "protocol", "count", "every"),
    [
        pytest.param(_churn, "http", 10_000, 20, id="http"),
        pytest.param(_churn, "grpc", 1_000, 20, id="grpc"),
        pytest.param(_churn_tasks, "http", 5_000, 20, id="async-http"),
        pytest.param(_churn_tasks, "grpc", 1_000, 20, id="async-grpc"),
    ],
)
def test_clients_that_are_closed_leave_nothing(
    churn: Callable[[str, int, int], None], protocol: str, count: int, every: int, protocol_server: TritonServer
) -> None:
    url, process = _url(protocol_server, protocol), psutil.Process()
    churn(url, count // 5, every)
    gc.collect()
    files, memory = process.num_fds(), process.memory_info().rss
    churn(url, count, every)
    gc.collect()
    # gRPC closes its sockets a moment later.
    _wait_until(lambda: process.num_fds() <= files)
    assert process.memory_info().rss - memory < SPARE_BYTES


def _until_closed(model: Model, counted: threading.Semaphore) -> str:
    """Call until that is refused; what it was refused with."""
    while True:
        try:
            assert _right(model, 1, 2, 3)
        except InputError as exc:
            return str(exc)
        counted.release()


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_closing_a_client_under_use_ends_its_calls_clearly(protocol: str, protocol_server: TritonServer) -> None:
    for closed_after in (0, 1, 50, 200):
        counted = threading.Semaphore(0)
        with ThreadPoolExecutor(8) as pool:
            client = Client(_url(protocol_server, protocol), retries=ONCE, limits=Limits(max_connections=4))
            model = client.model(IDENTITY)
            work = [pool.submit(_until_closed, model, counted) for _ in range(8)]
            for _ in range(closed_after):
                assert counted.acquire(timeout=30)
            client.close()
            assert {future.result(timeout=30) for future in work} == {"This client is closed; make a new one"}


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_closing_an_async_client_under_use_ends_its_calls_clearly(protocol: str, protocol_server: TritonServer) -> None:
    async def run(closed_after: int) -> None:
        client = AsyncClient(_url(protocol_server, protocol), retries=ONCE, limits=Limits(max_connections=4))
        model, counted, sent = client.model(IDENTITY), asyncio.Semaphore(0), np.arange(3)

        async def until_closed() -> str:
            while True:
                try:
                    assert np.array_equal(await model(sent), sent)
                except InputError as exc:
                    return str(exc)
                counted.release()

        work = [asyncio.create_task(until_closed()) for _ in range(8)]
        for _ in range(closed_after):
            await asyncio.wait_for(counted.acquire(), 30)
        await client.close()
        assert set(await asyncio.gather(*work)) == {"This client is closed; make a new one"}

    for closed_after in (0, 1, 50, 200):
        asyncio.run(run(closed_after))


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_an_async_client_in_a_second_event_loop_says_so(protocol: str, protocol_server: TritonServer) -> None:
    async def run() -> None:
        async with AsyncClient(_url(protocol_server, protocol)) as client:
            assert await client.is_ready()

            def elsewhere() -> None:
                with pytest.raises(InputError, match="belongs to another event loop; make one in each loop"):
                    asyncio.run(client.is_ready())

            await asyncio.to_thread(elsewhere)
            assert await client.is_ready()

    asyncio.run(run())


# connections that the server ends


class _OneAnswerEach:
    """A server that says nothing of it, and closes each connection after its first answer."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self.closed = threading.Semaphore(0)

    def serve(self, count: int) -> None:
        for _ in range(count):
            connection, _ = self._listening.accept()
            with connection:
                _receive(connection)
                connection.sendall(EMPTY)
            self.closed.release()


def test_an_idle_connection_that_the_server_closed_is_replaced_unnoticed(listener: socket.socket) -> None:
    server = _OneAnswerEach(listener)
    with Client(_address(listener), retries=ONCE) as client, ThreadPoolExecutor(1) as pool:
        serving = pool.submit(server.serve, 5)
        for _ in range(5):
            assert client.is_ready()
            assert server.closed.acquire(timeout=30)
        serving.result(timeout=30)
        assert _sockets(client.url) <= 1


def test_an_idle_connection_that_the_server_closed_is_replaced_unnoticed_by_tasks(listener: socket.socket) -> None:
    server = _OneAnswerEach(listener)

    async def run() -> None:
        async with AsyncClient(_address(listener), retries=ONCE) as client:
            for _ in range(5):
                assert await client.is_ready()
                assert await asyncio.to_thread(server.closed.acquire, timeout=30)

    with ThreadPoolExecutor(1) as pool:
        serving = pool.submit(server.serve, 5)
        asyncio.run(run())
        serving.result(timeout=30)


def test_calls_without_a_body_keep_their_connection(protocol_server: TritonServer) -> None:
    with Client(protocol_server.http_url) as client:
        before = psutil.Process().num_fds()
        ports = set()
        for _ in range(5):
            assert client.is_ready()
            ports |= _own_ports(client.url)
        assert len(ports) == 1
        assert psutil.Process().num_fds() == before + 1


def _own_ports(url: str) -> set[int]:
    port = int(url.rpartition(":")[2])
    connections = psutil.Process().net_connections("tcp")
    return {found.laddr.port for found in connections if found.raddr and found.raddr.port == port}
