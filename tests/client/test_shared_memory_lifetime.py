"""Regions of shared memory end with their block or their process, in whatever way, and nothing of them stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc

from tritium.client import CallError, Client
from tritium.server import TritonServer

from .served_models import identity_name
from .sessions import guards, is_gone, region_of, session, wait_until
from .surfaces import SURFACES

IDENTITY = identity_name("FP32", 2)


@pytest.fixture(params=SURFACES)
def surface(request: pytest.FixtureRequest) -> str:
    """Each kind of client."""
    return str(request.param)


@pytest.fixture(params=["http", "grpc"])
def url(request: pytest.FixtureRequest, protocol_server: TritonServer) -> str:
    """Where the server is, over each protocol."""
    return protocol_server.http_url if request.param == "http" else protocol_server.grpc_url


@pytest.fixture
def known(protocol_server: TritonServer) -> Callable[[], set[str]]:
    """Asks the server which regions it knows."""
    address = protocol_server.grpc_url.removeprefix("grpc://")

    def ask() -> set[str]:
        with tritonclient.grpc.InferenceServerClient(address) as client:
            return set(client.get_system_shared_memory_status(as_json=True).get("regions", {}))

    return ask


Known = Callable[[], set[str]]


def _file(name: str) -> Path:
    return Path("/dev/shm") / name


# the end of the block


def test_a_region_is_known_and_looked_after_within_its_block_only(surface: str, url: str, known: Known) -> None:
    with session(surface, url) as (client, run):
        with region_of(client, run, 4096) as region:
            assert known() == {region.name}
            assert _file(region.name).stat().st_size == 4096
            assert _file(region.name).stat().st_mode & 0o077 == 0  # nobody else's to read
            (guard,) = guards(os.getpid())
            x = region.array((2, 2), "float32")
            run(client.model(IDENTITY)(x, out=x))
        assert not known()
        assert not _file(region.name).exists()
        assert is_gone(guard)
        assert client._regions == []


def test_a_region_may_be_left_right_after_a_call(surface: str, url: str, known: Known) -> None:
    # Triton holds on to a region for a moment after its answer.
    with session(surface, url) as (client, run):
        for number in range(20):
            with region_of(client, run, 2**20) as region:
                x = region.array((512, 512), "float32")
                x[:] = number
                run(client.model(IDENTITY)(x, out=x))
            assert x[511, 511] == number
    assert not known()


def test_an_exception_ends_a_region_and_comes_through(surface: str, url: str, known: Known) -> None:
    def use() -> None:
        with session(surface, url) as (client, run), region_of(client, run, 4096) as region:
            names.append(region.name)
            raise KeyError("mine")

    names: list[str] = []
    with pytest.raises(KeyError, match="mine"):
        use()
    assert not known()
    assert not _file(names[0]).exists()
    assert not guards(os.getpid())


def test_only_what_is_ones_own_is_taken_away(surface: str, url: str, known: Known) -> None:
    with Client(url) as other, other.shared_memory(64) as others, session(surface, url) as (client, run):
        with region_of(client, run, 64) as first, region_of(client, run, 64) as second:
            assert known() == {others.name, first.name, second.name}
        assert known() == {others.name}
        assert _file(others.name).exists()
        assert len(guards(os.getpid())) == 1


def test_regions_may_end_in_any_order(url: str, known: Known) -> None:
    with Client(url) as client:
        first, second = client.shared_memory(4096), client.shared_memory(4096)
        one, two = first.__enter__(), second.__enter__()
        first.__exit__(None, None, None)
        assert known() == {two.name}
        y = two.array((2, 2), "float32")
        client.model(IDENTITY)(np.ones((2, 2), np.float32), out=y)
        second.__exit__(None, None, None)
        assert (y == 1).all()
        assert not known()
        assert not _file(one.name).exists()


# a server that goes away meanwhile


class _Yes(BaseHTTPRequestHandler):
    """Answers everything with an empty object, and says which extensions it has."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(b'{"name":"s","version":"1","extensions":["system_shared_memory"]}')

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(b"{}")

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Not to the tests' output."""


