"""Healing: what each model of a running Triton must have, what it lacks, and how it is brought back."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from tritium.client import TransportError, TritiumError

from ._backends import PYTHON_BASED
from ._pulse import STRIKES, STRIKES_WITHIN_S, Deaths
from ._server import TritonServer
from ._states import ModelReport, ModelState, States
from ._stubs import live_stubs, wanted_stubs

_UNLOAD_S = 2.0
_UNLOADED = "it was unloaded by somebody who has the secret"


class Healer:
    """Knows how each model was served last, sees what died of it, and loads it anew.

    Nothing here is locked: of what changes what Triton has loaded, the supervisor calls one at a time. :meth:`look` may
    be called beside it.

    Args:
        server: the server.
        states: what is said of its models.
        stopping: set as soon as nothing is to be brought back any more.
        say: takes a line for people, and its level.
    """

    def __init__(
        self, server: TritonServer, states: States, *, stopping: threading.Event, say: Callable[..., None]
    ) -> None:
        self._server = server
        self._states = states
        self._stopping = stopping
        self._say = say
        # The model that is being loaded.
        self.being_loaded: str | None = None
        self._owed: set[str] = set()
        # How many backend processes each model must have; none where it runs within Triton.
        self._stubs: dict[str, int] = {}
        # The config that each model was served with last, with the versions by number.
        self._good: dict[str, dict[str, Any]] = {}
        self._deaths = Deaths()

    def serving(self, model: str, remark: str = "") -> None:
        """A model was loaded: it is ready, and has the backend processes that its config asks for.

        Raises:
            TritiumError: Triton does not say what it is. It is asked again later.
        """
        try:
            config, versions = self._asked(model)
        except TritiumError as exc:
            # It is asked again at the next look.
            self._states.set(model, ModelState.DEGRADED, f"it was loaded, and Triton does not say what it is: {exc}")
            raise
        self._good[model] = config | {"version_policy": {"specific": {"versions": versions}}}
        # By the config, not by counting: a process may have died already, and those of an older version may be there
        # for some time yet.
        self._stubs[model] = self._wanted_processes(config, versions)
        self._owed.discard(model)
        self._states.set(model, ModelState.READY, remark)

    def load(self, model: str) -> None:
        """Load what the repository has of a model, and say that the steps are ready that came with it.

        Raises:
            TritiumError: as `TritonServer.load`; or Triton does not say what a step is.
        """
        repository = self._server.repository
        if model not in self._server.models:
            repository.version_folder(model)  # says what there is instead
        self._server.load(model)
        loaded, known = [model], self._states.own()
        for name in loaded:  # it grows by an ensemble's steps, which Triton loads with it
            loaded += [step for step in repository.steps(name) if step not in loaded]
        for step in loaded[1:]:
            # One that is being healed says so itself when it is there.
            if step not in known or known[step].state in (ModelState.QUARANTINED, ModelState.READY):
                self.serving(step)

    @contextmanager
    def loading(self, model: str) -> Iterator[None]:
        """Meanwhile its processes may come and go."""
        self.being_loaded = model
        try:
            yield
        finally:
            self.being_loaded = None

    def look(self) -> None:
        """Degrade what lacks backend processes or a step, at once; it waits for nobody who loads something."""
        for model, reason in self._missing().items():
            if model != self.being_loaded:
                self._states.degrade(model, reason)
        for model in self._states.own():
            if lacking := self._lacking(model):
                self._states.degrade(model, lacking)

    def heal_all(self) -> None:
        """Bring back what is not served as it should be.

        Raises:
            TritiumError: Triton says nothing of a model; the others have had their turn. It is tried again next time.
        """
        missing, there = self._missing(), self._index()
        troubles = []
        own = self._states.own()
        # Ensembles last: whether one can serve is a matter of its steps.
        for model in sorted(own, key=lambda model: "ensemble_scheduling" in self._good.get(model, {})):
            report = own[model]
            if self._stopping.is_set() or not self._server.is_running:
                return  # with Triton all its processes went
            try:
                # Of a model whose folder vanished, the index says nothing.
                self._bring_back(model, report, there.get(model, {"READY"}), missing.get(model))
            except TritiumError as exc:  # the others have their turn all the same
                troubles.append(exc)
        if troubles:
            raise troubles[0]

    def serves_as_before(self, model: str, why_not_now: str) -> bool:
        """Load what was served last, where what the repository has now does not load; whether that is possible.

        Raises:
            TritiumError: Triton does not answer, or not what the model is; that says nothing of the model.
        """
        good = self._good.get(model)
        if good is None:
            return False
        try:
            self._server.load(model, config=good)
        except TransportError:
            raise
        except TritiumError:
            return False
        remark = f"it is served as it was before, since what the repository has now does not load: {why_not_now}"
        self.serving(model, remark)
        self._say(f"{model}: {remark}", "WARNING")
        return True

    def quarantine(self, model: str, reason: str) -> None:
        """Leave a model out, until somebody reloads it.

        Raises:
            TritiumError: Triton does not answer, or does not unload it; it counts as quarantined all the same.
        """
        self._owed.discard(model)
        self._states.set(model, ModelState.QUARANTINED, reason)
        self._states.quarantines.labels(model).inc()
        self._say(f"{model} is quarantined: {reason}. `tritium reload {model}` gives it another chance", "WARNING")
        if self._server.is_running:
            self._server.unload(model)

    def versions(self, model: str) -> list[int]:
        """The versions that were served when it was loaded last."""
        versions: list[int] = self._good[model]["version_policy"]["specific"]["versions"]
        return versions

    def owe(self, models: Iterable[str]) -> None:
        """Triton is without these by our doing, or by its own: they are to be brought back."""
        self._owed.update(models)

    def forgive(self, model: str) -> None:
        """Count its deaths from none again."""
        self._deaths.forget(model)

    def _missing(self) -> dict[str, str]:
        """The models that are without some of their backend processes, and without how many."""
        if not any(self._stubs.values()):
            return {}  # without looking at every process of this machine
        alive = live_stubs(self._server.pid)
        return {
            model: f"{wanted - alive[model]} of its {wanted} backend processes died"
            for model, wanted in list(self._stubs.items())
            if alive[model] < wanted
        }

    def _lacking(self, model: str) -> str:
        """Why an ensemble cannot serve: a step's model is not ready. Empty for every other model."""
        steps = self._good.get(model, {}).get("ensemble_scheduling", {}).get("step", ())
        absent = self._states.not_ready().intersection(step["model_name"] for step in steps)
        return f"its step {min(absent)} is not ready" if absent else ""

    def _bring_back(self, model: str, report: ModelReport, states: set[str], died: str | None) -> None:
        """Do what one model needs, by what we say of it, what Triton says of its versions, and what died of it."""
        gone = "READY" not in states
        if report.state is ModelState.QUARANTINED:
            if report.reason == _UNLOADED and not gone:
                self.serving(model)
        elif lacking := self._lacking(model):
            self._states.degrade(model, lacking)
            if gone:  # Triton takes an ensemble away with its step, and does not bring it back with it
                self._owed.add(model)
        elif gone and ("LOADING" in states or model not in self._owed):
            # Somebody else does that, so it is left to come or to go.
            if states == {"UNAVAILABLE"}:
                self.quarantine(model, _UNLOADED)
            else:
                self._states.degrade(model, f"Triton calls it {', '.join(sorted(states))}")
        elif died and not gone and not self._lacks_processes(model):
            self.serving(model)  # it was loaded anew, as an ensemble's step or by somebody else, and asks for fewer
        elif gone or died:
            self._heal(model, died or report.reason)
        elif report.state is not ModelState.READY:
            self.serving(model)

    def _index(self) -> dict[str, set[str]]:
        """What Triton says of each model's versions; nothing if it cannot read the repository."""
        found: dict[str, set[str]] = defaultdict(set)
        with suppress(TritiumError), self._server.client() as client:
            for status in client.models():
                found[status.name].add(status.state)
        return dict(found)

    def _lacks_processes(self, model: str) -> bool:
        """Whether a model has fewer backend processes than Triton's config of it asks for, as far as one knows."""
        try:
            config, versions = self._asked(model)
        except TritiumError:
            return True
        return live_stubs(self._server.pid)[model] < self._wanted_processes(config, versions)

    def _heal(self, model: str, reason: str) -> None:
        # What is owed was counted when it died; now it is only tried again.
        if model not in self._owed and self._deaths.too_many(model):
            self.quarantine(model, f"{reason}, the {STRIKES}th time in {STRIKES_WITHIN_S:g} s")
            return
        self._states.set(model, ModelState.DEGRADED, reason)
        self._say(f"{model}: {reason}; loading it anew", "WARNING")
        with self.loading(model):
            try:
                # Loading alone would change nothing: Triton believes that it is there.
                self._unload(model)
                self._server.load(model)
            except TransportError:
                raise  # it may be there later; no answer says nothing of the model
            except TritiumError as exc:
                if self._has_ended():
                    return  # which need not be the model's fault
                if not self.serves_as_before(model, str(exc)):
                    if not self._has_ended():
                        self.quarantine(model, f"{reason}, and it does not load: {exc}")
                    return
            else:
                self.serving(model)
        self._states.heals.labels(model).inc()
        self._say(f"{model} is serving again")

    def _unload(self, model: str) -> None:
        """Take a model away; one with a request in the process that died never ends, and is left where it is."""
        self._owed.add(model)
        self._server.unload(model)
        deadline = time.monotonic() + _UNLOAD_S
        with self._server.client(protocol="grpc") as client:
            while any(status.name == model and status.state in ("READY", "UNLOADING") for status in client.models()):
                if time.monotonic() > deadline:
                    return
                time.sleep(0.05)

    def _asked(self, model: str) -> tuple[dict[str, Any], list[int]]:
        """What Triton says of a model: its config, and the versions that it serves."""
        with self._server.client() as client:
            handle = client.model(model)
            return handle.config, [int(version) for version in handle.metadata.versions]

    def _wanted_processes(self, config: Mapping[str, Any], versions: Sequence[int]) -> int:
        return 0 if self._runs_within(config["backend"]) else wanted_stubs(config, len(versions))

    def _runs_within(self, backend: str) -> bool:
        """Whether models of a backend run within Triton's own process."""
        if backend == "onnxruntime":
            return self._server.onnx_backend == "native"
        return backend not in ("python", *PYTHON_BASED)

    def _has_ended(self) -> bool:
        """Whether Triton has ended, or does so just now."""
        return self._server.wait(1) is not None
