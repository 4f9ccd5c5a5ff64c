"""Locust users that call Triton through the SDK. Importing this module imports Locust, which patches the process.

Write a locustfile with them::

    from tritium.loadtest.users import TritonHttpUser, task

    class Digits(TritonHttpUser):
        models = ("digits_cnn",)
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import gevent
from locust import User, constant, task
from locust.exception import StopUser
from locust.user.task import LOCUST_STATE_STOPPING

from tritium.client import Client, DeadlineExceededError, InputError, Limits, Retries, ServerBusyError
from tritium.repository import Repository

from ._pace import Pace
from ._plan import Stage
from ._requests import Outcome, Recorder
from ._traffic import Case, GoldenTraffic, WrongAnswerError

__all__ = ["TritonGrpcUser", "TritonHttpUser", "WrongAnswerError", "task"]

# The first that fits an error.
_OUTCOMES: tuple[tuple[type[Exception], Outcome], ...] = (
    (WrongAnswerError, Outcome.WRONG),
    (ServerBusyError, Outcome.REJECTED),
    (DeadlineExceededError, Outcome.TIMED_OUT),
    (Exception, Outcome.FAILED),
)
# How long a user of a closed loop waits who was turned away: nobody would ask again at once, a thousand times a second.
_TURNED_AWAY_S = 0.05
_NEVER_AGAIN = Retries(attempts=1)


class TritonUser(User):
    """Sends golden cases and checks the answers, one request at a time.

    All users of a class in a process share a client, so that a thousand of them ask for the metadata once; over HTTP
    each has its own connection while it waits for an answer.

    Attributes:
        models: whose golden cases to send; every model of the repository if empty.
        weights: how often each model comes beside the others; without any they come in turn.
        repository: the model repository whose versions the server runs; `--repository` of the suites sets it.
        timeout_s: seconds that a request may take.
        retries: when a request is sent again; never by default, because it is the server that is tested.
        rows: golden cases in a request; 0 for as many as the model takes.
        schemes: the URL schemes that the user takes.
    """

    abstract = True
    wait_time = constant(0)
    models: ClassVar[Sequence[str]] = ()
    weights: ClassVar[Mapping[str, float]] = {}
    repository: ClassVar[str] = "model_repository"
    timeout_s: ClassVar[float] = 30.0
    retries: ClassVar[Retries] = _NEVER_AGAIN
    rows: ClassVar[int] = 1
    schemes: ClassVar[Sequence[str]] = ()
    # The suites set these: when to send, and where to take note.
    pace: ClassVar[Pace | None] = None
    recorder: ClassVar[Recorder | None] = None
    # Decides the order of the cases; another one in each process and each run.
    seed: ClassVar[str] = ""
    # Why a user could not begin; empty if all could.
    hindered: ClassVar[str] = ""
    _client: ClassVar[Client]
    _traffic: ClassVar[GoldenTraffic]
    _numbers: ClassVar[Iterator[int]] = itertools.count()
    _once: ClassVar[threading.Lock] = threading.Lock()
    _unsent: ClassVar[dict[tuple[tuple[str, ...], int], Iterator[Case]]] = {}

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        if self.host is None or self.host.partition("://")[0] not in self.schemes:
            raise InputError(
                f"{type(self).__name__} needs --host with {' or '.join(self.schemes)}, got {self.host!r} instead"
            )
        self._kind = self.host.partition("://")[0]
        self._number = next(self._numbers)
        self._streams: dict[tuple[tuple[str, ...], int], Iterator[Case]] = {}

    def on_start(self) -> None:
        """Read the golden cases of what the server serves; once for all users of a class."""
        cls = type(self)
        try:
            with self._once:
                if "_traffic" not in vars(cls):
                    limits = Limits(max_connections=10_000)
                    cls._client = Client(self.host or "", timeout_s=self.timeout_s, retries=self.retries, limits=limits)
                    cls._traffic = GoldenTraffic(Repository(cls.repository), cls._client, cls.models, cls.weights)
        except Exception as exc:
            cls.hindered = f"{type(exc).__name__}: {exc}"
            self._report("metadata", "server", exc, 0.0)
            raise StopUser from exc

    @task
    def golden_cases(self) -> None:
        """Send golden cases for as long as the user lives: Locust's own loop takes longer than a small model."""
        pace = self.pace
        while self._state != LOCUST_STATE_STOPPING:
            if pace is None:
                self.call(next(self._cases((), self.rows)))
            elif (turn := pace.wait(self._number)) is not None:
                stage, due_s, late_s = turn
                pace.under_way += 1
                try:
                    outcome = self.call(next(self._cases(stage.models, stage.rows)), stage, due_s, late_s)
                finally:
                    pace.under_way -= 1
                if outcome is Outcome.REJECTED and stage.rate is None:
                    gevent.sleep(_TURNED_AWAY_S)

    def call(self, case: Case, stage: Stage | None = None, due_s: float = 0.0, late_s: float = 0.0) -> Outcome:
        """Send one request, check its answer, and tell Locust: the check is not part of the latency.

        Args:
            case: what to send.
            stage: of the plan; None if there is none, and then nothing is recorded.
            due_s: when it was due in the plan's time; negative before its begin.
            late_s: how much later than that it is.
        """
        error: Exception | None = None
        answer: Any = None
        started = time.perf_counter()
        try:
            answer = case.send()
        except Exception as exc:
            error = exc
        latency_ms = (time.perf_counter() - started + late_s) * 1000
        if error is None:
            try:
                case.check(answer)
            except Exception as exc:
                error = exc
        outcome, said = Outcome.RIGHT, ""
        if error is not None:
            outcome = next(outcome for kind, outcome in _OUTCOMES if isinstance(error, kind))
            said = f"{type(error).__name__}: {error}"
        if self.recorder is not None and stage is not None and due_s >= 0:
            self.recorder.add(
                case.name,
                outcome,
                due_s=due_s,
                latency_ms=latency_ms,
                late_ms=late_s * 1000,
                rows=case.rows,
                error=said,
            )
        self._report(self._kind, case.name, error, latency_ms)
        return outcome

    @classmethod
    def next_model(cls, stage: Stage) -> str:
        """The model of a request of a stage that nobody could send: what would have been next; empty if unknown."""
        traffic: GoldenTraffic | None = vars(cls).get("_traffic")
        if traffic is None:
            return ""
        key = stage.models, stage.rows
        if key not in cls._unsent:
            cls._unsent[key] = traffic.requests(f"{cls.seed}/unsent", models=stage.models, rows=stage.rows)
        return next(cls._unsent[key]).name

    def _report(self, kind: str, name: str, error: Exception | None, latency_ms: float) -> None:
        """Tell Locust of a request; of one that was never sent, too."""
        self.environment.events.request.fire(
            request_type=kind,
            name=name,
            response_time=latency_ms,
            response_length=0,
            exception=error,
            context={},
        )

    def _cases(self, models: tuple[str, ...], rows: int) -> Iterator[Case]:
        stream = self._streams.get((models, rows))
        if stream is None:
            seed = f"{self.seed}/{self._number}"
            stream = type(self)._traffic.requests(seed, models=models, rows=rows)
            self._streams[models, rows] = stream
        return stream


class TritonHttpUser(TritonUser):
    """Sends golden cases over HTTP."""

    abstract = True
    schemes = ("http", "https")


class TritonGrpcUser(TritonUser):
    """Sends golden cases over gRPC."""

    abstract = True
    schemes = ("grpc", "grpcs")

    def __init__(self, environment: Any) -> None:
        import grpc.experimental.gevent

        # Without it one waiting call would hold every user of the process.
        grpc.experimental.gevent.init_gevent()
        super().__init__(environment)
