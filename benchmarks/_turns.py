"""A client that is measured, in a process of its own: it makes calls when told to and says how long they took.

The first line on standard input is a job, every further one a turn; each is answered by one line of JSON on standard
output. This needs numpy only, because peers run it in environments of their own.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Call: TypeAlias = Callable[[], Array]
AsyncCall: TypeAlias = Callable[[], Awaitable[Array]]


@dataclass(frozen=True)
class Subject:
    """A model and what it is asked.

    Attributes:
        file: the ONNX file that the server runs.
        rows: of shape (rows, …), what one call sends.
        expected: what ONNX Runtime itself says of each row.
    """

    name: str
    file: str
    input: str
    output: str
    rows: Array
    expected: Array


@dataclass(frozen=True)
class Job:
    """What a process is started for: the server's addresses, without a scheme, and the models by name."""

    http: str
    grpc: str
    subjects: Mapping[str, Subject]


class WrongAnswerError(Exception):
    """An answer is not ONNX Runtime's: the figures would be worth nothing."""


def take_turns(opened: Callable[[Job], AbstractContextManager[Mapping[str, Call]]]) -> None:
    """Work through standard input with a client that blocks."""
    with _lines() as (job, turns, output), opened(job) as calls:
        for turn in turns:
            subject = job.subjects[turn["model"]]
            _say(output, _timed(calls[subject.name], subject, turn["calls"]))


def take_async_turns(opened: Callable[[Job], AbstractAsyncContextManager[Mapping[str, AsyncCall]]]) -> None:
    """Work through standard input with a client of asyncio."""
    stack = AsyncExitStack()
    with _lines() as (job, turns, output), asyncio.Runner() as runner:
        calls = runner.run(stack.enter_async_context(opened(job)))
        for turn in turns:
            subject = job.subjects[turn["model"]]
            timed = _timed_async(calls[subject.name], subject, turn["calls"], turn["in_flight"])
            _say(output, runner.run(timed))
        runner.run(stack.aclose())


def _timed(call: Call, subject: Subject, count: int) -> dict[str, float]:
    answers: list[Array] = []
    laps_ns = np.empty(count, np.int64)
    clock = time.perf_counter_ns
    cpu_s, begun = time.process_time(), clock()
    for turn in range(count):
        started = clock()
        answers.append(call())
        laps_ns[turn] = clock() - started
    elapsed_ns, cpu_s = clock() - begun, time.process_time() - cpu_s
    return _figures(answers, subject, laps_ns, elapsed_ns, cpu_s)


async def _timed_async(call: AsyncCall, subject: Subject, count: int, in_flight: int) -> dict[str, float]:
    answers: list[Array] = []
    laps_ns = np.empty(count, np.int64)
    clock = time.perf_counter_ns
    turns = iter(range(count))

    async def caller() -> None:
        for turn in turns:
            started = clock()
            answers.append(await call())
            laps_ns[turn] = clock() - started

    cpu_s, begun = time.process_time(), clock()
    await asyncio.gather(*(caller() for _ in range(in_flight)))
    elapsed_ns, cpu_s = clock() - begun, time.process_time() - cpu_s
    return _figures(answers, subject, laps_ns, elapsed_ns, cpu_s)


def _figures(
    answers: Sequence[Array], subject: Subject, laps_ns: NDArray[np.int64], elapsed_ns: int, cpu_s: float
) -> dict[str, float]:
    """What a turn took: a call's time, and a row's share of processor time; every answer is compared, off the clock."""
    for answer in answers:
        # A side that would take too long over all rows answers the first ones.
        expected = subject.expected[: len(answer)]
        if answer.shape != expected.shape or not np.allclose(answer, expected, rtol=1e-4, atol=1e-6):
            raise WrongAnswerError(f"{subject.name} is answered with {answer}, by ONNX Runtime itself with {expected}")
    p50_ns, p99_ns = np.percentile(laps_ns, (50, 99))
    rows = sum(map(len, answers))
    return {
        "p50_us": p50_ns / 1e3,
        "p99_us": p99_ns / 1e3,
        "cpu_us": cpu_s / rows * 1e6,
        "rows_per_s": rows / elapsed_ns * 1e9,
    }


@contextmanager
def _lines() -> Iterator[tuple[Job, Iterator[dict[str, Any]], IO[str]]]:
    """The job, the turns as they come, and where to answer; what libraries print goes to standard error."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as output:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        turns = map(json.loads, iter(sys.stdin.readline, ""))
        job = next(turns)
        subjects = {name: Subject(name, **_loaded(item)) for name, item in job["subjects"].items()}
        yield Job(job["http"], job["grpc"], subjects), turns, output


def _loaded(item: Mapping[str, str]) -> dict[str, Any]:
    return {**item, **{key: np.load(item[key]) for key in ("rows", "expected")}}


def _say(output: IO[str], figures: Mapping[str, float]) -> None:
    print(json.dumps(figures), file=output, flush=True)
