"""Which server is asked, and what is done when that fails. Pure: who asks and who waits is up to the client."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from typing import Generic, TypeVar

from ._deadline import Deadline
from ._errors import (
    CallError,
    ConnectFailedError,
    DeadlineExceededError,
    ModelNotReadyError,
    ProtocolError,
    ServerBusyError,
    ServerError,
)
from ._fork import renew_after_fork
from ._options import Retries

T = TypeVar("T")

# A server that says that it is busy is left alone after so many answers of that kind in a row; one that cannot be
# reached, after the first.
_BUSY_IN_A_ROW = 5
_SHORTEST_EJECTION_S = 0.5
_LONGEST_EJECTION_S = 30.0
# Retries that a client may make before it has made a call.
_FIRST_RETRIES = 10.0


class Replica(Generic[T]):
    """One of the servers behind a client, and how it has been doing.

    Attributes:
        transport: the way to it.
        failures: how often in a row it has failed.
        out_until_s: when it is asked again, as :func:`time.monotonic` counts; 0 while it is well.
    """

    __slots__ = ("_trouble", "failures", "out_until_s", "transport")

    def __init__(self, transport: T) -> None:
        self.transport = transport
        self.out_until_s = 0.0
        self.failures = 0
        self._trouble = 0.0

    def succeeded(self) -> None:
        """It answered."""
        self.failures, self._trouble, self.out_until_s = 0, 0.0, 0.0

    def failed(self, exc: CallError) -> None:
        """It did not, or said that it cannot now. It is left alone for longer each time."""
        if not _is_the_servers_fault(exc):
            self.succeeded()
            return
        now_s = time.monotonic()
        if self.out_until_s > now_s:
            return  # it is left alone already; this call was under way with others
        self.failures += 1
        # Who gave it little time may be as much to blame as the server.
        mild = isinstance(exc, ServerError | DeadlineExceededError)
        self._trouble += 1 / _BUSY_IN_A_ROW if mild else 1
        if self._trouble >= 1 - 1e-9:
            doubled = _SHORTEST_EJECTION_S * 2 ** min(self.failures - 1, 10)
            self.out_until_s = now_s + min(_LONGEST_EJECTION_S, doubled) * random.uniform(0.8, 1.2)  # noqa: S311


class Replicas(Generic[T]):
    """All servers behind a client: each is asked in turn, those that fail are passed over for a while.

    Attributes:
        all: each of them, in the order in which they were given.
    """

    def __init__(self, transports: Sequence[T], retries: Retries) -> None:
        self.all = [Replica(transport) for transport in transports]
        self.retries = retries
        self._single = self.all[0] if len(self.all) == 1 else None
        self._turn = 0
        self._tokens = _FIRST_RETRIES
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """A lock that another thread held stays held in a forked process, where that thread is not."""
        self._lock = threading.Lock()

    def choose(self, avoided: Sequence[Replica[T]] = ()) -> Replica[T]:
        """The next one in turn that is well and not among those avoided, if there is any."""
        with self._lock:
            self._turn = (self._turn + 1) % len(self.all)
            order = self.all[self._turn :] + self.all[: self._turn]
        now_s = time.monotonic()
        well = [replica for replica in order if replica.out_until_s <= now_s]
        fresh = [replica for replica in well if replica not in avoided]
        if fresh or well:
            return (fresh or well)[0]
        # None is well; the one whose time is up first may be well again.
        untried = [replica for replica in order if replica not in avoided]
        return min(untried or order, key=lambda replica: replica.out_until_s)

    def next(self) -> Replica[T]:
        """The one to ask first in a new call, which pays for a part of a retry."""
        if self._tokens < _FIRST_RETRIES:
            with self._lock:
                self._tokens = min(_FIRST_RETRIES, self._tokens + self.retries.budget)
        return self._single or self.choose()

    def spend(self) -> bool:
        """Take a retry from the budget; whether there was one."""
        with self._lock:
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


class Attempts(Generic[T]):
    """The tries of one call, from the first one that failed.

    Args:
        replicas: who may be asked.
        replica: who was asked.
        deadline: the time of all tries together.
        repeatable: whether the call may be made again at all, which may be elsewhere: what must stay with its server
            may not.
    """

    __slots__ = ("_deadline", "_repeatable", "_replicas", "_tried", "count", "replica", "waited_s")

    def __init__(
        self, replicas: Replicas[T], replica: Replica[T], deadline: Deadline, *, repeatable: bool = True
    ) -> None:
        self._replicas = replicas
        self._deadline = deadline
        self._repeatable = repeatable
        self._tried: list[Replica[T]] = []
        self.count = 1
        self.waited_s = 0.0
        self.replica = replica

    def pause_s(self, exc: CallError) -> float | None:
        """After a failure: how long to wait before `replica`, which may be another one now, is asked again.

        None where the failure is for good.
        """
        self.replica.failed(exc)
        retries = self._replicas.retries
        if self.count >= retries.attempts or not self._may_repeat(exc):
            return None
        self._tried.append(self.replica)
        replica = self._replicas.choose(self._tried)
        least_s = exc.retry_after_s if isinstance(exc, ServerError) else None
        if replica not in self._tried:
            pause_s = 0.0
        elif least_s is not None:
            pause_s = least_s
        else:
            longest_s = min(retries.max_backoff_s, retries.backoff_s * 2 ** min(self.count - 1, 30))
            pause_s = random.uniform(0, longest_s)  # noqa: S311
        # Turning to another one that is well makes nothing worse, so it costs nothing of the budget.
        free = replica not in self._tried and replica.out_until_s <= time.monotonic()
        if pause_s >= self._deadline.left_s() or not (free or self._replicas.spend()):
            return None
        self.count += 1
        self.replica = replica
        self.waited_s += pause_s
        return pause_s

    def _may_repeat(self, exc: CallError) -> bool:
        if not self._repeatable:
            return False
        if isinstance(exc, ServerError):
            # 429 asks for patience; without a time, nobody knows how much.
            turned_away = exc.status in ("503", "UNAVAILABLE") and isinstance(exc, ServerBusyError | ModelNotReadyError)
            return turned_away or (exc.status in ("429", "RESOURCE_EXHAUSTED") and exc.retry_after_s is not None)
        if isinstance(exc, ConnectFailedError | ProtocolError):
            return not exc.sent or self._replicas.retries.resend
        return False


def _is_the_servers_fault(exc: CallError) -> bool:
    return isinstance(exc, ConnectFailedError | DeadlineExceededError | ProtocolError | ServerBusyError)
