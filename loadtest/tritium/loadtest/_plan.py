"""What a run does when: stages of so many users, or of so many requests a second. Pure."""

from __future__ import annotations

import bisect
import itertools
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

# What a stage's begin is left out of its figures: connections are made, and batches of the last stage's size end.
_SETTLING_S = 2.0
_SETTLING_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stretch of a run with one load.

    Attributes:
        name: what it is called in the report.
        duration_s: how long it takes.
        users: closed loop, without a `rate`: requests under way at once. Open loop: how many there may be at most.
        rate: open loop: requests a second, which come when they come (Poisson), whatever became of those before.
        models: what is sent to; every model of the run if empty.
        rows: golden cases in a request; 0 for as many as the model takes.
        judged: whether the objectives are about it. Wrong answers count in every stage.
    """

    name: str
    duration_s: float
    users: int
    rate: float | None = None
    models: tuple[str, ...] = ()
    rows: int = 1
    judged: bool = True

    @property
    def settling_s(self) -> float:
        """Seconds at its begin that are in no figure."""
        return min(_SETTLING_S, self.duration_s * _SETTLING_SHARE)

    @property
    def load(self) -> str:
        """How much it is, in words."""
        if self.rate is not None:
            return f"{self.rate:.4g}/s"
        return f"{self.users} users" if self.users > 1 else "1 user"


class Plan:
    """Stages one after the other.

    Attributes:
        stages: in their order.
        ends_s: when each is over.
        duration_s: of all.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = tuple(stages)
        self.ends_s = list(itertools.accumulate(stage.duration_s for stage in self.stages))
        self.duration_s = self.ends_s[-1]

    def index_at(self, elapsed_s: float) -> int:
        """Which stage it is; as many as there are when all are over."""
        return bisect.bisect_right(self.ends_s, elapsed_s)

    def begin_s(self, index: int) -> float:
        """When a stage begins."""
        return self.ends_s[index] - self.stages[index].duration_s

    def until(self, elapsed_s: float) -> Plan:
        """What of it lies before a moment, which is after its begin."""
        elapsed_s = min(elapsed_s, self.duration_s)
        last = bisect.bisect_left(self.ends_s, elapsed_s)
        left_s = elapsed_s - self.begin_s(last)
        return Plan([*self.stages[:last], replace(self.stages[last], duration_s=left_s)])

    def arrivals(self, *, share: float = 1.0, seed: int | str | None = None) -> Iterator[float]:
        """The times, in seconds from the begin, at which the requests of the open-loop stages are due: Poisson.

        Args:
            share: of every rate; several processes with their shares make the whole, because what comes to several
                at random comes to all of them at random.
            seed: decides the times.
        """
        chance = random.Random(seed)  # noqa: S311 — traffic, no secret
        for index, stage in enumerate(self.stages):
            if stage.rate is None:
                continue
            # The process has no memory, so it may begin anew with each stage.
            due_s = self.begin_s(index)
            while (due_s := due_s + chance.expovariate(stage.rate * share)) < self.ends_s[index]:
                yield due_s

    def to_json(self) -> str:
        """What :meth:`from_json` reads."""
        return json.dumps([asdict(stage) for stage in self.stages])

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """A plan that another process made."""
        return cls([Stage(**{**stage, "models": tuple(stage["models"])}) for stage in json.loads(text)])
