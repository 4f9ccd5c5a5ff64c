"""Streams of models that answer any number of times."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest

from tritium.client import (
    AsyncClient,
    Client,
    DeadlineExceededError,
    InferenceFailedError,
    InputError,
    RequestRecord,
    TritiumError,
)
from tritium.server import TritonServer

from .served_models import identity_name
from .surfaces import SURFACES, use

ENDLESS = 2**31 - 1
PROTOCOLS = ("http", "grpc")


@pytest.fixture(params=SURFACES)
def surface(request: pytest.FixtureRequest) -> str:
    """Each kind of client."""
    return str(request.param)


@pytest.fixture(params=PROTOCOLS)
def url(request: pytest.FixtureRequest, protocol_server: TritonServer) -> str:
    """Where the server is, over each protocol."""
    return protocol_server.http_url if request.param == "http" else protocol_server.grpc_url


@pytest.fixture
def grpc_url(protocol_server: TritonServer) -> str:
    """Where the server is, over the protocol that has streams."""
    return protocol_server.grpc_url


def _n(count: int) -> Any:
    return np.array([count], np.int32)


def _count(
    surface: str, url: str, count: int, *, most: int | None = None, options: dict[str, Any] | None = None, **named: Any
) -> tuple[list[int], TritiumError | None]:
    """The answers of `countdown`, until there are so many, and what it ended with if that was an error."""
    got: list[int] = []
    try:
        if surface == "sync":
            with Client(url, **(options or {})) as client:
                for answer in client.model("countdown").stream(_n(count), **named):
                    got.append(answer.item())
                    if len(got) == most:
                        break
        else:
            asyncio.run(_count_in_task(url, count, got, most, options or {}, named))
    except TritiumError as exc:
        return got, exc
    return got, None


async def _count_in_task(
    url: str, count: int, got: list[int], most: int | None, options: dict[str, Any], named: dict[str, Any]
) -> None:
    async with AsyncClient(url, **options) as client:
        async for answer in client.model("countdown").stream(_n(count), **named):
            got.append(answer.item())
            if len(got) == most:
                break


# streams


@pytest.mark.parametrize("count", [0, 1, 7, 500])
def test_a_stream_gives_each_answer_in_its_order(count: int, surface: str, grpc_url: str) -> None:
    assert _count(surface, grpc_url, count) == (list(range(count, 0, -1)), None)


@pytest.mark.parametrize("count", [1, 5])
def test_an_error_comes_after_the_answers_before_it(count: int, surface: str, grpc_url: str) -> None:
    got, error = _count(surface, grpc_url, -count, request_id="mine")
    assert got == list(range(count, 0, -1))
    assert isinstance(error, InferenceFailedError)
    assert f"cannot count below -{count}" in str(error)
    assert (error.model, error.request_id, error.url) == ("countdown", "mine", grpc_url)


@pytest.mark.parametrize("most", [1, 3])
def test_a_stream_may_be_left_early_and_the_server_goes_on(most: int, surface: str, grpc_url: str) -> None:
    assert _count(surface, grpc_url, 300, most=most) == (list(range(300, 300 - most, -1)), None)
    assert _count(surface, grpc_url, 3) == ([3, 2, 1], None)


def test_a_stream_without_end_may_be_left_and_ends_with_its_deadline(surface: str, grpc_url: str) -> None:
    got, error = _count(surface, grpc_url, ENDLESS, most=2, timeout_s=0.5)
    assert (got, error) == ([ENDLESS, ENDLESS - 1], None)
    # The only instance of the model is free again.
    assert _count(surface, grpc_url, 3) == ([3, 2, 1], None)


def test_a_client_goes_on_after_a_stream_that_was_left(grpc_url: str) -> None:
    with Client(grpc_url) as client:
        model = client.model("countdown")
        for _ in model.stream(_n(50)):
            break
        left = model.stream(_n(50))
        next(left)
        del left
        assert [answer.item() for answer in model.stream(_n(2))] == [2, 1]


def test_an_async_client_goes_on_after_a_stream_that_was_left(grpc_url: str) -> None:
    async def run() -> None:
        async with AsyncClient(grpc_url) as client:
            model = client.model("countdown")
            async for _ in model.stream(_n(50)):
                break
            async with aclosing(model.stream(_n(50))) as answers:  # type: ignore[type-var]
                async for _ in answers:
                    break
            assert [answer.item() async for answer in model.stream(_n(2))] == [2, 1]

    asyncio.run(run())


def test_a_stream_that_nobody_reads_asks_nothing(grpc_url: str) -> None:
    records: list[RequestRecord] = []
    with Client(grpc_url, on_request=records.append) as client:
        client.model("countdown").stream(_n(5))
        assert [record for record in records if record.operation == "stream"] == []


def test_the_deadline_of_a_stream_is_that_of_its_last_answer(surface: str, grpc_url: str) -> None:
    got, error = _count(surface, grpc_url, ENDLESS, timeout_s=0.3)
    assert got[:2] == [ENDLESS, ENDLESS - 1]
    assert isinstance(error, DeadlineExceededError)
    assert "did not answer within 0.3 s" in str(error)
    assert _count(surface, grpc_url, 1) == ([1], None)


def test_a_stream_of_a_client_that_is_closed_goes_on_to_its_end(surface: str, grpc_url: str) -> None:
    if surface == "sync":
        client = Client(grpc_url)
        answers = client.model("countdown").stream(_n(5))
        assert next(answers).item() == 5
        client.close()
        assert [answer.item() for answer in answers] == [4, 3, 2, 1]
        return

    async def run() -> None:
        client = AsyncClient(grpc_url)
        answers = client.model("countdown").stream(_n(5))
        assert (await anext(answers)).item() == 5
        await client.close()
        assert [answer.item() async for answer in answers] == [4, 3, 2, 1]

    asyncio.run(run())


def test_a_call_does_not_wait_for_a_stream_that_was_left_when_its_client_is_closed(grpc_url: str) -> None:
    async def run() -> None:
        client = AsyncClient(grpc_url)
        identity = client.model(identity_name("INT64", 1))
        await identity([1])
        answers: Any = client.model("countdown").stream(_n(ENDLESS), timeout_s=2)
        await anext(answers)
        await answers.aclose()
        calls = [asyncio.create_task(identity([number])) for number in range(3)]
        await asyncio.sleep(0)  # they begin
        closing = asyncio.create_task(client.close())
        assert [(await call).tolist() for call in calls] == [[0], [1], [2]]
        assert not closing.done()  # that waits for the stream
        closing.cancel()
        await asyncio.wait([closing])
        assert await _drained(client) == 1

    asyncio.run(run())


async def _drained(client: AsyncClient) -> int:
    """Wait until streams that were left early have ended by themselves; how many did."""
    (replica,) = client._replicas.all
    draining = list(replica.transport._draining)  # type: ignore[attr-defined]
    await asyncio.wait(draining, timeout=30)
    return sum(not task.cancelled() for task in draining)


def test_a_task_that_reads_a_stream_may_be_cancelled(grpc_url: str) -> None:
    async def run() -> None:
        async with AsyncClient(grpc_url) as client:
            model, begun = client.model("countdown"), asyncio.Event()

            async def read() -> None:
                async for _ in model.stream(_n(ENDLESS), timeout_s=1):
                    begun.set()

            task = asyncio.create_task(read())
            await asyncio.wait_for(begun.wait(), 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert [answer.item() async for answer in model.stream(_n(2))] == [2, 1]

    asyncio.run(run())


def test_several_streams_at_once_do_not_mix(grpc_url: str) -> None:
    counts = list(range(0, 80, 10))
    with Client(grpc_url) as client, ThreadPoolExecutor(len(counts)) as pool:
        model = client.model("countdown")
        answers = list(pool.map(lambda count: [a.item() for a in model.stream(_n(count))], counts))
    assert answers == [list(range(count, 0, -1)) for count in counts]


def test_several_streams_at_once_do_not_mix_in_tasks(grpc_url: str) -> None:
    async def run() -> None:
        async with AsyncClient(grpc_url) as client:
            model = client.model("countdown")

            async def count(n: int) -> list[int]:
                return [answer.item() async for answer in model.stream(_n(n))]

            counts = list(range(0, 80, 10))
            answers = await asyncio.gather(*(count(n) for n in counts))
            assert answers == [list(range(n, 0, -1)) for n in counts]

    asyncio.run(run())


@pytest.mark.parametrize(("count", "most", "kind"), [(3, None, None), (30, 1, None), (-2, None, InferenceFailedError)])
def test_the_hook_is_told_of_a_stream_once_it_is_over(
    count: int, most: int | None, kind: type[TritiumError] | None, surface: str, grpc_url: str
) -> None:
    records: list[RequestRecord] = []
    options = {"on_request": records.append}
    _count(surface, grpc_url, count, most=most, request_id="mine", options=options)
    (record,) = [record for record in records if record.operation == "stream"]
    assert (record.model, record.request_id, record.url, record.attempts) == ("countdown", "mine", grpc_url, 1)
    assert record.error is None if kind is None else isinstance(record.error, kind)


def test_a_stream_of_a_model_that_answers_once_has_one_answer(surface: str, grpc_url: str) -> None:
    (answer,) = use(surface, grpc_url, identity_name("INT32", 1), "stream", _n(5))
    assert answer.tolist() == [5]


def test_a_stream_takes_names_and_outputs(surface: str, grpc_url: str) -> None:
    answers = use(surface, grpc_url, "countdown", "stream", n=_n(2), outputs="left")
    assert [answer.item() for answer in answers] == [2, 1]


def test_input_of_a_stream_is_checked_before_it_is_sent(surface: str, grpc_url: str) -> None:
    with pytest.raises(InputError, match="must have shape"):
        use(surface, grpc_url, "countdown", "stream", np.array([1, 2], np.int32))


def test_a_stream_over_http_is_refused_with_the_way_out(surface: str, protocol_server: TritonServer) -> None:
    with pytest.raises(InputError, match="Streams need gRPC: make a client of grpc:// or grpcs:// instead of http://"):
        use(surface, protocol_server.http_url, "countdown", "stream", _n(1))


@pytest.mark.parametrize(
    ("method", "inputs"), [("__call__", _n(1)), ("classify", _n(1)), ("map", [_n(1)])], ids=lambda item: str(item)
)
def test_a_model_that_answers_any_number_of_times_cannot_be_called(
    method: str, inputs: Any, surface: str, url: str
) -> None:
    with pytest.raises(InputError, match=r"'countdown' answers any number of times: use stream\(\), over gRPC"):
        use(surface, url, "countdown", method, inputs)