@contextmanager
def _short_lived_server() -> Iterator[tuple[str, Callable[[], None]]]:
    """A server, and what ends it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Yes)
    serving = threading.Thread(target=server.serve_forever, args=(0.01,))
    serving.start()

    def end() -> None:
        server.shutdown()
        serving.join()
        server.server_close()

    try:
        yield f"http://127.0.0.1:{server.server_port}", end
    finally:
        end()


@pytest.mark.parametrize("fails", [False, True])
def test_a_region_whose_server_is_gone_leaves_nothing_here(fails: bool, surface: str) -> None:
    def use() -> None:
        with session(surface, url) as (client, run), region_of(client, run, 4096) as region:
            names.append(region.name)
            assert _file(region.name).exists()
            end()
            if fails:
                raise KeyError("mine")

    names: list[str] = []
    with _short_lived_server() as (url, end), pytest.raises(KeyError if fails else CallError):
        use()
    assert not _file(names[0]).exists()
    assert not guards(os.getpid())


# the end of the process

OWNER = """
import asyncio, os, signal, sys, threading
import numpy as np
from tritium.client import AsyncClient, Client

def use(region, call):
    x = region.array((256, 256), "float32")
    call(x)
    print(region.name, flush=True)
    if sys.argv[2] == "fork":
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            x += 1
            call(x)
            print("still there", flush=True)
            return
        sys.exit(0)  # ends the block in the child
    if sys.argv[2] == "busy":
        while True:
            call(x)
    if sys.argv[2] == "exit":
        sys.exit(3)

def sync():
    with Client(sys.argv[1]) as client, client.shared_memory(2**20) as region:
        model = client.model(sys.argv[3])
        use(region, lambda x: model(x, out=x))
        if sys.argv[2] == "idle":
            threading.Event().wait(60)

async def tasks():
    async with AsyncClient(sys.argv[1]) as client, client.shared_memory(2**20) as region:
        model = client.model(sys.argv[3])
        x = region.array((2, 2), "float32")
        await model(x, out=x)
        use(region, lambda x: None)
        await asyncio.sleep(60)

if sys.argv[4] == "sync":
    sync()
else:
    asyncio.run(tasks())
"""


@contextmanager
def _owner(url: str, way: str, surface: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that has a region, and the region's name. What it prints after that can be read from it."""
    script = folder / "owner.py"
    script.write_text(OWNER, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, str(script), url, way, IDENTITY, surface],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.mark.parametrize("way", ["idle", "busy"])
def test_a_process_that_is_killed_leaves_no_region(
    way: str, url: str, surface: str, known: Known, tmp_path: Path
) -> None:
    with _owner(url, way, "sync" if way == "busy" else surface, tmp_path) as (process, name):
        assert known() == {name}
        (guard,) = guards(process.pid)
        process.kill()
        wait_until(lambda: not _file(name).exists())
        wait_until(lambda: not known())
        wait_until(lambda: is_gone(guard))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_leaves_no_region(
    number: signal.Signals, url: str, surface: str, known: Known, tmp_path: Path
) -> None:
    with _owner(url, "idle", surface, tmp_path) as (process, name):
        (guard,) = guards(process.pid)
        os.killpg(process.pid, number)  # as the terminal does on Ctrl-C
        assert process.wait(timeout=30) != 0
        wait_until(lambda: not _file(name).exists())
        wait_until(lambda: not known())
        wait_until(lambda: is_gone(guard))


def test_a_process_that_exits_within_the_block_leaves_no_region(
    url: str, surface: str, known: Known, tmp_path: Path
) -> None:
    with _owner(url, "exit", surface, tmp_path) as (process, name):
        assert process.wait(timeout=30) == 3
        assert not _file(name).exists()
        assert not known()


def test_a_forked_process_that_leaves_the_block_takes_nothing_away(
    protocol_server: TritonServer, known: Known, tmp_path: Path
) -> None:
    with _owner(protocol_server.http_url, "fork", "sync", tmp_path) as (process, name):
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "still there"
        assert process.wait(timeout=30) == 0
        assert not _file(name).exists()
        assert not known()
