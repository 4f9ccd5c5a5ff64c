"""Locust users that call Triton through the SDK. Importing this module imports Locust, which patches the process.

Write a locustfile with them::

    from tritium.loadtest.users import TritonHttpUser, task

    class Digits(TritonHttpUser):
        models = ("digits_cnn",)
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from locust import User, constant, task
from locust.exception import StopUser

from tritium.client import Client, InputError, Model
from tritium.repository import (
    GoldenCases,
    Manifest,
    Repository,
    Tolerance,
    compare,
    golden_batches,
    has_manifest,
    load_golden,
    named_outputs,
)

__all__ = ["TritonGrpcUser", "TritonHttpUser", "WrongAnswerError", "task"]


class WrongAnswerError(Exception):
    """A server answered, but not with the golden outputs."""


class GoldenTraffic:
    """The golden cases of a repository's models, one row a request, in an endless order that a seed decides.

    Args:
        repository: the model repository whose versions the server runs.
        client: the server, which is asked for the versions that it serves.
        models: whose cases to send; all that have golden cases by default.
    """

    def __init__(self, repository: Repository, client: Client, models: Sequence[str] = ()) -> None:
        self._cases: dict[str, list[GoldenCases]] = {}
        self._tolerances: dict[str, Tolerance] = {}
        for name in models or [name for name in repository.models() if has_manifest(repository, name)]:
            model = client.model(name)
            # The version that is served, which need not be the newest in the repository.
            folder = repository.version_folder(name, model.metadata.versions[-1])
            config = repository.config(name)
            self._cases[name] = list(golden_batches(load_golden(folder, config), config, rows=1))
            self._tolerances[name] = Manifest.load(folder).tolerance_on(model.config)

    def requests(self, seed: int) -> Iterator[tuple[str, GoldenCases]]:
        """Models and cases, the models in turn and the cases of each from a place that the seed chooses."""
        start = random.Random(seed)  # noqa: S311 — a place to start, no secret
        cases = {model: itertools.cycle(_rotated(cases, start)) for model, cases in self._cases.items()}
        for model in itertools.cycle(cases):
            yield model, next(cases[model])

    def check(self, model: str, case: GoldenCases, outputs: Mapping[str, Any]) -> None:
        """Compare an answer with the golden outputs.

        Raises:
            WrongAnswerError: they differ by more than the version's tolerance.
        """
        wrong = [
            difference for difference in compare(case.outputs, outputs, self._tolerances[model]) if not difference.ok
        ]
        if wrong:
            raise WrongAnswerError("; ".join(map(str, wrong)))


class TritonUser(User):
    """Sends golden cases and checks the answers; one request at a time, without pause.

    Attributes:
        models: whose golden cases to send; every model of the repository if empty.
        repository: the model repository whose versions the server runs; `--repository` of the suites sets it.
        timeout_s: seconds that a request may take.
        schemes: the URL schemes that the user takes.
    """

    abstract = True
    wait_time = constant(0)
    models: ClassVar[Sequence[str]] = ()
    repository: ClassVar[str] = "model_repository"
    timeout_s: ClassVar[float] = 30.0
    schemes: ClassVar[Sequence[str]] = ()
    _traffic: ClassVar[GoldenTraffic]
    _seeds: ClassVar[Iterator[int]] = itertools.count()

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        if self.host is None or self.host.partition("://")[0] not in self.schemes:
            raise InputError(
                f"{type(self).__name__} needs --host with {' or '.join(self.schemes)}, got {self.host!r} instead"
            )
        self.client = Client(self.host, timeout_s=self.timeout_s)
        self._models: dict[str, Model] = {}

    def on_start(self) -> None:
        """Read the golden cases of what the server serves; once for all users of a class."""
        cls = type(self)
        try:
            if "_traffic" not in vars(cls):
                cls._traffic = GoldenTraffic(Repository(cls.repository), self.client, cls.models)
        except Exception as exc:
            self._report("metadata", "server", exc)
            raise StopUser from exc
        self.traffic: GoldenTraffic = vars(cls)["_traffic"]
        self._requests = self.traffic.requests(next(self._seeds))

    def on_stop(self) -> None:
        """Close the connections."""
        self.client.close()

    @task
    def golden_case(self) -> None:
        """Send the next golden case and check its answer."""
        self.call(*next(self._requests))

    def call(self, model: str, case: GoldenCases) -> None:
        """Send one case, check its answer, and tell Locust: the answer's check is not part of the latency."""
        handle = self._model(model)
        started, error = time.perf_counter(), None
        outputs: Mapping[str, Any] = {}
        try:
            answer = handle(dict(case.inputs))
        except Exception as exc:
            error = exc
        elapsed_ms = (time.perf_counter() - started) * 1000
        if error is None:
            outputs = named_outputs(answer, list(case.outputs))
            try:
                self.traffic.check(model, case, outputs)
            except WrongAnswerError as exc:
                error = exc
        length_bytes = sum(getattr(array, "nbytes", 0) for array in outputs.values())
        self._report(self.client.url.partition("://")[0], model, error, elapsed_ms, length_bytes)

    def _report(
        self, kind: str, name: str, error: Exception | None, elapsed_ms: float = 0.0, length_bytes: int = 0
    ) -> None:
        """Tell Locust of a request; of one that was never sent, too."""
        self.environment.events.request.fire(
            request_type=kind,
            name=name,
            response_time=elapsed_ms,
            response_length=length_bytes,
            exception=error,
            context={},
        )

    def _model(self, name: str) -> Model:
        """The handle, which asked for its metadata before it was timed."""
        if name not in self._models:
            handle = self.client.model(name)
            try:
                _ = handle.metadata
            except Exception as exc:
                self._report("metadata", name, exc)
                raise StopUser from exc
            self._models[name] = handle
        return self._models[name]


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


def _rotated(cases: list[GoldenCases], start: random.Random) -> list[GoldenCases]:
    place = start.randrange(len(cases))
    return cases[place:] + cases[:place]
