"""A queue that is full: what is too much is refused at once, and what was accepted is answered right."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from onnx import TensorProto, helper

from tritium.client import Client, Retries, ServerBusyError
from tritium.server import TritonServer

from .conftest import config, onnx_bytes, wait_until

AT_ONCE, QUEUE = 64, 8


def slow_doubler() -> bytes:
    """y = x + x, after a product of two large matrices that comes to nothing."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=1),
        helper.make_node("Expand", ["mean", "large"], ["matrix"]),
        helper.make_node("MatMul", ["matrix", "matrix"], ["product"]),
        helper.make_node("ReduceMean", ["product"], ["scalar"], keepdims=0),
        helper.make_node("Mul", ["scalar", "zero"], ["nothing"]),
        helper.make_node("Sum", ["x", "x", "nothing"], ["y"]),
    ]
    constants = [
        helper.make_tensor("large", TensorProto.INT64, [2], [1500, 1500]),
        helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
    ]
    dims = ("batch", 2)
    return onnx_bytes(nodes, [("x", TensorProto.FLOAT, dims)], [("y", TensorProto.FLOAT, dims)], constants)


@pytest.fixture(scope="module")
def overloaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    folder: Path = tmp_path_factory.mktemp("repository")
    (folder / "slow" / "1").mkdir(parents=True)
    (folder / "slow" / "1" / "model.onnx").write_bytes(slow_doubler())
    limit = f"dynamic_batching {{ default_queue_policy {{ max_queue_size: {QUEUE} }} }}"
    one_thread = 'parameters { key: "intra_op_thread_count" value { string_value: "1" } }'
    text = config("x FP32 2", "y FP32 2", batch=1, more=f"{limit}\n{one_thread}")
    (folder / "slow" / "config.pbtxt").write_text(text, encoding="utf-8")
    with TritonServer(folder, onnx_backend="native") as server:
        yield server


def metrics(server: TritonServer) -> dict[str, float]:
    """Triton's, of the one model that there is."""
    with urllib.request.urlopen(server.metrics_url, timeout=10) as response:
        text = response.read().decode()
    return {name: float(value) for name, value in re.findall(r'^(\w+)\{model="slow",version="1"\} (\S+)$', text, re.M)}


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_full_queue_refuses_at_once_and_answers_what_it_took(overloaded: TritonServer, protocol: str) -> None:
    url = overloaded.http_url if protocol == "http" else overloaded.grpc_url
    start, before, order = Barrier(AT_ONCE), metrics(overloaded), list[bool]()
    with Client(url, retries=Retries(attempts=1), timeout_s=60) as client, ThreadPoolExecutor(AT_ONCE) as pool:
        handle = client.model("slow")

        def ask(number: int) -> None:
            row = np.array([[number, number + 1]], np.float32)
            start.wait(30)
            try:
                answer = handle(row)
            except ServerBusyError as exc:
                assert "Exceeds maximum queue size" in str(exc)
                order.append(False)
            else:
                assert np.array_equal(answer, 2 * row)
                order.append(True)

        for asked in [pool.submit(ask, number) for number in range(AT_ONCE)]:
            asked.result()
        accepted, refused = order.count(True), order.count(False)
        assert accepted + refused == AT_ONCE
        # The queue, the one that runs, and those that come while the first ones are answered.
        assert QUEUE <= accepted < AT_ONCE / 2
        # Half of them were refused before half of what was taken was answered.
        places = {right: [place for place, which in enumerate(order) if which is right] for right in (False, True)}
        assert places[False][refused // 2] < places[True][accepted // 2]
        # Nothing of it stays behind.
        for number in range(QUEUE):
            assert np.array_equal(handle(np.full((1, 2), number, np.float32)), np.full((1, 2), 2 * number))
    wait_until(lambda: metrics(overloaded)["nv_inference_pending_request_count"] == 0)
    name = "nv_inference_request_success"
    assert metrics(overloaded)[name] - before[name] == accepted + QUEUE
