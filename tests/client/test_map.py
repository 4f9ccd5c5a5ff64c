"""`map`: batches in, results out, lazily, in order, and without anything left behind."""

from __future__ import annotations

import asyncio
import itertools
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, closing
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tritium.client import AsyncClient, Client, InferenceFailedError, InputError, Model, TensorSpec
from tritium.server import ADMIN_GROUPS, TritonServer

from .recording_servers import Recorder, recording
from .surfaces import SURFACES, bulk_tasks, use
from .table_models import DUO, write_echo

ROWS = np.arange(22, dtype=np.float32).reshape(11, 2)
Use = Callable[..., Any]


@pytest.fixture(params=["http", "grpc"])
def protocol(request: pytest.FixtureRequest) -> str:
    """Each protocol."""
    return str(request.param)


@pytest.fixture(scope="module")
def echo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A Triton whose models give back their inputs: `number`, INT64 of shape (rows, 1), and `duo`."""
    repository = tmp_path_factory.mktemp("map")
    write_echo(repository / "number", [TensorSpec("x", "INT64", (1,))])
    write_echo(repository / "duo", DUO)
    with TritonServer(repository, open_groups=ADMIN_GROUPS) as running:
        yield running


@pytest.fixture
def url(protocol: str, echo_server: TritonServer) -> str:
    """Where it is."""
    return echo_server.http_url if protocol == "http" else echo_server.grpc_url


@pytest.fixture(params=SURFACES)
def echo(request: pytest.FixtureRequest, url: str) -> Use:
    """Uses a method of one of its models, with each client over each protocol."""
    return lambda *arguments, **named: use(request.param, url, *arguments, **named)


@pytest.fixture
def number(url: str) -> Iterator[Model]:
    """The model that gives back its numbers."""
    with Client(url) as client:
        yield client.model("number")


@pytest.fixture
def recorder(protocol: str) -> Iterator[Recorder]:
    """A server that can be made to wait: it gives back the numbers that it gets."""
    with recording(protocol) as running:
        yield running


def _wait_until(condition: Callable[[], bool], within_s: float = 10) -> None:
    waiting = threading.Event()
    for _ in range(int(within_s / 0.005)):
        if condition():
            return
        waiting.wait(0.005)
    pytest.fail("what was waited for did not come")


def _read(source: list[int], count: int | None = None) -> Iterator[NDArray[Any]]:
    """Rows without end, or so many; `source` has the numbers of those that were asked for."""
    for i in itertools.count() if count is None else range(count):
        source.append(i)
        yield np.array([[i]])


async def _read_slowly(source: list[int], count: int | None = None) -> AsyncIterator[NDArray[Any]]:
    for item in _read(source, count):
        await asyncio.sleep(0)
        yield item


def test_map_gives_what_calls_give_in_their_order(echo: Use) -> None:
    batches = [{"a": ROWS[i : i + 1 + i % 4], "b": -ROWS[i : i + 1 + i % 4]} for i in range(11)]
    for answer, batch in zip(echo("duo", "map", iter(batches)), batches, strict=True):
        np.testing.assert_array_equal(answer.same_b, batch["b"])


def test_map_takes_items_of_any_kind(echo: Use) -> None:
    items: list[Any] = [[[0], [1]], np.array([2]), {"x": [[1]]}]
    assert [answer.tolist() for answer in echo("number", "map", items)] == [[[0], [1]], [2], [[1]]]


def test_map_gives_the_outputs_asked_for(echo: Use) -> None:
    wanted = (name for name in ("same_b",))
    batches = [{"a": ROWS[:2], "b": -ROWS[:2]}] * 3
    for answer in echo("duo", "map", batches, outputs=wanted):
        np.testing.assert_array_equal(answer, -ROWS[:2])


def test_map_of_nothing_is_nothing(echo: Use) -> None:
    assert echo("number", "map", []) == []


def test_map_of_an_endless_iterator_reads_only_a_little_ahead(number: Model) -> None:
    read: list[int] = []
    mapped: Any = number.map(_read(read), in_flight=3)
    with closing(mapped) as results:
        assert read == []
        for taken, answer in enumerate(itertools.islice(results, 30), start=1):
            assert answer.tolist() == [[taken - 1]]
            assert len(read) <= taken + 2 * 3


@pytest.mark.parametrize("source", [_read, _read_slowly])
def test_async_map_takes_iterators_of_both_kinds_and_reads_only_a_little_ahead(
    source: Callable[..., Any], url: str
) -> None:
    async def run() -> None:
        read: list[int] = []
        async with AsyncClient(url) as client:
            taken = 0
            mapped: Any = client.model("number").map(source(read), in_flight=3)
            async with aclosing(mapped) as results:
                async for answer in results:
                    taken += 1
                    assert answer.tolist() == [[taken - 1]]
                    assert len(read) <= taken + 2 * 3
                    if taken == 30:
                        break

    asyncio.run(run())


def test_map_raises_at_the_item_that_failed(small_client: Client) -> None:
    items = [[[1]]] * 5 + [[[99]]] + [[[1]]] * 5
    results = small_client.model("pick").map(items)
    for _ in range(5):
        assert next(results).tolist() == [[20.0]]
    with pytest.raises(InferenceFailedError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def _broken(count: int) -> Iterator[NDArray[Any]]:
    yield from _read([], count)
    raise OSError("the disk is gone")


def test_map_that_is_left_early_leaves_its_items_open(url: str) -> None:
    items = _read([])
    with Client(url) as client:
        for _ in client.model("number").map(items, in_flight=2):
            break
    assert len(next(items)) == 1

    async def run() -> None:
        async with AsyncClient(url) as client:
            async for _ in client.model("number").map(items, in_flight=2):
                break

    asyncio.run(run())
    assert len(next(items)) == 1


@pytest.mark.parametrize("in_flight", [1, 4, 100])
def test_what_the_items_fail_with_is_raised_after_the_results_of_those_before(in_flight: int, url: str) -> None:
    with Client(url) as client:
        mapped = client.model("number").map(_broken(10), in_flight=in_flight)
        assert [len(next(mapped)) for _ in range(10)] == [1] * 10
        with pytest.raises(OSError, match="the disk is gone"):
            next(mapped)

    async def run() -> None:
        async with AsyncClient(url) as client:
            mapped = client.model("number").map(_broken(10), in_flight=in_flight)
            assert [len(await anext(mapped)) for _ in range(10)] == [1] * 10
            with pytest.raises(OSError, match="the disk is gone"):
                await anext(mapped)

    asyncio.run(run())


def test_async_map_raises_at_the_item_that_failed(url: str) -> None:
    async def run() -> None:
        async with AsyncClient(url) as client:
            results = client.model("number").map([[[1]]] * 5 + [[["one"]]] + [[[1]]] * 5)
            for _ in range(5):
                assert (await anext(results)).tolist() == [[1]]
            with pytest.raises(InputError, match="Input 'x' must be INT64"):
                await anext(results)
            with pytest.raises(StopAsyncIteration):
                await anext(results)

    asyncio.run(run())


def test_map_that_is_left_early_leaves_no_thread_and_the_client_works_on(number: Model) -> None:
    read: list[int] = []
    results: Any = number.map(_read(read), in_flight=3)
    next(results)
    results.close()
    before = len(read)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tritium-bulk")]
    assert number([[2]]).tolist() == [[2]]
    assert len(read) == before


def test_async_map_that_is_left_early_leaves_no_task_and_the_client_works_on(recorder: Recorder) -> None:
    held = threading.Event()
    recorder.on_infer = lambda number: 0 < number < 100 and held.wait(timeout=30)

    async def run() -> None:
        async with AsyncClient(recorder.url) as client:
            model, read = client.model("m"), iter(range(100))
            mapped: Any = model.map(([[number]] for number in read), in_flight=3)
            async with aclosing(mapped) as results:
                assert (await anext(results)).tolist() == [[0]]
            assert bulk_tasks() == []
            assert next(read) <= 2 * 3
            assert (await model([[100]])).tolist() == [[100]]

    try:
        asyncio.run(run())
    finally:
        held.set()


def test_map_keeps_neither_items_nor_results_that_were_taken(number: Model) -> None:
    alive: list[weakref.ref[Any]] = []

    def items() -> Iterator[NDArray[Any]]:
        for i in range(40):
            item = np.array([[i]])
            alive.append(weakref.ref(item))
            yield item
            del item

    most = 0
    for answer in number.map(items(), in_flight=2):
        alive.append(weakref.ref(answer))
        del answer
        most = max(most, sum(ref() is not None for ref in alive))
    # Those that wait to be taken, and the one or two that a thread or the loop has in hand.
    assert most <= 2 * 2 + 3
    _wait_until(lambda: not any(ref() is not None for ref in alive))
