"""Figures of many requests. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._requests import Outcome, Requests

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
# Where a curve of the latency's distribution has its points, as shares of the requests that took longer.
_TAILS = np.concatenate([np.linspace(1.0, 0.1, 46)[:-1], 10 ** -np.linspace(1.0, 4.0, 31)])


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured of a number of requests, as the client saw them.

    Latencies are those of right answers, in milliseconds from the moment at which a request was due: where it was sent
    later, because the client or all its users were busy, that counts. They are 0 where there are none.

    Attributes:
        duration_s: the time in which they were due.
        requests: all of them.
        right: answered with the golden outputs, within the version's tolerance.
        wrong: answered with others.
        rejected: turned away by a server that had too much to do.
        timed_out: not answered in time.
        failed: what failed otherwise.
        rows: golden cases in the right answers.
        p50_ms: median latency.
        p90_ms: 90th percentile.
        p95_ms: 95th percentile.
        p99_ms: 99th percentile.
        p999_ms: 99.9th percentile.
        mean_ms: mean latency.
        max_ms: the longest.
        late_p99_ms: 99th percentile of how much later than due requests were sent: the load generator's own share.
    """

    duration_s: float
    requests: int = 0
    right: int = 0
    wrong: int = 0
    rejected: int = 0
    timed_out: int = 0
    failed: int = 0
    rows: int = 0
    p50_ms: float = 0.0
    p90_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    p999_ms: float = 0.0
    mean_ms: float = 0.0
    max_ms: float = 0.0
    late_p99_ms: float = 0.0

    @property
    def errors(self) -> int:
        """All that were not answered right."""
        return self.requests - self.right

    @property
    def requests_per_s(self) -> float:
        """Right answers a second: the goodput."""
        return self.right / self.duration_s if self.duration_s else 0.0

    @property
    def rows_per_s(self) -> float:
        """Golden cases answered right, a second."""
        return self.rows / self.duration_s if self.duration_s else 0.0

    def share(self, count: int) -> float:
        """What part of the requests so many are, from 0 to 1."""
        return count / self.requests if self.requests else 0.0


def figures(requests: Requests, duration_s: float) -> Figures:
    """The figures of requests that were due within `duration_s` seconds."""
    right = requests.where(requests.outcome == Outcome.RIGHT)
    latencies = right.latency_ms
    measured: dict[str, Any] = {}
    if len(latencies):
        values = np.percentile(latencies, PERCENTILES)
        names = ("p50_ms", "p90_ms", "p95_ms", "p99_ms", "p999_ms")
        measured = dict(zip(names, map(float, values), strict=True))
        measured |= {"mean_ms": float(latencies.mean()), "max_ms": float(latencies.max())}
    return Figures(
        duration_s=duration_s,
        requests=len(requests),
        right=len(right),
        wrong=requests.count(Outcome.WRONG),
        rejected=requests.count(Outcome.REJECTED),
        timed_out=requests.count(Outcome.TIMED_OUT),
        failed=requests.count(Outcome.FAILED),
        rows=int(right.rows.sum()),
        late_p99_ms=float(np.percentile(requests.late_ms, 99)) if len(requests) else 0.0,
        **measured,
    )


def latency_curve(requests: Requests) -> list[tuple[float, float]]:
    """The distribution of the latencies of right answers: percentiles from 0 to 99.99, and each in milliseconds."""
    latencies = requests.latency_ms[requests.outcome == Outcome.RIGHT]
    if not len(latencies):
        return []
    # A percentile that fewer than ten requests lie beyond says nothing.
    percents = [100 * (1 - tail) for tail in _TAILS if tail * len(latencies) >= 10 or tail > 0.1]
    return list(zip(percents, map(float, np.percentile(latencies, percents)), strict=True))


def knee(levels: Sequence[Figures], enough: float = 0.95) -> int | None:
    """The level from which on more load only brings more latency: the first with nearly the best throughput of all.

    Args:
        levels: figures by rising load.
        enough: what part of the best throughput is enough.

    Returns:
        Its place, or None if nothing was answered right at any level.
    """
    best = max((level.rows_per_s for level in levels), default=0.0)
    if not best:
        return None
    return next(index for index, level in enumerate(levels) if level.rows_per_s >= enough * best)
