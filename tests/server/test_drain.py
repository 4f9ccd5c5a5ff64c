"""How a server ends: what it accepted is answered, and nobody who only keeps a connection holds it."""

from __future__ import annotations

import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2_grpc

from tritium.client import Client, Retries, TritiumError
from tritium.server import Supervisor, TritonServer, _drain

from .conftest import DOUBLER_CONFIG, doubler, wait_until

# y is the second number of x, so many times; it takes so many seconds as the first says.
SLOW = """
import time
import numpy as np
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            seconds, size = pb.get_input_tensor_by_name(request, "x").as_numpy().ravel()
            time.sleep(float(seconds))
            y = np.full(int(size), size, np.float32)
            answers.append(pb.InferenceResponse([pb.Tensor("y", y)]))
        return answers
"""
SLOW_CONFIG = """
backend: "python"
max_batch_size: 0
input { name: "x" data_type: TYPE_FP32 dims: 2 }
output { name: "y" data_type: TYPE_FP32 dims: -1 }
instance_group { count: 1 kind: KIND_CPU }
"""
# The second step begins when the server is stopping already.
STEPS_CONFIG = """
platform: "ensemble"
max_batch_size: 0
input { name: "x" data_type: TYPE_FP32 dims: 2 }
output { name: "y" data_type: TYPE_FP32 dims: -1 }
ensemble_scheduling {
  step { model_name: "slow_two" model_version: -1
    input_map { key: "x" value: "x" } output_map { key: "y" value: "between" } }
  step { model_name: "slow" model_version: -1
    input_map { key: "x" value: "between" } output_map { key: "y" value: "y" } }
}
"""
LARGE = 4_000_000


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    def write(name: str, config: str, file: str = "", content: bytes = b"") -> None:
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "config.pbtxt").write_text(config, encoding="utf-8")
        if file:
            (tmp_path / name / "1" / file).write_bytes(content)

    write("doubler", DOUBLER_CONFIG, "model.onnx", doubler())
    write("slow", SLOW_CONFIG, "model.py", SLOW.encode())
    # Its answer, two numbers, is what the second step takes.
    write("slow_two", SLOW_CONFIG, "model.py", SLOW.replace("np.full(int(size), size,", "np.full(2, size,").encode())
    write("steps", STEPS_CONFIG)
    return tmp_path


@pytest.fixture
def server(repository: Path) -> Iterator[TritonServer]:
    with TritonServer(repository, onnx_backend="native", shutdown_timeout_s=20) as running:
        yield running


def url_of(server: TritonServer, protocol: str) -> str:
    return server.http_url if protocol == "http" else server.grpc_url


def pending(server: TritonServer, model: str) -> float:
    """How many requests wait for a model."""
    with urllib.request.urlopen(server.metrics_url, timeout=10) as response:
        lines = response.read().decode().splitlines()
    line = next(line for line in lines if line.startswith(f'nv_inference_pending_request_count{{model="{model}"'))
    return float(line.rpartition(" ")[2])


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize(("model", "first", "size"), [("slow", "slow", LARGE), ("steps", "slow_two", 1)])
def test_what_runs_and_what_waits_is_answered_whole(
    server: TritonServer, protocol: str, model: str, first: str, size: int
) -> None:
    with Client(url_of(server, protocol), timeout_s=60) as client, ThreadPoolExecutor(3) as pool:
        handle = client.model(model)
        assert handle.metadata
        answers = [pool.submit(handle, np.array([1, size], np.float32)) for _ in range(3)]
        wait_until(lambda: pending(server, first) == 2)
        assert server.stop() == 0
        for answer in answers:
            y = np.asarray(answer.result(60))
            assert y.shape == (size,)
            assert (y == size).all()


def test_connections_that_nobody_uses_do_not_hold_it(server: TritonServer) -> None:
    row = np.ones((1, 2), np.float32)
    with ExitStack() as stack:
        for url in (server.http_url, server.grpc_url):  # used before, and kept
            stack.enter_context(Client(url)).model("doubler")(row)
        for url in (server.http_url, server.grpc_url, server.metrics_url):  # never used
            host, port = urlsplit(url).hostname, urlsplit(url).port
            stack.enter_context(socket.create_connection((host, port)))
        metrics = urlsplit(server.metrics_url)
        connection = stack.enter_context(closing(HTTPConnection(metrics.hostname or "", metrics.port)))
        connection.request("GET", metrics.path)
        assert connection.getresponse().read()
        began_s = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began_s < 10, "half of what it has"


