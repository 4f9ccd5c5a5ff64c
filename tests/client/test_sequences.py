"""Sequences: requests that belong together, of a model that keeps state between them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tritium.client import (
    AsyncClient,
    CallError,
    Client,
    InputError,
    Limits,
    RequestRecord,
    RequestRejectedError,
)
from tritium.server import TritonServer

from .surfaces import SURFACES

Step = tuple[int, bool]
# A sequence whose last request was not marked, and one where it was.
OPEN = [(1, False), (2, False), (3, False)]
ENDED = [(1, False), (2, False), (3, True)]


@pytest.fixture(params=SURFACES)
def surface(request: pytest.FixtureRequest) -> str:
    """Each kind of client."""
    return str(request.param)


@pytest.fixture(params=["http", "grpc"])
def url(request: pytest.FixtureRequest, protocol_server: TritonServer) -> str:
    """Where the server is, over each protocol."""
    return protocol_server.http_url if request.param == "http" else protocol_server.grpc_url


def _x(number: int) -> Any:
    return np.array([number], np.int64)


def _nothing() -> None:
    pass


def _run(
    surface: str,
    urls: str | Sequence[str],
    steps: Sequence[Step],
    correlation_id: int | str | None = None,
    *,
    model: str = "accumulate",
    at_the_end: Callable[[], object] = _nothing,
    options: dict[str, Any] | None = None,
) -> tuple[list[int], Any]:
    """The totals of a sequence of numbers, each of which says whether it is the last; and whose totals the server says.

    `at_the_end` is called before the block ends.
    """
    totals: list[int] = []
    whose: list[Any] = []

    async def run() -> None:
        async with AsyncClient(urls, **(options or {})) as client, client.model(model).sequence(correlation_id) as step:
            for number, last in steps:
                result = await step(_x(number), last=last)
                totals.append(result.total.item())
                whose.append(result.sequence.item())
            at_the_end()
            whose.append(step.correlation_id)

    if surface == "async":
        asyncio.run(run())
    else:
        with Client(urls, **(options or {})) as client, client.model(model).sequence(correlation_id) as step:
            for number, last in steps:
                result = step(_x(number), last=last)
                totals.append(result.total.item())
                whose.append(result.sequence.item())
            at_the_end()
            whose.append(step.correlation_id)
    assert len(set(whose)) == 1
    return totals, whose[0]


def _is_over(url: str, correlation_id: int | str, model: str = "accumulate") -> bool:
    """Whether the server has no such sequence, and so refuses to go on with it."""
    with Client(url) as client:
        step = client.model(model).sequence(correlation_id)
        step._state.begun = True
        try:
            step(_x(0), last=True)
        except RequestRejectedError as exc:
            assert "must specify the START flag on the first request of the sequence" in str(exc)
            return True
        return False


@pytest.mark.parametrize("steps", [OPEN, ENDED, [(7, True)], [(7, False)]], ids=str)
def test_a_sequence_has_its_sums_and_is_over_at_the_end(steps: list[Step], surface: str, url: str) -> None:
    totals, whose = _run(surface, url, steps, 41)
    assert totals == np.cumsum([number for number, _ in steps]).tolist()
    assert whose == 41
    assert _is_over(url, 41)


@pytest.mark.parametrize("correlation_id", [1, 2**63 - 1, 2**31, None])
def test_a_sequence_of_a_number_is_known_by_it(correlation_id: int | None, surface: str, url: str) -> None:
    totals, whose = _run(surface, url, OPEN, correlation_id)
    assert totals == [1, 3, 6]
    assert isinstance(whose, int)
    assert correlation_id in (None, whose)


@pytest.mark.parametrize("correlation_id", ["a", "basket/7 é", "x" * 128])
def test_a_sequence_may_have_a_name(correlation_id: str, surface: str, url: str) -> None:
    totals, whose = _run(surface, url, OPEN, correlation_id, model="accumulate_by_name")
    assert (totals, whose) == ([1, 3, 6], correlation_id)
    assert _is_over(url, correlation_id, "accumulate_by_name")


@pytest.mark.parametrize("correlation_id", [0, -1, 2**63, True, "", "x" * 129, 1.5])
def test_what_is_no_name_of_a_sequence_is_refused(correlation_id: Any, surface: str, url: str) -> None:
    with pytest.raises(InputError, match="'correlation_id' parameter of sequence must be a whole number from 1"):
        _run(surface, url, OPEN, correlation_id)


def test_a_name_is_refused_where_the_model_is_told_a_number(surface: str, url: str) -> None:
    with pytest.raises(InputError, match="so the 'correlation_id' parameter must be a whole number, got 'name'"):
        _run(surface, url, OPEN, "name")


def test_an_error_in_the_block_ends_the_sequence_and_is_what_is_raised(surface: str, url: str) -> None:
    def fail() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        _run(surface, url, OPEN, 42, at_the_end=fail)
    assert _is_over(url, 42)


def test_a_request_that_is_refused_here_is_no_step(surface: str, url: str) -> None:
    async def run() -> list[int]:
        async with AsyncClient(url) as client, client.model("accumulate").sequence(43) as step:
            with pytest.raises(InputError, match="must have shape"):
                await step(np.array([1, 2]))
            first = await step(_x(1))
            with pytest.raises(InputError, match="must be INT64"):
                await step(np.array([0.5]), last=True)
            return [first.total.item(), (await step(_x(2), last=True)).total.item()]

    if surface == "async":
        assert asyncio.run(run()) == [1, 3]
        return
    with Client(url) as client, client.model("accumulate").sequence(43) as step:
        with pytest.raises(InputError, match="must have shape"):
            step(np.array([1, 2]))
        assert step(_x(1)).total.item() == 1
        with pytest.raises(InputError, match="must be INT64"):
            step(np.array([0.5]), last=True)
        assert step(_x(2), last=True).total.item() == 3


def test_a_sequence_without_requests_asks_nothing(surface: str, url: str) -> None:
    records: list[RequestRecord] = []

    async def run() -> None:
        async with AsyncClient(url, on_request=records.append) as client, client.model("accumulate").sequence():
            pass

    if surface == "async":
        asyncio.run(run())
    else:
        with Client(url, on_request=records.append) as client, client.model("accumulate").sequence():
            pass
    assert records == []


def test_a_sequence_is_not_used_after_its_end(url: str) -> None:
    with Client(url) as client:
        with client.model("accumulate").sequence(44) as step:
            step(_x(1), last=True)
            with pytest.raises(InputError, match="The sequence 44 has ended; begin another one"):
                step(_x(1))
        with pytest.raises(InputError, match="The sequence 44 has ended; begin another one"):
            step(_x(1))
        with client.model("accumulate").sequence(45) as step:
            step(_x(1))
        with pytest.raises(InputError, match="The sequence 45 has ended; begin another one"):
            step(_x(1))


def test_a_sequence_is_not_used_after_its_end_in_tasks(url: str) -> None:
    async def run() -> None:
        async with AsyncClient(url) as client:
            async with client.model("accumulate").sequence(44) as step:
                await step(_x(1), last=True)
                with pytest.raises(InputError, match="The sequence 44 has ended; begin another one"):
                    await step(_x(1))
            async with client.model("accumulate").sequence(45) as step:
                await step(_x(1))
            with pytest.raises(InputError, match="The sequence 45 has ended; begin another one"):
                await step(_x(1))

    asyncio.run(run())


def test_a_sequence_without_a_block_is_ended_by_its_last_request(url: str) -> None:
    with Client(url) as client:
        step = client.model("accumulate").sequence(46)
        assert [step(_x(n), last=n == 3).total.item() for n in (1, 2, 3)] == [1, 3, 6]
    assert _is_over(url, 46)


def test_a_step_takes_what_a_call_takes(url: str) -> None:
    records: list[RequestRecord] = []
    with Client(url, on_request=records.append) as client, client.model("accumulate").sequence(47) as step:
        assert step(x=[1], outputs="total", request_id="mine", timeout_s=20).tolist() == [1]
        assert step({"x": [2]}, outputs=["total"], parameters={"extra": "1"}).tolist() == [3]
    assert next(record.request_id for record in records if record.operation == "infer") == "mine"


def test_sequences_do_not_mix(url: str) -> None:
    with Client(url) as client:
        model = client.model("accumulate")
        with model.sequence() as first, model.sequence() as second, model.sequence() as third:
            steps = {1: first, 10: second, 100: third}
            totals = [[step(_x(n * base)).total.item() for base, step in steps.items()] for n in (1, 2, 3)]
    assert totals == [[1, 10, 100], [3, 30, 300], [6, 60, 600]]


def test_sequences_in_threads_do_not_mix(url: str) -> None:
    with Client(url, limits=Limits(max_connections=4)) as client, ThreadPoolExecutor(8) as pool:
        model = client.model("accumulate")

        def work(base: int) -> list[int]:
            with model.sequence() as step:
                return [step(_x(base * n)).total.item() for n in range(1, 21)]

        totals = list(pool.map(work, range(8)))
    assert totals == [(np.cumsum(np.arange(1, 21)) * base).tolist() for base in range(8)]


def test_sequences_in_tasks_do_not_mix(url: str) -> None:
    async def run() -> None:
        async with AsyncClient(url, limits=Limits(max_connections=4)) as client:
            model = client.model("accumulate")

            async def work(base: int) -> list[int]:
                async with model.sequence() as step:
                    return [(await step(_x(base * n))).total.item() for n in range(1, 21)]

            totals = await asyncio.gather(*(work(base) for base in range(8)))
            assert totals == [(np.cumsum(np.arange(1, 21)) * base).tolist() for base in range(8)]

    asyncio.run(run())


def test_all_requests_of_a_sequence_go_to_one_replica(surface: str, url: str) -> None:
    replicas = [url, url.replace("127.0.0.1", "localhost")]
    records: list[RequestRecord] = []
    options = {"on_request": records.append}
    used: Counter[str] = Counter()
    for _ in range(4):
        records.clear()
        assert _run(surface, replicas, [(1, False)] * 6, options=options)[0] == [1, 2, 3, 4, 5, 6]
        steps = [record for record in records if record.operation == "infer"]
        assert len(steps) == 7  # and the end
        (replica,) = {record.url for record in steps}
        used[replica] += 1
    assert set(used) <= set(replicas)


def test_sequences_are_spread_over_the_replicas(url: str) -> None:
    replicas = [url, url.replace("127.0.0.1", "localhost")]
    records: list[RequestRecord] = []
    with Client(replicas, on_request=records.append) as client:
        model = client.model("accumulate")
        for number in range(1, 9):
            with model.sequence(100 + number) as step:
                assert [step(_x(1)).total.item() for _ in range(3)] == [1, 2, 3]
    used = Counter(record.url for record in records if record.operation == "infer")
    # What is asked about the model takes its turns too.
    assert sorted(used) == sorted(replicas)
    assert min(used.values()) >= 8


def test_no_request_of_a_sequence_is_made_twice(refusing_address: str, url: str, surface: str) -> None:
    records: list[RequestRecord] = []
    with Client(url) as client:
        known = client._contract("accumulate", "", client._deadline(None))

    async def run() -> None:
        async with AsyncClient(nowhere, on_request=records.append) as client:
            client._contracts["accumulate", ""] = known
            await client.model("accumulate").sequence()(_x(1))

    nowhere = f"{url.partition(':')[0]}://{refusing_address}"
    with pytest.raises(CallError):
        if surface == "async":
            asyncio.run(run())
        with Client(nowhere, on_request=records.append) as client:
            client._contracts["accumulate", ""] = known
            client.model("accumulate").sequence()(_x(1))
    assert [(record.operation, record.attempts) for record in records] == [("infer", 1)]
