"""Many calls of an identity model, each with an input of its own, by either client: what became of each of them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritium.client import AsyncClient, Client, TritiumError

# Takes the URLs, and what `in_threads` takes.
Ask = Callable[..., list["Outcome"]]


@dataclass(frozen=True)
class Outcome:
    """What became of a call."""

    error: TritiumError | None
    took_s: float


def own_input(number: int) -> NDArray[np.int64]:
    """An input that no other call has, for the model `echo`, which answers with the same again."""
    return np.array([[number]])


def errors(outcomes: Sequence[Outcome]) -> list[TritiumError]:
    """Those of the calls that failed."""
    return [outcome.error for outcome in outcomes if outcome.error is not None]


def wait_until(condition: Callable[[], bool], within_s: float = 5) -> None:
    """Wait for a condition, which must come true."""
    ends_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < ends_s, "what was waited for did not come"
        threading.Event().wait(0.001)


def in_threads(
    urls: str | Sequence[str],
    calls: int | Iterable[int] = 1,
    *,
    workers: int = 1,
    once_warm: Callable[[], None] | None = None,
    **options: Any,
) -> list[Outcome]:
    """Call `echo` with one `Client` of these options, from so many threads. Another call's answer fails the test.

    Args:
        urls: of the server, or of its replicas.
        calls: how many, or the number of each, of which the next is taken when it is about to be made.
        workers: how many threads there are.
        once_warm: is called after one call more, when the model is known and a connection is open.
        options: of the client.
    """
    numbers = _Shared(calls)
    with Client(urls, **options) as client, ThreadPoolExecutor(workers) as pool:
        model = client.model("echo")

        def ask(number: int) -> Outcome:
            started_s = time.monotonic()
            try:
                return _outcome(number, started_s, model(own_input(number)))
            except TritiumError as exc:
                return _outcome(number, started_s, exc)

        if once_warm is not None:
            assert ask(-1).error is None
            once_warm()
        done = [pool.submit(lambda: [ask(number) for number in numbers]) for _ in range(workers)]
        return [outcome for some in done for outcome in some.result()]


def in_tasks(
    urls: str | Sequence[str],
    calls: int | Iterable[int] = 1,
    *,
    workers: int = 1,
    once_warm: Callable[[], None] | None = None,
    **options: Any,
) -> list[Outcome]:
    """The same with one `AsyncClient`, from so many tasks."""
    numbers = _Shared(calls)

    async def run() -> list[Outcome]:
        async with AsyncClient(urls, **options) as client:
            model = client.model("echo")

            async def ask(number: int) -> Outcome:
                started_s = time.monotonic()
                try:
                    return _outcome(number, started_s, await model(own_input(number)))
                except TritiumError as exc:
                    return _outcome(number, started_s, exc)

            async def work() -> list[Outcome]:
                return [await ask(number) for number in numbers]

            if once_warm is not None:
                assert (await ask(-1)).error is None
                once_warm()
            done = await asyncio.gather(*(work() for _ in range(workers)))
            return [outcome for some in done for outcome in some]

    return asyncio.run(run())


class _Shared(Iterator[int]):
    """Numbers that several threads take from; one that waits for the next keeps the others waiting."""

    def __init__(self, numbers: int | Iterable[int]) -> None:
        self._numbers = iter(range(numbers) if isinstance(numbers, int) else numbers)
        self._lock = threading.Lock()

    def __next__(self) -> int:
        with self._lock:
            return next(self._numbers)


def _outcome(number: int, started_s: float, result: Any) -> Outcome:
    took_s = time.monotonic() - started_s
    if isinstance(result, TritiumError):
        return Outcome(result, took_s)
    np.testing.assert_array_equal(result, own_input(number), err_msg="the answer is another request's")
    return Outcome(None, took_s)
