"""How `tritium serve` ends under load: nothing is cut, nothing is lost, nothing is left."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from tritium.client import Client, ConnectFailedError, Retries
from tritium.repository import Repository, load_golden
from tritium.server import TritonServer

from .conftest import DEADLINE_S, left

# STOPS=20 is what a release is tried with.
STOPS = int(os.environ.get("STOPS", "3"))
BUDGET_S = 10.0
MODEL = "digits_cnn"


@pytest.fixture(scope="module")
def golden(zoo: Repository) -> tuple[Any, Any]:
    """A real image, and what the model says of it."""
    cases = load_golden(zoo.version_folder(MODEL), zoo.config(MODEL))
    (image,), (answer,) = cases.inputs.values(), cases.outputs.values()
    return image[:1], answer[:1]


class Traffic:
    """Requests from several threads until told to stop; each ends in the tally as what became of it."""

    def __init__(self, image: Any, expected: Any) -> None:
        self.tally: Counter[str] = Counter()
        self._image, self._expected = image, expected
        self._over = threading.Event()

    @contextmanager
    def from_all(self, *senders: Callable[[], None]) -> Iterator[None]:
        with ThreadPoolExecutor(len(senders)) as pool:
            running = [pool.submit(sender) for sender in senders]
            try:
                yield
            finally:
                self._over.set()
            for sender in running:
                sender.result()

    def raw_http(self, url: str) -> None:
        """Over one connection that is kept, until it is closed: by then it must be between two answers."""
        head, body = self._raw_request()
        with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=DEADLINE_S) as connection:
            while not self._over.is_set():
                received = b""
                try:
                    connection.sendall(head + body)
                    while not self._is_whole(received):
                        part = connection.recv(65536)
                        if not part:
                            break
                        received += part
                except (BrokenPipeError, ConnectionResetError):
                    pass
                if not self._is_whole(received):
                    self.tally["cut" if received else "closed before an answer"] += 1
                    return
                self._judge(received.startswith(b"HTTP/1.1 200"), received[-self._expected.nbytes :])

    def calls(self, urls: list[str], retries: Retries | None = None) -> None:
        """With the SDK; without retries, until a call finds no connection."""
        with Client(urls, timeout_s=DEADLINE_S, retries=retries or Retries(attempts=1)) as client:
            model = client.model(MODEL)
            while not self._over.is_set():
                try:
                    answer = model(self._image)
                except ConnectFailedError:
                    self.tally["lost" if retries else "closed before an answer"] += 1
                    return
                self._judge(True, np.asarray(answer).tobytes())

    def _judge(self, is_good: bool, answer: bytes) -> None:
        values = np.frombuffer(answer, np.float32) if len(answer) == self._expected.nbytes else np.zeros(1, np.float32)
        right = is_good and np.allclose(values, self._expected.ravel(), rtol=0, atol=1e-5)
        self.tally["right" if right else "wrong"] += 1

    def _raw_request(self) -> tuple[bytes, bytes]:
        tensor = {"name": "image", "datatype": "FP32", "shape": self._image.shape}
        tensor |= {"parameters": {"binary_data_size": self._image.nbytes}}
        output = {"name": "probabilities", "parameters": {"binary_data": True}}
        spec = json.dumps({"inputs": [tensor], "outputs": [output]}).encode()
        body = spec + self._image.tobytes()
        head = (
            f"POST /v2/models/{MODEL}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
            f"Inference-Header-Content-Length: {len(spec)}\r\n\r\n"
        )
        return head.encode(), body

    @staticmethod
    def _is_whole(received: bytes) -> bool:
        head, _, body = received.partition(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in head.splitlines() if line.lower().startswith(b"content-length")]
        return bool(lengths) and len(body) == int(lengths[0])


def test_under_load_every_request_is_answered_or_gets_no_byte_and_replicas_take_over(
    serve: Any, zoo: Repository, golden: tuple[Any, Any]
) -> None:
    total: Counter[str] = Counter()
    retries = Retries(attempts=6, backoff_s=0.02, budget=10_000)
    with TritonServer(zoo.path, models=[MODEL]) as other:
        for _ in range(STOPS):
            traffic = Traffic(*golden)
            with ExitStack() as stack:
                serving = stack.enter_context(serve("--json", "--model", MODEL))
                ready = serving.document()
                http, grpc = ready["http_url"], ready["grpc_url"]
                processes = serving.started()
                for url in (http, grpc, ready["metrics_url"]):  # held, and never used
                    address = urlsplit(url).hostname, urlsplit(url).port
                    stack.enter_context(socket.create_connection(address))
                stack.enter_context(Client(grpc)).model(MODEL)(golden[0])  # used, and held
                senders = [partial(traffic.raw_http, http)] * 4
                senders += [partial(traffic.calls, [http]), partial(traffic.calls, [grpc])] * 2
                senders += [
                    partial(traffic.calls, [http, other.http_url], retries),
                    partial(traffic.calls, [grpc, other.grpc_url], retries),
                ]
                with traffic.from_all(*senders):
                    while traffic.tally["right"] < 200:
                        assert not traffic.tally.keys() - {"right"}
                        time.sleep(0.01)
                    began_s = time.monotonic()
                    serving.process.send_signal(signal.SIGTERM)
                    assert serving.process.wait(DEADLINE_S) == 0
                    assert time.monotonic() - began_s < BUDGET_S
                assert left(processes) == []
                assert serving.shared_memory() == []
            total += traffic.tally
    assert total["closed before an answer"] == 8 * STOPS
    assert not total.keys() - {"right", "closed before an answer"}, total


def test_ctrl_c_twice_ends_at_once_and_leaves_nothing(serve: Any, golden: tuple[Any, Any]) -> None:
    with serve("--json", "--model", MODEL, "--model", "digits_mlp") as serving:
        ready = serving.document()
        processes = serving.started()
        with socket.create_connection((urlsplit(ready["http_url"]).hostname, urlsplit(ready["http_url"]).port)):
            serving.process.send_signal(signal.SIGINT)
            serving.wait_for("a stop", lambda: "Ctrl-C again" in serving.err.read_text())
            serving.process.send_signal(signal.SIGINT)
            assert serving.process.wait(DEADLINE_S) == 0
        assert left(processes) == []
        assert serving.shared_memory() == []


def test_sigterm_while_it_starts_ends_it_in_order(serve: Any) -> None:
    with serve("--onnx-backend", "python") as serving:
        processes = serving.wait_for("Triton", serving.started)
        serving.process.send_signal(signal.SIGTERM)
        assert serving.process.wait(DEADLINE_S) == 0
        assert serving.err.read_text().endswith("Stopped\n")
        assert left(processes) == []
        assert serving.shared_memory() == []
