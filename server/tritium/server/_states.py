"""What a supervisor knows of its models: the state of each, and counters for Prometheus."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from tritium.client import MissingExtraError

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
except ModuleNotFoundError as exc:
    raise MissingExtraError("prometheus_client", "server") from exc


class ModelState(StrEnum):
    """What a supervisor says of a model.

    A model is loading until it answers, and then ready; degraded while it is being healed; quarantined when it died too
    often or does not load, until somebody reloads it.
    """

    LOADING = "loading"
    READY = "ready"
    DEGRADED = "degraded"
    QUARANTINED = "quarantined"


@dataclass(frozen=True)
class ModelReport:
    """A model's state, and why it is not ready."""

    state: ModelState
    reason: str = ""


class States:
    """The states of all models, kept and read by any thread, and the supervisor's metrics."""

    def __init__(self, models: Iterable[str]) -> None:
        self._lock = threading.Lock()
        self._registry = CollectorRegistry()
        self._gauge = Gauge(
            "tritium_model_state", "1 for the state that a model is in", ("model", "state"), registry=self._registry
        )
        self.restarts = Counter(
            "tritium_triton_restarts",
            "How often Triton was started again after it died or hung",
            registry=self._registry,
        )
        self.heals = self._counter("tritium_model_heals", "How often a model whose backend process died was healed")
        self.quarantines = self._counter("tritium_model_quarantines", "How often a model was put into quarantine")
        self.reloads = Counter(
            "tritium_model_reloads", "Reloads that were asked for", ("model", "outcome"), registry=self._registry
        )
        self._reports: dict[str, ModelReport] = {}
        # Why none is ready, whatever its own state.
        self._silence = ""
        self._stopping = False
        for model in models:
            self.set(model, ModelState.LOADING)

    def set(self, model: str, state: ModelState, reason: str = "") -> None:
        """Put a model into a state."""
        with self._lock:
            self._reports[model] = ModelReport(state, reason)

    def degrade(self, model: str, reason: str) -> None:
        """Say that a model is ready no more, if it was."""
        with self._lock:
            report = self._reports.get(model)  # none, of a model that is only just being loaded
            if report and report.state is ModelState.READY:
                self._reports[model] = ModelReport(ModelState.DEGRADED, reason)

    def silence(self, reason: str) -> None:
        """Say of all that would be ready that they are degraded, until there is no reason any more."""
        with self._lock:
            self._silence = reason

    def stop(self) -> None:
        """From now on none is ready."""
        with self._lock:
            self._stopping = True

    def own(self) -> dict[str, ModelReport]:
        """Every model's own report, whatever holds for all."""
        with self._lock:
            return dict(self._reports)

    def not_ready(self) -> frozenset[str]:
        """The models that are not ready by their own report."""
        return frozenset(model for model, report in self.own().items() if report.state is not ModelState.READY)

    def all(self) -> dict[str, ModelReport]:
        """Every model's report, as others shall know it."""
        with self._lock:
            why_none = "the server is stopping" if self._stopping else self._silence
            held_back = ModelReport(ModelState.DEGRADED, why_none)
            return {
                model: held_back if why_none and report.state is ModelState.READY else report
                for model, report in self._reports.items()
            }

    def metrics(self) -> bytes:
        """All of it, as Prometheus reads it."""
        for model, report in self.all().items():
            for known in ModelState:
                self._gauge.labels(model, known.value).set(known is report.state)
        return generate_latest(self._registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, ("model",), registry=self._registry)
