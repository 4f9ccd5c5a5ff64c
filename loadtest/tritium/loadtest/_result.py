"""What a load test measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class LoadResult:
    """The requests of one run, as the client saw them.

    Attributes:
        suite: the suite's name.
        url: the server.
        users: how many requests were under way at once.
        duration_s: from the first request's start to the last one's end.
        requests: answered or failed.
        failures: those that failed, wrong answers among them.
        wrong: those that were answered, but not with the golden outputs.
        p50_ms: median latency of those that were right.
        p99_ms: 99th percentile.
        errors: how often each error came, by its first line.
    """

    suite: str
    url: str
    users: int
    duration_s: float
    requests: int
    failures: int
    wrong: int
    p50_ms: float
    p99_ms: float
    errors: Mapping[str, int] = field(default_factory=dict)

    @property
    def requests_per_s(self) -> float:
        """Right answers a second."""
        return (self.requests - self.failures) / self.duration_s if self.duration_s else 0.0

    @property
    def ok(self) -> bool:
        """Whether there were answers, and every one was right."""
        return self.requests > 0 and not self.failures

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON types."""
        return asdict(self) | {"requests_per_s": self.requests_per_s, "ok": self.ok}

    @classmethod
    def load(cls, path: Path) -> LoadResult:
        """Read what :meth:`save` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def percentile_ms(latencies_ms: Any, percent: float) -> float:
    """A percentile of latencies; 0 if there are none."""
    return float(np.percentile(latencies_ms, percent)) if len(latencies_ms) else 0.0
