"""A process that sends golden cases when it is told to, and says what it measured.

The first line on standard input is a job, every further one a :class:`Block`; each block is answered by one line of
JSON on standard output. It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from tritium.client import (
    AsyncClient,
    AsyncModel,
    AsyncPreparedCall,
    Client,
    DeadlineExceededError,
    Limits,
    Retries,
    ServerBusyError,
    TritiumError,
)
from tritium.repository import Repository

from ._figures import Figures, figures
from ._requests import Outcome, Recorder, Requests
from ._traffic import Case, GoldenTraffic, WrongAnswerError

# Of a user that got no answer, before it tries again: what fails at once must not become the whole load.
_AFTER_FAILURE_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Block:
    """A short stretch of closed-loop load.

    Attributes:
        model: what is asked.
        users: requests under way at once, of one golden case each.
        settle_s: seconds of the same load before anything counts.
        block_s: seconds in which what is answered counts.
        timeout_s: that a request may take.
        fresh: whether the model was loaded again since the last block.
        seed: decides at which cases users begin.
    """

    model: str
    users: int
    settle_s: float
    block_s: float
    timeout_s: float
    fresh: bool
    seed: int


async def send(url: str, block: Block, traffic: GoldenTraffic) -> tuple[Figures, dict[str, int]]:
    """Load a server for a block.

    What is answered within the time counts, not what is sent: so neither the begin, when nothing has been answered
    yet, nor the end, when fewer and fewer are under way, is in the figures, however long one answer takes.

    Returns:
        The figures, and how often each error came.
    """
    recorder = Recorder()
    # Connections are made in the time that does not count; one for each user.
    async with AsyncClient(
        url,
        timeout_s=block.timeout_s,
        retries=Retries(attempts=1),
        limits=Limits(max_connections=block.users),
    ) as client:
        model = client.model(block.model)
        calls: dict[Case, AsyncPreparedCall] = {}
        begin_s = time.perf_counter() + block.settle_s
        end_s = begin_s + block.block_s
        await asyncio.gather(
            *(
                _use(model, traffic.requests(block.seed + user, models=[block.model]), calls, begin_s, end_s, recorder)
                for user in range(block.users)
            )
        )
    requests = Requests.merged([recorder.take()])
    return figures(requests, block.block_s), dict(requests.errors)


async def _use(
    model: AsyncModel,
    cases: Iterator[Case],
    calls: dict[Case, AsyncPreparedCall],
    begin_s: float,
    end_s: float,
    recorder: Recorder,
) -> None:
    """Be one user; `calls` are those of all, each made when it is needed first."""
    clock = time.perf_counter
    while (sent_s := clock()) < end_s:
        case, error = next(cases), ""
        try:
            if case not in calls:
                calls[case] = await model.prepare(case.inputs)
            answer = await calls[case]()
            got_s = clock()
            case.check(answer)
            outcome = Outcome.RIGHT
        except (TritiumError, WrongAnswerError) as exc:
            got_s, outcome = clock(), _outcome(exc)
            error = f"{type(exc).__name__}: {exc}"
        # What is wrong counts whenever it comes, and so does what was not answered in all the time.
        if begin_s <= got_s < end_s or error:
            recorder.add(
                case.name,
                outcome,
                due_s=sent_s - begin_s,
                latency_ms=(got_s - sent_s) * 1e3,
                rows=case.rows,
                error=error,
            )
        if error:
            await asyncio.sleep(_AFTER_FAILURE_S)


def _outcome(exc: Exception) -> Outcome:
    if isinstance(exc, WrongAnswerError):
        return Outcome.WRONG
    if isinstance(exc, ServerBusyError):
        return Outcome.REJECTED
    return Outcome.TIMED_OUT if isinstance(exc, DeadlineExceededError) else Outcome.FAILED


def main() -> None:
    """Work through standard input."""
    lines: Iterator[dict[str, Any]] = map(json.loads, iter(sys.stdin.readline, ""))
    job = next(lines)
    known: dict[str, GoldenTraffic] = {}
    for line in lines:
        block = Block(**line)
        try:
            if block.fresh or block.model not in known:
                # The config that is served decides how far answers may be off.
                with Client(job["url"]) as client:
                    known[block.model] = GoldenTraffic(Repository(job["repository"]), client, [block.model])
                # A collector that looks through all golden cases would be in the latencies.
                gc.collect()
                gc.freeze()
            measured, errors = asyncio.run(send(job["url"], block, known[block.model]))
            document: dict[str, Any] = {"figures": asdict(measured), "errors": errors}
        except TritiumError as exc:
            document = {"error": str(exc)}
        print(json.dumps(document), flush=True)  # noqa: T201 — the answer to whoever started this process


if __name__ == "__main__":
    main()
