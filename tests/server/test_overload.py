"""A queue that is full: what is too much is refused at once, and what was accepted is answered right."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from onnx import TensorProto, helper

from tritium.client import Client, Retries, ServerBusyError
from tritium.server import TritonServer

from .conftest import config, onnx_bytes

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


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_full_queue_refuses_at_once_and_answers_what_it_took(overloaded: TritonServer, protocol: str) -> None:
    url = overloaded.http_url if protocol == "http" else overloaded.grpc_url
    start = Barrier(AT_ONCE)
    with Client(url, retries=Retries(attempts=1), timeout_s=60) as client, ThreadPoolExecutor(AT_ONCE) as pool:
        handle = client.model("slow")
        handle(np.zeros((1, 2), np.float32))

        def ask(number: int) -> tuple[bool, float]:
            row = np.array([[number, number + 1]], np.float32)
            start.wait(30)
            began_s = time.perf_counter()
            try:
                answer = handle(row)
            except ServerBusyError as exc:
                assert "Exceeds maximum queue size" in str(exc)
                return False, time.perf_counter() - began_s
            assert np.array_equal(answer, 2 * row)
            return True, time.perf_counter() - began_s

        results = list(pool.map(ask, range(AT_ONCE)))
    accepted = [taken_s for right, taken_s in results if right]
    refused = [taken_s for right, taken_s in results if not right]
    # The queue, the one that runs, and those that come while the first ones are answered.
    assert QUEUE <= len(accepted) < AT_ONCE / 2
    # Refused before so much as the wait for a few others' turn.
    assert statistics.median(refused) < statistics.median(accepted) / 4
