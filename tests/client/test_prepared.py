"""Calls whose inputs are encoded once: what they answer, what they ask, and what becomes of them when models change."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tritium.client import AsyncClient, Client, InputError, RequestRecord, TensorSpec
from tritium.client._contract import Contract
from tritium.server import ADMIN_GROUPS, TritonServer

from .surfaces import SURFACES
from .table_models import DUO, TABLE, write_echo

ROWS = np.arange(6, dtype=np.float32).reshape(3, 2)
BIRDS = {
    "island": np.array([["Dream"], ["Zürich"]], object),
    "sex": np.array([["female"], [""]], object),
    "bill_length_mm": np.array([[39.5], [50.25]], np.float32),
    "year": np.array([[2007], [2009]], np.int64),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A Triton whose models give back their inputs, and may be written anew."""
    repository: Path = tmp_path_factory.mktemp("prepared")
    write_echo(repository / "duo", DUO)
    write_echo(repository / "table", TABLE)
    write_echo(repository / "wide", [TensorSpec("x", "FP32", (20_000,))])
    with TritonServer(repository, open_groups=ADMIN_GROUPS) as running:
        yield running


@pytest.fixture(params=["http", "grpc"])
def url(request: pytest.FixtureRequest, server: TritonServer) -> str:
    """Where it is, over each protocol."""
    return server.http_url if request.param == "http" else server.grpc_url


@pytest.fixture(params=SURFACES)
def surface(request: pytest.FixtureRequest) -> str:
    """Each client."""
    return str(request.param)


def called(
    surface: str,
    url: str,
    model: str,
    *inputs: Any,
    ids: tuple[str, ...] = ("", ""),
    on_request: Any = None,
    **named: Any,
) -> list[Any]:
    """The answers to a prepared call, which is made once for each of the ids."""
    if surface == "sync":
        with Client(url, on_request=on_request) as client:
            call = client.model(model).prepare(*inputs, **named)
            return [call(request_id=request_id) for request_id in ids]

    async def run() -> list[Any]:
        async with AsyncClient(url, on_request=on_request) as client:
            call = await client.model(model).prepare(*inputs, **named)
            return [await call(request_id=request_id) for request_id in ids]

    return asyncio.run(run())


def test_each_answer_is_that_of_a_call(surface: str, url: str) -> None:
    for answer in called(surface, url, "duo", ROWS, ROWS[::-1]):
        assert list(answer) == ["same_a", "same_b"]
        np.testing.assert_array_equal(answer["same_a"], ROWS)
        np.testing.assert_array_equal(answer["same_b"], ROWS[::-1])


def test_inputs_may_be_given_in_every_way_of_a_call(surface: str, url: str) -> None:
    for answer in called(surface, url, "duo", {"a": ROWS[0].tolist()}, b=ROWS[1], outputs="same_b"):
        np.testing.assert_array_equal(answer, ROWS[1])  # without the batch axis in, without it out