def test_half_a_request_and_an_open_stream_get_a_part_of_the_time_and_no_answer(repository: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(TritonServer(repository, models=["doubler"], shutdown_timeout_s=2))
        upload = stack.enter_context(socket.create_connection(("127.0.0.1", urlsplit(server.http_url).port)))
        upload.sendall(b"POST /v2/models/doubler/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        channel = stack.enter_context(grpc.insecure_channel(server.grpc_url.removeprefix("grpc://")))
        over = threading.Event()
        stack.callback(over.set)
        # It says nothing, and does not end.
        requests: Iterator[Any] = iter(over.wait, True)
        stream = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(requests)
        grpc.channel_ready_future(channel).result(30)
        assert server.stop() == 0
        with pytest.raises(grpc.RpcError):
            next(stream)
        with suppress(ConnectionResetError):
            assert upload.recv(1) == b""


def test_what_takes_longer_than_there_is_time_for_shows_in_the_exit_code(repository: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        with Supervisor(TritonServer(repository, models=["slow"], shutdown_timeout_s=1)) as supervisor:
            model = Client(supervisor.server.http_url, timeout_s=60, retries=Retries(attempts=1)).model("slow")
            answers = [pool.submit(model, np.array([60, 1], np.float32)) for _ in range(2)]
            wait_until(lambda: pending(supervisor.server, "slow") == 1)  # the other one runs
        assert supervisor.exit_code not in (0, None)
        for answer in answers:
            with pytest.raises(TritiumError):
                answer.result(60)


def test_a_stop_with_nothing_under_way_has_the_exit_code_0(repository: Path) -> None:
    with Supervisor(TritonServer(repository, models=["doubler"], onnx_backend="native")) as supervisor:
        assert supervisor.exit_code is None
    assert supervisor.exit_code == 0


@dataclass
class Connection:
    """What is seen of a connection at one moment."""

    unsent_bytes: int
    acked_bytes: int
    inode: str = "socket:[1]"
    little_bytes: int = 1000


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[bool]]:
    """What is made of looks at a connection: each when, how much is unsent, and how much has been sent in all."""
    now = [0.0]
    monkeypatch.setattr("tritium.server._drain.time.monotonic", lambda: now[0])

    def look(*seen: tuple[float, int, int]) -> list[bool]:
        rests, found = _drain._Rests(), []
        for at_s, unsent_bytes, acked_bytes in seen:
            now[0] = at_s
            found.append(rests.between_frames(Connection(unsent_bytes, acked_bytes)))  # type: ignore[arg-type]
        return found

    return look


def test_a_busy_connection_with_small_answers_is_between_frames_at_its_first_rest_after_one(looks: Any) -> None:
    assert looks((0, 0, 0), (0.001, 90, 0), (0.002, 0, 90), (0.003, 0, 180)) == [False, False, True, True]


def test_a_frame_that_did_not_fit_may_go_on_for_as_long_as_triton_does_not_get_to_it(looks: Any) -> None:
    assert looks((0, 4000, 0), (0.01, 0, 4000), (0.011, 0, 4000), (0.04, 0, 4000)) == [False] * 4
    # Nobody looked while the buffer was full.
    assert looks((0, 0, 4000), (0.0002, 0, 4000), (0.0004, 0, 4000)) == [False] * 3
    assert looks((0, 0, 0), (0.001, 0, 4000), (0.0012, 0, 4000), (0.0014, 0, 4100)) == [False] * 4


def test_a_long_rest_is_one_whatever_was_sent_before(looks: Any) -> None:
    assert looks((0, 4000, 0), (0.01, 0, 4000), (0.07, 0, 4000)) == [False, False, True]


def test_where_the_system_keeps_us_from_its_sockets_it_ends_all_the_same(
    server: TritonServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_pidfd: int, _number: int) -> socket.socket:
        raise PermissionError

    monkeypatch.setattr(_drain, "_duplicate", refuse)
    with server.client() as client:
        assert np.array_equal(client.model("doubler")(np.ones((1, 2), np.float32)), [[2, 2]])
    assert server.stop() == 0
