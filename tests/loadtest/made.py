"""Results that nobody measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tritium.loadtest import SUITES, Figures, LoadReport, LoadResult, Second, Stage, StageResult, Verdict, Work
from tritium.loadtest._suites import Wish

MODEL = "digits_cnn"


def figures(right: int, p50_ms: float, duration_s: float = 2.0, **changes: Any) -> Figures:
    values: dict[str, Any] = {"duration_s": duration_s, "requests": right, "right": right, "rows": right}
    if right:
        values |= {"p50_ms": p50_ms, "p90_ms": 2 * p50_ms, "p95_ms": 3 * p50_ms, "p99_ms": 4 * p50_ms}
        values |= {"p999_ms": 5 * p50_ms, "mean_ms": 1.2 * p50_ms, "max_ms": 6 * p50_ms}
    return Figures(**(values | changes))


def work(requests: int) -> Work:
    return Work(
        requests=requests,
        rows=requests,
        executions=requests // 2 + 1,
        queue_ms=0.5,
        compute_ms=0.25,
        batch_sizes={1: requests // 4, 2: requests // 4, 16: 3},
    )


def run(
    suite: str,
    *,
    speed: float = 1.0,
    noise: float = 0.0,
    seed: int = 0,
    remote: bool = False,
    right: bool = True,
    stages: Sequence[Stage] | None = None,
    **changes: Any,
) -> LoadResult:
    """A run of a suite whose every stage went `speed` times as fast as another's, give or take some `noise`."""
    chance = np.random.default_rng(seed)
    chosen = stages or SUITES[suite].stages(Wish(models=(MODEL,), rate=100.0 if suite == "overload" else None))
    results: list[StageResult] = []
    timeline: list[Second] = []
    for place, stage in enumerate(chosen):
        quick = speed * float(np.exp(noise * chance.standard_normal()))
        count = int(200 * quick * min(place + 1, 4)) if right else 0
        found = figures(count, 2.0 * (place + 1) / quick, requests=max(count, 3), failed=max(3 - count, 0))
        results.append(StageResult(stage=stage, figures=found, work=None if remote else work(count)))
        for _ in range(round(stage.duration_s)):
            wobble = float(np.exp(noise * chance.standard_normal()))
            server: dict[str, Any] = {"cpu_percent": 80.0, "memory_mb": 300.0, "batch_sizes": {1: 40, 3: 10}}
            second = Second(
                at_s=float(len(timeline)),
                right=int(count * wobble / 2),
                errors=0 if right else 1,
                p50_ms=found.p50_ms * wobble,
                p99_ms=found.p99_ms * wobble,
                **({} if remote else server),
            )
            timeline.append(second)
    values: dict[str, Any] = {
        "suite": suite,
        "url": "http://127.0.0.1:8000",
        "began": "2026-05-04T03:02:01+00:00",
        "stages": tuple(results),
        "judged": results[-1].figures,
        "everywhere": results[-1].figures,
        "models": {MODEL: results[-1].figures} if right else {},
        "work": {} if remote else {MODEL: work(100)},
        "timeline": tuple(timeline),
        "curve": tuple((percent, 1.0 + percent / 10) for percent in (0.0, 50.0, 90.0, 99.0)) if right else (),
        "errors": {} if right else {"ServerBusyError: <b>full</b> & closed": 3},
        "knee": results[min(2, len(results) - 1)].stage.name if suite == "ramp" and right else None,
        "events": ((4.5, "killed a backend process"), (9.0, f"reloaded {MODEL}")) if suite == "chaos" else (),
        "memory_rise_percent": None if remote else 0.5,
        "remarks": ("the clock was set back",),
        "machine": {"cpus": 2, "system": "Linux", "python": "3.11", "tritium": "0.1.0", "locust": "2.40"},
    }
    return LoadResult(**(values | changes))


def report(suite: str, *, repeats: int = 1, ok: bool = True, **changes: Any) -> LoadReport:
    runs = tuple(run(suite, **({"seed": number} | changes)) for number in range(repeats))
    verdicts = (Verdict("p99<25ms", ok, 8.0, "8 ms"), Verdict("wrong=0", True, 0.0, "0"))
    return LoadReport(runs=runs, verdicts=verdicts)
