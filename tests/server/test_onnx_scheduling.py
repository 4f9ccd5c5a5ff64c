"""ONNX models under Triton's schedulers: batches, instances, versions, ensembles, warm-up, queues, reloads."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import psutil
import pytest
import tritonclient.grpc
from onnx import TensorProto, helper, numpy_helper

from tritium.client import Client, InferenceFailedError, ServerBusyError, ServerError
from tritium.server import TritonServer

from .conftest import (
    PATIENT,
    Serve,
    at_once,
    batch_sizes,
    config,
    doubler,
    native_only,
    onnx_bytes,
    together,
    wait_until,
)

# Looks rows up in a table: an index beyond it fails the run, and only the model can know.
LOOKUP_CONFIG = config("index INT64 1", "row FP32 1,2;echo INT64 1")
DIMS = ("batch", 2)


def lookup(table: Any) -> bytes:
    nodes = [helper.make_node("Gather", ["table", "index"], ["row"]), helper.make_node("Identity", ["index"], ["echo"])]
    outputs = [
        ("row", TensorProto.FLOAT, ("batch", 1, table.shape[1])),
        ("echo", TensorProto.INT64, ("batch", 1)),
    ]
    return onnx_bytes(
        nodes, [("index", TensorProto.INT64, ("batch", 1))], outputs, [numpy_helper.from_array(table, "table")]
    )


def adder(value: float) -> bytes:
    return onnx_bytes(
        [helper.make_node("Add", ["x", "value"], ["y"])],
        [("x", TensorProto.FLOAT, DIMS)],
        [("y", TensorProto.FLOAT, DIMS)],
        [numpy_helper.from_array(np.array([value, value], np.float32), "value")],
    )


ADDER_CONFIG = config("x FP32 2", "y FP32 2")
LOOKUP = lookup(np.arange(6, dtype=np.float32).reshape(3, 2))


def statistics(client: Client, model: str) -> dict[str, Any]:
    found: dict[str, Any] = client.model(model).statistics()["model_stats"][0]
    return found


def count(stats: dict[str, Any], *path: str) -> int:
    """A count: gRPC leaves those of 0 out, and writes 64-bit ones as text."""
    for key in path:
        stats = stats.get(key, {})
    return int(stats) if not isinstance(stats, dict) else 0


def test_a_batch_of_every_size_gives_what_each_row_gives_alone(onnx_server: TritonServer, serve: Serve) -> None:
    rng = np.random.default_rng(0)
    # Whole numbers, so that the sums are exact in whatever order.
    weights = numpy_helper.from_array(rng.integers(-9, 9, (5, 7)).astype(np.float32), "w")
    model = onnx_bytes(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        [("x", TensorProto.FLOAT, ("batch", 5))],
        [("y", TensorProto.FLOAT, ("batch", 7))],
        [weights],
    )
    name = serve(model, config("x FP32 5", "y FP32 7", more=PATIENT))
    rows = rng.integers(-9, 9, (8, 5)).astype(np.float32)
    expected = np.maximum(rows @ numpy_helper.to_array(weights), 0)
    with onnx_server.client() as client:
        for size in range(1, 9):
            np.testing.assert_array_equal(client.model(name)(rows[:size]), expected[:size])
        # Requests of 1, 2 and 3 rows that meet in a batch: each gets its own.
        cuts = [rows[:1], rows[1:3], rows[3:6], rows[6:7], rows[7:]]
        answers = together(client, name, cuts)
    np.testing.assert_array_equal(np.concatenate(answers), expected)


def test_requests_of_many_shapes_at_one_moment_are_answered_each_in_its_own(
    onnx_server: TritonServer, serve: Serve
) -> None:
    name = serve(doubler(("batch", "n")), config("x FP32 -1", "y FP32 -1", more=PATIENT))
    shapes = [(rows, width) for rows in (1, 2, 1) for width in (1, 3, 64, 1000)]
    inputs = [np.full(shape, place, np.float32) for place, shape in enumerate(shapes)]
    with onnx_server.client() as client:
        answers = together(client, name, inputs)
    for got, sent in zip(answers, inputs, strict=True):
        np.testing.assert_array_equal(got, sent * 2)


def test_requests_of_one_batch_get_the_outputs_that_each_asked_for(onnx_server: TritonServer, serve: Serve) -> None:
    name = serve(LOOKUP, LOOKUP_CONFIG + PATIENT)
    asked = [["row"], ["echo"], ["row", "echo"], ["echo", "row"], []]
    with onnx_server.client() as client:
        model = client.model(name)
        _ = model.metadata
        answers = at_once([partial(model, np.array([[i % 3]]), outputs=names) for i, names in enumerate(asked)])
        wait_until(lambda: 5 in batch_sizes(client, name))
    for i, (answer, names) in enumerate(zip(answers, asked, strict=True)):
        got = {names[0]: answer} if len(names) == 1 else answer
        assert set(got) == set(names or ["row", "echo"])
        if "row" in got:
            assert got["row"].tolist() == [[[2 * (i % 3), 2 * (i % 3) + 1]]]
        if "echo" in got:
            assert got["echo"].tolist() == [[i % 3]]


@native_only
def test_the_statistics_count_good_and_bad_requests_natively(onnx_server: TritonServer, serve: Serve) -> None:
    """As Triton's own ONNX Runtime backend does; Triton's Python backend counts runs that failed, too."""
    name = serve(LOOKUP, LOOKUP_CONFIG)
    with onnx_server.client() as client:
        model = client.model(name)
        for rows in ([0], [1, 2], [2, 1, 0], [1]):
            model(np.array(rows).reshape(-1, 1))
        for _ in range(2):
            with pytest.raises(InferenceFailedError):
                model(np.array([[99]]))
        # A request is counted just after it was answered.
        wait_until(lambda: batch_sizes(client, name) == {1: 2, 2: 1, 3: 1})
        wait_until(lambda: count(statistics(client, name), "inference_stats", "fail", "count") == 2)
        stats = statistics(client, name)
    assert count(stats, "inference_count") == 7  # rows that were answered
    assert count(stats, "execution_count") == 4
    assert count(stats, "inference_stats", "success", "count") == 4
    for part in ("queue", "compute_input", "compute_infer", "compute_output"):
        assert count(stats, "inference_stats", part, "count") == 4


@native_only
def test_an_instance_says_at_its_end_what_it_did_natively(onnx_server: TritonServer, serve: Serve) -> None:
    name = serve(LOOKUP, LOOKUP_CONFIG)
    with onnx_server.client() as client:
        for index in (0, 1, 99):
            at_once([partial(client.model(name), np.array([[index]]))])
    onnx_server.unload(name)
    line = f"{name}_0_0 answered 3 requests in 2 runs; 1 got an error"
    wait_until(lambda: line in onnx_server.log.read_text())


@native_only
def test_several_instances_answer_many_threads_natively(onnx_server: TritonServer, serve: Serve) -> None:
    """Python-based instances are processes of their own, so they share nothing that this could break."""
    name = serve(LOOKUP, LOOKUP_CONFIG.replace("count: 1", "count: 3"))

    def ask(model: Any, seed: int) -> None:
        for index in np.random.default_rng(seed).integers(0, 3, 30):
            assert model(np.array([[index], [2 - index]]), outputs=["row"])[:, 0, 0].tolist() == [
                2 * index,
                4 - 2 * index,
            ]

    with onnx_server.client() as client, ThreadPoolExecutor(32) as pool:
        model = client.model(name)
        list(pool.map(partial(ask, model), range(32)))
        wait_until(lambda: count(statistics(client, name), "inference_stats", "success", "count") == 32 * 30)
    onnx_server.unload(name)
    wait_until(lambda: all(f"{name}_0_{i} answered" in onnx_server.log.read_text() for i in range(3)))


@native_only
def test_the_instances_of_a_model_share_its_weights_natively(onnx_server: TritonServer, serve: Serve) -> None:
    """Python-based instances are processes of their own."""
    size_bytes = 100 << 20
    content = lookup(np.ones((size_bytes // 4 // 1024, 1024), np.float32))
    text = config("index INT64 1", "row FP32 1,1024;echo INT64 1")
    alone = "parameters { key: 'share_session_between_instances' value { string_value: 'false' } }"
    process = psutil.Process(onnx_server.pid)

    def grown_bytes(text: str) -> int:
        """How much resident memory a model takes, and that it answers."""
        before = process.memory_info().rss
        name = serve(content, text)
        with onnx_server.client() as client:
            assert client.model(name)(np.array([[7]]), outputs=["row"])[0, 0, 0] == 1
        grown = process.memory_info().rss - before
        onnx_server.unload(name)
        wait_until(lambda: process.memory_info().rss < before + size_bytes // 4)
        return grown

    one, four = grown_bytes(text), grown_bytes(text.replace("count: 1", "count: 4"))
    apart = grown_bytes(text.replace("count: 1", "count: 2") + alone)
    assert one > size_bytes // 2
    assert four - one < size_bytes // 4
    assert apart - one > size_bytes // 2


VERSIONS = {"specific { versions: [1] }": [1], "latest { num_versions: 1 }": [3], "all { }": [1, 2, 3]}


@pytest.mark.parametrize("policy", VERSIONS)
def test_the_version_policy_says_which_versions_answer(onnx_server: TritonServer, serve: Serve, policy: str) -> None:
    files = {f"{version}/model.onnx": adder(version) for version in (1, 2, 3)}
    name = serve(files, ADDER_CONFIG + f"version_policy {{ {policy} }}")
    with onnx_server.client() as client:
        for version in (1, 2, 3):
            model = client.model(name, version)
            if version in VERSIONS[policy]:
                assert model([[0.0, 10.0]]).tolist() == [[version, 10.0 + version]]
            else:
                with pytest.raises(ServerError, match="version"):
                    model([[0.0, 10.0]])
        # The newest, if the client names none.
        assert client.model(name)([[0.0, 0.0]]).tolist() == [[VERSIONS[policy][-1]] * 2]


def test_an_ensemble_of_two_models_and_a_failure_in_it(onnx_client: Client, serve: Serve) -> None:
    first = serve(LOOKUP, LOOKUP_CONFIG)
    second = serve(doubler(("batch", 1, 2)), config("x FP32 1,2", "y FP32 1,2"))
    ensemble = f"""
        platform: "ensemble" max_batch_size: 8
        input {{ name: "index" data_type: TYPE_INT64 dims: 1 }}
        output {{ name: "y" data_type: TYPE_FP32 dims: [1, 2] }}
        ensemble_scheduling {{
            step {{
                model_name: "{first}" model_version: -1
                input_map {{ key: "index" value: "index" }} output_map {{ key: "row" value: "between" }}
            }}
            step {{
                model_name: "{second}" model_version: -1
                input_map {{ key: "x" value: "between" }} output_map {{ key: "y" value: "y" }}
            }}
        }}
    """
    model = onnx_client.model(serve({"1/.keep": b""}, ensemble))
    assert model(np.array([[1], [2]])).tolist() == [[[4.0, 6.0]], [[8.0, 10.0]]]
    with pytest.raises(ServerError, match="99"):
        model(np.array([[99]]))
    assert model(np.array([[0]])).tolist() == [[[0.0, 2.0]]]


@pytest.mark.parametrize("data", ["zero_data", "random_data"])
def test_a_model_is_warmed_up_with_every_dtype_at_load(onnx_server: TritonServer, serve: Serve, data: str) -> None:
    model = onnx_bytes(
        [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Identity", ["words"], ["same"])],
        [("x", TensorProto.FLOAT, DIMS), ("words", TensorProto.STRING, DIMS)],
        [("y", TensorProto.FLOAT, DIMS), ("same", TensorProto.STRING, DIMS)],
    )
    warmup = f"""
        model_warmup {{
            name: "two rows" batch_size: 2 count: 3
            inputs {{ key: "x" value {{ data_type: TYPE_FP32 dims: 2 {data}: true }} }}
            inputs {{ key: "words" value {{ data_type: TYPE_STRING dims: 2 {data}: true }} }}
        }}
    """
    name = serve(model, config("x FP32 2;words STRING 2", "y FP32 2;same STRING 2", more=warmup))
    with onnx_server.client() as client:
        got = client.model(name)(x=[[1.0, 2.0]], words=[["a", "b"]])
        assert got["same"].tolist() == [["a", "b"]]
    if onnx_server.onnx_backend == "native":
        onnx_server.unload(name)
        wait_until(lambda: f"{name}_0_0 answered 7 requests in 4 runs; 0 got" in onnx_server.log.read_text())


def test_a_request_that_waits_too_long_is_refused(onnx_client: Client, serve: Serve) -> None:
    queue = "default_queue_policy { timeout_action: REJECT default_timeout_microseconds: 1000 }"
    # A lone request waits for company for 100 ms, and may wait for 1 ms only.
    batching = f"dynamic_batching {{ preferred_batch_size: 8 max_queue_delay_microseconds: 100000 {queue} }}"
    model = onnx_client.model(serve(doubler(), config("x FP32 2", "y FP32 2", more=batching)))
    with pytest.raises(ServerBusyError, match=r"[Tt]imeout expired"):
        model([[1.0, 2.0]])


def test_a_full_queue_refuses_at_once_and_answers_what_it_took(onnx_server: TritonServer, serve: Serve) -> None:
    queue = "default_queue_policy { max_queue_size: 2 }"
    batching = f"dynamic_batching {{ preferred_batch_size: 8 max_queue_delay_microseconds: 200000 {queue} }}"
    name = serve(doubler(), config("x FP32 2", "y FP32 2", more=batching))
    with onnx_server.client() as client:
        answers = together(client, name, [np.full((1, 2), i, np.float32) for i in range(12)])
    assert 0 < sum(isinstance(answer, ServerBusyError) for answer in answers) < 12
    for i, answer in enumerate(answers):
        assert isinstance(answer, ServerBusyError) or answer.tolist() == [[2.0 * i] * 2]


def test_cancelled_requests_do_no_harm(onnx_server: TritonServer, serve: Serve) -> None:
    # They wait for company that does not come, so that each is cancelled long before it could be answered.
    batching = "dynamic_batching { preferred_batch_size: 8 max_queue_delay_microseconds: 300000 }"
    name = serve(doubler(), config("x FP32 2", "y FP32 2", more=batching))
    pid = onnx_server.pid
    with tritonclient.grpc.InferenceServerClient(onnx_server.grpc_url.removeprefix("grpc://")) as client:
        tensor = tritonclient.grpc.InferInput("x", [1, 2], "FP32").set_data_from_numpy(np.ones((1, 2), np.float32))
        ended: list[Future[Any]] = []
        for _ in range(5):
            future: Future[Any] = Future()
            call = client.async_infer(name, [tensor], lambda result, error, f=future: f.set_result(error or result))
            call.cancel()
            ended.append(future)
        assert ["CANCELLED" in str(future.result(10)) for future in ended] == [True] * 5
    with onnx_server.client() as http:
        answers = together(http, name, [np.full((1, 2), i, np.float32) for i in range(8)])
    assert [answer.tolist() for answer in answers] == [[[2.0 * i] * 2] for i in range(8)]
    assert onnx_server.pid == pid
    assert psutil.pid_exists(pid)


def test_a_model_is_loaded_and_unloaded_under_traffic(onnx_server: TritonServer, serve: Serve) -> None:
    name = serve(adder(1), ADDER_CONFIG + "dynamic_batching { }")
    process = psutil.Process(onnx_server.pid)
    stop = threading.Event()

    def ask(protocol: str, seed: int) -> int:
        good = 0
        x = np.random.default_rng(seed).integers(0, 99, (1 + seed % 3, 2)).astype(np.float32)
        with onnx_server.client(protocol=protocol) as client:
            model = client.model(name)
            while not stop.is_set():
                try:
                    np.testing.assert_array_equal(model(x), x + 1)
                    good += 1
                except ServerError:
                    pass  # it is not there just now
        return good

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, protocol, seed) for seed, protocol in enumerate(["http", "grpc"] * 4)]
        try:
            rss = []
            for turn in range(20):
                if turn % 2:
                    onnx_server.unload(name)
                onnx_server.load(name)
                rss.append(process.memory_info().rss)
        finally:
            stop.set()
        good = sum(future.result(30) for future in asked)
    assert good > 20
    assert process.is_running()
    assert rss[-1] - rss[4] < 30 << 20
    with onnx_server.client() as client:
        assert client.model(name)([[1.0, 2.0]]).tolist() == [[2.0, 3.0]]


@native_only
def test_instances_come_and_go_under_traffic_natively(onnx_server: TritonServer, serve: Serve) -> None:
    """Python-based instances are processes of their own."""
    name = serve(adder(1), ADDER_CONFIG)
    config_file = onnx_server.repository.path / name / "config.pbtxt"
    stop = threading.Event()

    def ask(model: Any, value: int) -> int:
        good = 0
        while not stop.is_set():
            assert model([[value, value]]).tolist() == [[value + 1, value + 1]]
            good += 1
        return good

    with onnx_server.client() as client, ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask, client.model(name), value) for value in range(4)]
        try:
            for instances in (3, 1, 4, 2, 1) * 3:
                config_file.write_text(ADDER_CONFIG.replace("count: 1", f"count: {instances}"))
                onnx_server.load(name)
        finally:
            stop.set()
        assert all(future.result(30) > 0 for future in asked)
