"""Many rows through a model: in which parts they go, and how the results come together.

Pure but for :func:`pipelined` and :func:`async_pipelined`, which keep several parts under way.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
)
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

import numpy as np

from ._contract import Arguments, Contract
from ._errors import AccessDeniedError, BulkError, InputError, MissingExtraError, TransportError, TritiumError
from ._tensors import Array, Outputs

T = TypeVar("T")
R = TypeVar("R")
Progress: TypeAlias = bool | Callable[[int, int], object]

# Where a server names no limit of its own.
_DEFAULT_BATCH_SIZE = 64
# After these nobody will answer what is left either.
_HOPELESS = (TransportError, AccessDeniedError)


class Rows:
    """Inputs of many rows, and what has become of them. As a context manager it shows the progress.

    Args:
        contract: what is known of the model.
        arguments: the call with all rows.
        batch_size: rows in a part; as many as the model takes by default.
        progress: True for a bar, or a function that is called with the rows done and all rows.

    Raises:
        InputError: an input does not fit, or the model takes no parts of that size.
    """

    def __init__(self, contract: Contract, arguments: Arguments, batch_size: int | None, progress: Progress) -> None:
        contract.check_outputs(arguments.outputs)
        self._inputs, self.count = contract.rows(arguments.inputs, arguments.named)
        # That is the shorter way, where it says the same.
        self._by_position = list(self._inputs) == [spec.name for spec in contract.metadata.inputs]
        most = contract.metadata.max_batch_size
        if batch_size is None:
            batch_size = most or _DEFAULT_BATCH_SIZE
        if (
            isinstance(batch_size, bool)
            or not isinstance(batch_size, int)
            or batch_size < 1
            or batch_size > (most or batch_size)
        ):
            limit = f"1 to {most}" if most else "1 or more"
            raise InputError(f"The 'batch_size' parameter of predict must be {limit}, got {batch_size!r} instead")
        self._batch_size = batch_size
        self._progress = progress
        self._bar: Any = None
        self._done = 0
        self._single = True
        self._results: dict[str, Array] = {}
        self._failed: list[tuple[range, TritiumError]] = []
        self._sent = 0
        self._hopeless: TritiumError | None = None

    def __enter__(self) -> Rows:
        """Begin to show the progress."""
        if self._progress is True:
            try:
                from tqdm.auto import tqdm
            except ImportError as exc:
                raise MissingExtraError("tqdm", "progress") from exc
            self._bar = tqdm(total=self.count, unit="row")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()

    def spans(self) -> Iterator[range]:
        """The parts that are to be sent, until nobody will answer them. No rows are one part, without any."""
        for start in range(0, max(1, self.count), self._batch_size):
            if self._hopeless is not None:
                return
            self._sent = min(start + self._batch_size, self.count)
            yield range(start, self._sent)

    def part(self, span: range) -> tuple[tuple[Any, ...], Mapping[str, Array]]:
        """The inputs of a part, by position or by name: views."""
        inputs = {name: array[span.start : span.stop] for name, array in self._inputs.items()}
        return (tuple(inputs.values()), {}) if self._by_position else ((), inputs)

    def add(self, span: range, result: Any) -> None:
        """A part has its results.

        Raises:
            InputError: they do not go together with those of the other parts.
        """
        self._single = not isinstance(result, Outputs)
        arrays: Mapping[str, Array] = result if isinstance(result, Outputs) else {"": result}
        for name, array in arrays.items():
            whole = self._results.get(name)
            if whole is None:
                make = np.empty if array.dtype == object else np.zeros
                whole = self._results[name] = make((self.count, *array.shape[1:]), array.dtype)
            if array.shape != (len(span), *whole.shape[1:]) or array.dtype != whole.dtype:
                raise InputError(
                    f"The output{f' {name!r}' if name else ''} has shape {array.shape} for rows {span.start} to "
                    f"{span.stop - 1} and another for those before, so they do not make one array: use map()"
                )
        for name, array in arrays.items():
            self._results[name][span.start : span.stop] = array
        self._advance(len(span))

    def fail(self, span: range, exc: TritiumError) -> None:
        """A part has no results, for good."""
        self._failed.append((span, exc))
        if isinstance(exc, _HOPELESS):
            self._hopeless = self._hopeless or exc
        self._advance(len(span))

    def results(self) -> Any:
        """What came of all rows.

        Raises:
            BulkError: some have no results.
        """
        if self._hopeless is not None and self._sent < self.count:
            self._failed.append((range(self._sent, self.count), self._hopeless))
        results: Any = None
        if self._results:
            arrays = {name: _alike(array) for name, array in self._results.items()}
            results = arrays[""] if self._single else Outputs(arrays)
        if not self._failed:
            return results
        count = sum(len(span) for span, _ in self._failed)
        first = self._failed[0]
        where = f"the first at row {first[0].start}: {first[1]}"
        raise BulkError(
            f"{count} of {self.count} rows have no results, {where}", failed=self._failed, results=results
        ) from first[1]

    def _advance(self, rows: int) -> None:
        self._done += rows
        if self._bar is not None:
            self._bar.update(rows)
        elif callable(self._progress):
            self._progress(self._done, self.count)


def _alike(array: Array) -> Array:
    """Strings that are text in some parts and bytes in others: bytes throughout, as a single call would give them."""
    if array.dtype.kind != "O" or not any(isinstance(item, bytes) for item in array.flat):
        return array
    alike = np.empty(array.size, object)
    alike[:] = [item.encode() if isinstance(item, str) else item for item in array.flat]
    return alike.reshape(array.shape)


def checked_in_flight(in_flight: int) -> int:
    """How many requests may be under way.

    Raises:
        InputError: no number of them.
    """
    if isinstance(in_flight, bool) or not isinstance(in_flight, int) or in_flight < 1:
        raise InputError(f"The 'in_flight' parameter must be 1 or more, got {in_flight!r} instead")
    return in_flight


def refuse_iterator(inputs: tuple[Any, ...]) -> None:
    """Refuse an iterator where all rows are needed at once.

    Raises:
        InputError: one is among the inputs.
    """
    if any(isinstance(value, Iterator | AsyncIterator) for value in inputs):
        raise InputError("predict() takes arrays, so that it can return arrays; map() takes an iterator and gives one")


def pipelined(items: Iterable[T], start: Callable[[T], Future[R]], in_flight: int) -> Iterator[tuple[T, Future[R]]]:
    """Start items in their order and hand them out in that order, at most so many ahead of what was taken.

    Twice as many are started as are under way, so that a slow one does not leave the others without work. What the
    items fail with is raised after what was started before.
    """
    waiting: deque[tuple[T, Future[R]]] = deque()
    failures: list[Exception] = []
    try:
        for item in _sound(items, failures):
            waiting.append((item, start(item)))
            if len(waiting) >= 2 * in_flight:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
        for exc in failures:
            raise exc
    finally:
        for _, future in waiting:
            future.cancel()


async def async_pipelined(
    items: Iterable[T] | AsyncIterable[T], run: Callable[[T], Awaitable[R]], in_flight: int
) -> AsyncGenerator[tuple[T, asyncio.Task[R]], None]:
    """The same with tasks."""
    waiting: deque[tuple[T, asyncio.Task[R]]] = deque()
    places, failures = asyncio.Semaphore(in_flight), list[Exception]()

    async def placed(item: T) -> R:
        async with places:
            return await run(item)

    try:
        async for item in _each(items, failures):
            waiting.append((item, asyncio.create_task(placed(item))))
            if len(waiting) >= 2 * in_flight:
                await asyncio.wait([waiting[0][1]])
                yield waiting.popleft()
        while waiting:
            await asyncio.wait([waiting[0][1]])
            yield waiting.popleft()
        for exc in failures:
            raise exc
    finally:
        for _, task in waiting:
            task.cancel()
        await asyncio.gather(*(task for _, task in waiting), return_exceptions=True)


async def _each(items: Iterable[T] | AsyncIterable[T], failures: list[Exception]) -> AsyncIterator[T]:
    if not isinstance(items, AsyncIterable):
        for item in _sound(items, failures):
            yield item
        return
    try:
        async for item in items:
            yield item
    except Exception as exc:
        failures.append(exc)


def _sound(items: Iterable[T], failures: list[Exception]) -> Iterator[T]:
    """Items until there are no more; what they end with otherwise is kept for when the others are handed out."""
    try:
        for item in items:  # noqa: UP028 — `yield from` would close the caller's iterator where this is left
            yield item
    except Exception as exc:
        failures.append(exc)
