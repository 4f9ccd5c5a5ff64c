"""When each user of a process sends its next request, by the plan of the run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ._plan import Plan, Stage

# A sleeper wakes up to so much later than it asked for. This is the clock's doing, not the server's, and is left out.
_WAKING_S = 0.002
# Users that warm the server up before the plan begins.
_WARMING = 16


class Pace:
    """The plan of a run, as one of its processes follows it.

    Args:
        plan: of the whole run.
        process: which of the processes this one is, from 0.
        processes: how many there are.
        sleep: what waits for so many seconds.
        clock: seconds that never go back.
        seed: decides when the requests of open-loop stages are due.

    Attributes:
        plan: the whole.
        under_way: requests that were sent and not answered yet; those who send them count.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        process: int = 0,
        processes: int = 1,
        sleep: Callable[[float], object],
        clock: Callable[[], float] = time.perf_counter,
        seed: int | None = None,
    ) -> None:
        self.plan = plan
        self.under_way = 0
        self._process, self._processes = process, processes
        self._sleep, self._clock = sleep, clock
        self._began_s: float | None = None
        self._begun = threading.Event()
        self._arrivals = plan.arrivals(share=1 / processes, seed=None if seed is None else f"{seed}/{process}")
        self._next_due_s = next(self._arrivals, float("inf"))

    def begin(self) -> None:
        """From now on the plan's time runs. What was sent before was to warm up."""
        if self._began_s is None:
            self._began_s = self._clock()
            self._begun.set()

    @property
    def elapsed_s(self) -> float:
        """The plan's time; negative before it has begun."""
        return -1.0 if self._began_s is None else self._clock() - self._began_s

    def users(self, stage: Stage) -> int:
        """How many of a stage's users are this process's."""
        return stage.users // self._processes + (self._process < stage.users % self._processes)

    def wait(self, user: int) -> tuple[Stage, float, float] | None:
        """Wait until a user's next request is to be sent.

        Args:
            user: which of this process's users it is, from 0.

        Returns:
            The stage, when the request was due in the plan's time, and how many seconds later than that it is now; None
            when all stages are over, or where the user is to look again.
        """
        elapsed_s = self.elapsed_s
        if elapsed_s < 0:
            if user < _WARMING:
                return self.plan.stages[0], elapsed_s, 0.0
            self._begun.wait()
            return None
        index = self.plan.index_at(elapsed_s)
        if index == len(self.plan.stages):
            self._sleep(1.0)  # until somebody ends the run
            return None
        stage = self.plan.stages[index]
        ends_s = self.plan.begin_s(index) + stage.duration_s
        if user >= self.users(stage):
            self._sleep(max(ends_s - elapsed_s, 0.0))
            return None
        if stage.rate is None:
            return stage, elapsed_s, 0.0
        due_s = self._next_due_s
        if due_s >= ends_s:
            self._sleep(max(ends_s - elapsed_s, 0.0))
            return None
        self._next_due_s = next(self._arrivals, float("inf"))
        if due_s > elapsed_s:
            self._sleep(due_s - elapsed_s)
            due_s += min(self.elapsed_s - due_s, _WAKING_S)
        return stage, due_s, max(self.elapsed_s - due_s, 0.0)

    def never_sent(self) -> list[float]:
        """When those requests of open-loop stages were due, until now, that nobody was free to send."""
        until_s = min(self.elapsed_s, self.plan.duration_s)
        found = []
        while self._next_due_s < until_s:
            found.append(self._next_due_s)
            self._next_due_s = next(self._arrivals, float("inf"))
        return found
