"""The server's side: what counters and processes say between two looks."""

from __future__ import annotations

import os
import socket

import numpy as np
import pytest

from tritium.client import Client
from tritium.loadtest._observer import Look, Observer, Work, server_process, together, work
from tritium.repository import Repository
from tritium.server import TritonServer


def look(at_s: float, **counts: dict[str, int]) -> Look:
    return Look(at_s, counts)


def test_work_is_the_difference_of_the_looks_nearest_to_the_moments() -> None:
    counts = {
        "requests": 10,
        "rows": 10,
        "executions": 4,
        "queue_ns": 20_000_000,
        "compute_ns": 5_000_000,
        "batch 2": 4,
    }
    more = {"requests": 30, "rows": 50, "executions": 14, "queue_ns": 60_000_000, "compute_ns": 25_000_000}
    looks = [look(1.0, cnn=counts), look(2.0, cnn=more | {"batch 2": 6, "batch 8": 8, "batch 16": 0}), look(9.0)]
    assert work(looks, 0.9, 2.2) == Work(
        requests=20, rows=40, executions=10, queue_ms=2.0, compute_ms=1.0, batch_sizes={2: 2, 8: 8}
    )


def test_a_model_that_was_loaded_anew_counts_from_nothing() -> None:
    looks = [look(0, cnn={"requests": 100, "rows": 100}), look(1, cnn={"requests": 3, "rows": 3})]
    done = work(looks, 0, 1)
    assert done is not None
    assert (done.requests, done.rows) == (3, 3)


def test_what_was_done_before_a_model_was_loaded_anew_is_counted_too() -> None:
    counts = [{"requests": n} for n in (100, 130, 20, 50)]
    looks = [look(at_s, cnn=found) for at_s, found in enumerate(counts)]
    # While it is loaded the server may know nothing of it.
    looks.insert(2, look(1.5))
    done = work(looks, 0, 3)
    assert done is not None
    assert done.requests == 30 + 20 + 30


def test_only_the_models_asked_for_are_counted() -> None:
    looks = [look(0), look(1, cnn={"requests": 1}, svm={"requests": 5})]
    done = [work(looks, 0, 1, models) for models in ((), ("svm",), ("mlp",))]
    assert [item and item.requests for item in done] == [6, 5, 0]


def test_one_look_says_nothing() -> None:
    assert work([look(0)], 0, 1) is None


def test_works_together_are_weighted_by_their_requests() -> None:
    one = Work(requests=1, rows=1, executions=1, queue_ms=4.0, compute_ms=8.0, batch_sizes={1: 1})
    three = Work(requests=3, rows=6, executions=2, queue_ms=0.0, compute_ms=4.0, batch_sizes={3: 2, 1: 1})
    assert together([one, three]) == Work(
        requests=4, rows=7, executions=3, queue_ms=1.0, compute_ms=5.0, batch_sizes={1: 2, 3: 2}
    )
    assert together([]) is None


def test_a_real_server_is_seen_with_its_work_its_memory_and_its_processes(
    zoo: Repository, server: TritonServer
) -> None:
    with server.client() as client:
        observer = Observer(client, server.pid)
        model = client.model("digits_mlp")
        row = np.zeros((3, *model.metadata.inputs[0].shape[1:]), np.float32)
        with observer.watching():
            for _ in range(5):
                model(row)
    first, last = observer.looks[0], observer.looks[-1]
    done = work(observer.looks, first.at_s, last.at_s, ("digits_mlp",))
    assert done is not None
    assert (done.requests, done.rows, done.batch_sizes) == (5, 15, {3: 5})
    assert done.compute_ms > 0
    assert last.memory_bytes is not None
    assert last.memory_bytes > 20e6
    assert last.processes >= 1


def test_a_server_that_is_gone_is_looked_at_without_an_error(silent_port: int) -> None:
    with Client(f"http://127.0.0.1:{silent_port}") as client:
        observer = Observer(client, None)
        with observer.watching():
            pass
    assert observer.looks == []


def test_the_process_behind_a_url_is_found_on_this_machine_only(server: TritonServer) -> None:
    assert server_process(server.http_url) == server.pid
    assert server_process(server.grpc_url) == server.pid
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert server_process(f"http://localhost:{listener.getsockname()[1]}") == os.getpid()
    assert server_process("http://triton.example:8000") is None
    assert server_process("http://127.0.0.1:1") is None


@pytest.mark.parametrize("url", ["http://127.0.0.1", "http://[::1]:x"])
def test_a_url_without_a_port_has_no_process(url: str) -> None:
    assert server_process(url) is None