def test_inputs_are_looked_at_and_encoded_once(surface: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Counter[str]()
    prepare = Contract.prepare

    def counted(self: Contract, arguments: Any) -> Any:
        seen[arguments.request_id] += 1
        return prepare(self, arguments)

    monkeypatch.setattr(Contract, "prepare", counted)
    answers = called(surface, url, "table", BIRDS, ids=("",) * 5)
    assert list(seen.values()) == [1]
    for answer in answers:
        assert {name: answer[f"same_{name}"].tolist() for name in BIRDS} == {
            name: column.tolist() for name, column in BIRDS.items()
        }


def test_large_inputs_are_sent_from_where_they_lie_every_time(surface: str, url: str) -> None:
    wide = np.random.default_rng(0).random((3, 20_000), np.float32)
    for answer in called(surface, url, "wide", wide, ids=("",) * 3):
        np.testing.assert_array_equal(answer, wide)


def test_parameters_are_those_of_the_time_when_it_was_prepared(url: str) -> None:
    parameters = {"priority": 0}
    with Client(url) as client:
        call = client.model("duo").prepare(ROWS, ROWS, parameters=parameters)
        parameters["priority"] = object()  # type: ignore[assignment]
        np.testing.assert_array_equal(call()["same_a"], ROWS)


def test_each_call_has_an_id_of_its_own(surface: str, url: str) -> None:
    records: list[RequestRecord] = []
    called(surface, url, "duo", ROWS, ROWS, ids=("first", "", ""), on_request=records.append)
    first, *made_up = [record.request_id for record in records if record.operation == "infer"]
    assert first == "first"
    assert len(set(made_up)) == 2
    assert all(len(request_id) == 16 for request_id in made_up)


def test_inputs_that_do_not_fit_are_refused_before_the_first_call(surface: str, url: str) -> None:
    records: list[RequestRecord] = []
    with pytest.raises(InputError, match="Input 'b' of 'duo' is missing"):
        called(surface, url, "duo", ROWS, on_request=records.append)
    with pytest.raises(InputError, match="'duo' has no output 'same'"):
        called(surface, url, "duo", ROWS, ROWS, outputs="same", on_request=records.append)
    assert "infer" not in {record.operation for record in records}


def test_id_that_no_log_can_hold_is_refused_and_says_whose_call_it_was(surface: str, url: str) -> None:
    with pytest.raises(InputError, match="The 'request_id' parameter must be printable text") as refused:
        called(surface, url, "duo", ROWS, ROWS, ids=("two\nlines",))
    assert (refused.value.model, refused.value.url) == ("duo", url)


def test_decoupled_model_is_refused(surface: str, protocol_server: TritonServer) -> None:
    with pytest.raises(InputError, match=r"'countdown' answers any number of times: use stream\(\)"):
        called(surface, protocol_server.grpc_url, "countdown", [3])


def test_no_rows_are_answered_without_a_request(surface: str, url: str) -> None:
    records: list[RequestRecord] = []
    (answer,) = called(surface, url, "duo", ROWS[:0], ROWS[:0], ids=("",), on_request=records.append)
    assert answer["same_a"].shape == (0, 2)
    assert "infer" not in {record.operation for record in records}


def test_model_that_was_published_again_gets_the_inputs_as_it_takes_them_now(url: str, server: TritonServer) -> None:
    def publish(dtype: str, length: int) -> None:
        write_echo(server.repository.path / "changing", [TensorSpec("x", dtype, (length,))], prefix=f"{dtype.lower()}_")
        with server.client(protocol="grpc") as client:
            client.load("changing")

    publish("FP32", 2)
    with Client(url) as client:
        call = client.model("changing").prepare(ROWS)
        assert call().dtype == np.float32
        publish("FP64", 2)
        for _ in range(2):
            answer = call()
            assert answer.dtype == np.float64
            np.testing.assert_array_equal(answer, ROWS)
        publish("FP64", 3)
        with pytest.raises(InputError, match=r"must have shape \(rows, 3\)"):
            call()


def test_threads_may_share_one_while_the_model_is_published_again(url: str, server: TritonServer) -> None:
    def publish(dtype: str) -> None:
        write_echo(server.repository.path / "shared", [TensorSpec("x", dtype, (2,))], prefix=f"{dtype.lower()}_")
        with server.client(protocol="grpc") as client:
            client.load("shared")

    publish("FP32")
    with Client(url) as client, ThreadPoolExecutor(4) as pool:
        call = client.model("shared").prepare(ROWS)
        answers = [pool.submit(call) for _ in range(100)]
        publish("FP64")
        answers += [pool.submit(call) for _ in range(100)]
        for answer in answers:
            np.testing.assert_array_equal(answer.result(), ROWS)
        assert call().dtype == np.float64


def test_threads_may_share_one(url: str) -> None:
    with Client(url) as client, ThreadPoolExecutor(8) as pool:
        call = client.model("duo").prepare(ROWS, ROWS)
        for answer in pool.map(lambda _: call(), range(64)):
            np.testing.assert_array_equal(answer["same_a"], ROWS)


def test_it_says_of_which_model_it_is(url: str) -> None:
    with Client(url) as client:
        assert repr(client.model("duo").prepare(ROWS, ROWS)) == f"PreparedCall(Model('duo', url='{client.url}'))"
