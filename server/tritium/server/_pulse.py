"""Whether a Triton lives, how soon one that does not is started again, and which model dies too often."""

from __future__ import annotations

import time
from collections import defaultdict, deque

# A Triton that says nothing for so long hangs, if it was asked so often: a busy machine makes it slow, but it still
# answers now and then, and a machine that slept asks it once.
_HANG_S = 15.0
_HANG_LOOKS = 3
# Before that, it is not what one would send a request to.
_SILENT_S = 2.0
_BACKOFF_S = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
# A Triton that ran for so long starts again at once if it dies.
_STEADY_S = 60.0
# So many deaths of a model within so many seconds are not chance.
STRIKES = 4
STRIKES_WITHIN_S = 120.0


class Pulse:
    """Whether one Triton answers, look by look. Before its first answer it starts, which has a time limit of its own.

    Args:
        pid: its process id.
        started: whether it has answered already.

    Attributes:
        pid: its process id.
        silent_s: for how long it has not answered by the last look; 0 if it did.
    """

    def __init__(self, pid: int, *, started: bool = False) -> None:
        self.pid = pid
        self.silent_s = 0.0
        self._answered = started
        self._silent_looks = 0
        self._silent_since_s = 0.0

    def beat(self, answered: bool, *, asked_s: float, now_s: float) -> None:
        """It was asked, and has answered or not by now."""
        if answered:
            self._answered, self._silent_looks, self.silent_s = True, 0, 0.0
        elif self._answered:
            if not self._silent_looks:
                self._silent_since_s = asked_s
            self._silent_looks += 1
            self.silent_s = now_s - self._silent_since_s

    @property
    def answers(self) -> bool:
        """Whether it answered when it was asked last."""
        return self._answered and not self._silent_looks

    @property
    def is_silent(self) -> bool:
        """Whether it has been silent for so long that nobody should be sent there."""
        return self.silent_s >= _SILENT_S

    @property
    def hangs(self) -> bool:
        """Whether it has been silent for so long that it will not answer any more."""
        return self._silent_looks >= _HANG_LOOKS and self.silent_s > _HANG_S


class Backoff:
    """The pauses before a Triton is started again: longer with each attempt, until a start succeeded and lasted."""

    def __init__(self) -> None:
        self._attempts = 0
        self._started_s: float | None = None

    def pause_s(self) -> float:
        """Seconds to wait before the attempt that comes now."""
        if self._started_s is not None and time.monotonic() - self._started_s > _STEADY_S:
            self._attempts = 0
        self._started_s = None
        self._attempts += 1
        return _BACKOFF_S[min(self._attempts, len(_BACKOFF_S)) - 1]

    def started(self) -> None:
        """Triton has started."""
        self._started_s = time.monotonic()


class Deaths:
    """When each model's backend processes died last."""

    def __init__(self) -> None:
        self._times_s: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=STRIKES))

    def too_many(self, model: str) -> bool:
        """A model's processes have died just now: whether that is once too often."""
        times_s = self._times_s[model]
        times_s.append(time.monotonic())
        return len(times_s) == STRIKES and times_s[-1] - times_s[0] < STRIKES_WITHIN_S

    def forget(self, model: str) -> None:
        """A model gets another chance."""
        self._times_s[model].clear()
