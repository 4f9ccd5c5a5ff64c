"""A queue that stays full: how soon what is too much is refused, and what becomes of the server's memory."""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks._memory import ALL, MAX_GROWTH, Sample, judge, look, series
from benchmarks._shared import BenchError, copied, print_columns, serving

from tritium.client import Client, Model, Retries, ServerBusyError
from tritium.repository import (
    GoldenCases,
    Manifest,
    Tolerance,
    compare,
    config_text,
    load_golden,
    named_outputs,
    read_config,
)

MODEL = "sentiment_transformer"
AT_ONCE, QUEUE = 64, 8
MAX_REFUSAL_MS = 50.0
_EVERY_S = 0.5
LEAST_S = 25
ACCEPTED, REFUSED = "accepted", "refused"


@dataclass
class Asked:
    """What one thread found: the seconds of each answer and of each refusal, and what is wrong with an answer."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {ACCEPTED: [], REFUSED: []})
    fault: str = ""


def overload(duration_s: float) -> dict[str, Any]:
    """Threads that ask again as soon as they have an answer or a refusal, for so long."""
    samples: list[Sample] = []
    done = threading.Event()
    with tempfile.TemporaryDirectory(prefix="tritium-bench-") as name:
        folder = copied(MODEL, Path(name))
        config = read_config(folder.parent / "config.pbtxt")
        cases, tolerance = load_golden(folder, config), Manifest.load(folder).tolerance
        config.max_batch_size = 1
        config.dynamic_batching.Clear()
        config.dynamic_batching.default_queue_policy.max_queue_size = QUEUE
        (folder.parent / "config.pbtxt").write_text(config_text(config), encoding="utf-8")
        with (
            serving(Path(name), "native") as server,
            Client(server.http_url, retries=Retries(attempts=1)) as client,
            ThreadPoolExecutor(AT_ONCE) as pool,
        ):
            model = client.model(MODEL)
            started_s = time.monotonic()
            threads = [pool.submit(_ask, model, cases, tolerance, first, done) for first in range(AT_ONCE)]
            try:
                while (at_s := time.monotonic() - started_s) < duration_s and not done.is_set():
                    samples.append(look(server.pid, at_s))
                    print(f"\rOverload: {at_s:.0f} of {duration_s:.0f} s", end="", file=sys.stderr)
                    done.wait(_EVERY_S)
            finally:
                done.set()
                print(file=sys.stderr)
            found = [thread.result() for thread in threads]
    for asked in found:
        if asked.fault:
            raise BenchError(f"Under overload {MODEL} gives a wrong answer: {asked.fault}")
    return _figures(found, samples)


def _ask(model: Model, cases: GoldenCases, tolerance: Tolerance, first: int, done: threading.Event) -> Asked:
    asked, case = Asked(), first % len(cases)
    rows = {name: array[case : case + 1] for name, array in cases.inputs.items()}
    right = {name: array[case : case + 1] for name, array in cases.outputs.items()}
    try:
        while not done.is_set():
            begun = time.perf_counter()
            try:
                answer = model(rows)
            except ServerBusyError:
                asked.seconds[REFUSED].append(time.perf_counter() - begun)
                continue
            asked.seconds[ACCEPTED].append(time.perf_counter() - begun)
            compared = compare(right, named_outputs(answer, list(right)), tolerance)
            asked.fault = "; ".join(str(item) for item in compared if not item.ok)
            if asked.fault:
                break
    finally:
        done.set()
    return asked


def _figures(found: Sequence[Asked], samples: Sequence[Sample]) -> dict[str, Any]:
    figures: dict[str, Any] = {"model": MODEL, "at_once": AT_ONCE, "queue": QUEUE}
    for kind in (ACCEPTED, REFUSED):
        mine = [taken_s for asked in found for taken_s in asked.seconds[kind]]
        if not mine:
            raise BenchError(f"Of {AT_ONCE} requests at once none was {kind}")
        p50, p99 = np.percentile(np.array(mine) * 1e3, (50, 99))
        figures[kind] = {"requests": len(mine), "p50_ms": float(p50), "p99_ms": float(p99)}
    verdict = judge(*series(samples, "rss", ALL))
    figures["memory_mb"] = {"warm": verdict.warm_mb, "end": verdict.end_mb, "growth": verdict.growth}
    figures["targets"] = {"refused_p50_ms": MAX_REFUSAL_MS, "growth": MAX_GROWTH}
    figures["met"] = figures[REFUSED]["p50_ms"] < MAX_REFUSAL_MS and verdict.growth < MAX_GROWTH
    return figures


def print_overload(figures: Mapping[str, Any]) -> None:
    """A table on standard error."""
    heads = f"\n{figures['at_once']} requests at once to {figures['model']}, of which {figures['queue']} may wait"
    print(heads, file=sys.stderr)
    cells = [["", "requests", "p50 ms", "p99 ms"]]
    for kind in (ACCEPTED, REFUSED):
        mine = figures[kind]
        cells.append([kind, str(mine["requests"]), f"{mine['p50_ms']:.1f}", f"{mine['p99_ms']:.1f}"])
    print_columns(cells)
    memory, targets = figures["memory_mb"], figures["targets"]
    print(
        f"memory {memory['warm']:.1f} MB after warm-up, {memory['end']:.1f} at the end: {memory['growth']:+.2%}; a "
        f"refusal within {targets['refused_p50_ms']:g} ms and less than {targets['growth']:.0%} of growth: "
        f"{'met' if figures['met'] else 'NOT met'}",
        file=sys.stderr,
    )
