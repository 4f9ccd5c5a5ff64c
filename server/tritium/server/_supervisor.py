"""A supervisor: it keeps a Triton honest for as long as a `with` block lasts."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

from tritium.client import InputError, TransportError, TritiumError

from ._backends import PYTHON_BASED
from ._errors import PortInUseError, StartError
from ._health import HealthServer
from ._loop import keep_doing
from ._pulse import STRIKES, STRIKES_WITHIN_S, Backoff, Deaths, Pulse
from ._runtime import Progress, silent
from ._server import TritonServer
from ._states import ModelReport, ModelState, States
from ._stubs import live_stubs, wanted_stubs
from ._watch import RepositoryWatch

_LOOK_S = 0.5
_ANSWER_S = 2.0
_UNLOAD_S = 2.0
_UNLOADED = "it was unloaded by somebody who has the secret"


class Supervisor:
    """Keeps a `TritonServer` serving: heals models, restarts Triton, and says truly what is ready.

    >>> with Supervisor(TritonServer("model_repository")) as supervisor:
    ...     print(supervisor.url + "/ready")

    A backend process that dies is noticed within a second, and its model is loaded anew. A Triton that dies or hangs is
    started again on the same ports, with a growing pause if it dies soon. A model that dies four times in two minutes,
    that does not load when Triton starts again, not even as it was before, or that somebody unloads is quarantined
    until it is reloaded; all others go on.

    Args:
        server: the server, not yet started.
        health_port: the port of readiness and metrics, on the server's interface; 0 takes any free one.
        watch_s: seconds between two looks at the repository; what changed between two of them and holds still until
            the next is reloaded by itself. A repository in S3 is asked at every tenth look. None leaves it to
            :meth:`reload`.
        progress: called with a line for people whenever something happens.

    Attributes:
        exit_code: Triton's own, when it has been stopped: 0 if what it had accepted was answered. Also 0 where none
            was running then; None before.

    Raises:
        InputError: a parameter has no such value.
    """

    def __init__(
        self,
        server: TritonServer,
        *,
        health_port: int = 0,
        watch_s: float | None = None,
        progress: Progress = silent,
    ) -> None:
        if not 0 <= health_port < 65536:
            raise InputError(f"The 'health_port' parameter must be 0 to 65535, got {health_port} instead")
        if watch_s is not None and not watch_s > 0:
            raise InputError(f"The 'watch_s' parameter must be more than 0 seconds, or None, got {watch_s} instead")
        self.server = server
        self._states = States(server.models)
        self._asked_port = health_port
        self._show = progress
        self._watch_s = watch_s
        # Whatever changes what Triton has loaded: one at a time.
        self._changing = threading.RLock()
        self._stopping = threading.Event()
        # Ends the pause before a restart: somebody stops it, or waits for it.
        self._hurry = threading.Event()
        # The model that is being loaded: its processes may come and go.
        self._loading: str | None = None
        # Models that Triton is without by our doing, or by its own: they are brought back.
        self._owed: set[str] = set()
        # How many backend processes each model must have; none where it runs within Triton.
        self._stubs: dict[str, int] = {}
        # The config that each model was served with last, with the versions by number.
        self._good: dict[str, dict[str, Any]] = {}
        self._deaths = Deaths()
        self._pulse: Pulse | None = None
        self._hung: int | None = None
        self._backoff = Backoff()
        self._restarting = False
        self._watch = RepositoryWatch(server, take_over=self._take_over, refuse=self._refuse, say=self._progress)
        # Two, since mending takes its time, in which a death must be seen and a Triton that hangs be ended.
        self._mending = self._loop("triton-supervisor", self._mend, _LOOK_S, "The supervisor")
        self._looking = self._loop("triton-pulse", self._look, _LOOK_S, "Looking after Triton")
        self._health: HealthServer | None = None
        self.exit_code: int | None = None

    def __enter__(self) -> Supervisor:
        """Start Triton and watch over it. Raises what `TritonServer.start` does, and PortInUseError."""
        try:
            health = HealthServer(
                (self.server.address, self._asked_port), self._states, secret=self.server.secret, reload=self.reload
            )
        except OSError as exc:
            raise PortInUseError("health", self._asked_port) from exc
        self._health = health
        # It answers from now on, so that whoever waits for readiness sees the models loading.
        threading.Thread(target=health.serve_forever, name="triton-health", daemon=True).start()
        try:
            self._watch.start()
            self.server.start(supervisor_url=self.url, watched=self._watch_s is not None)
            for model in self.server.models:
                self._serving(model)
            self._pulse = Pulse(self.server.pid, started=True)
            self._backoff.started()
            self._mending.start()
            self._looking.start()
            if self._watch_s is not None:
                # A thread of its own, so that what takes long there keeps no model from being healed.
                self._loop("triton-watch", self._watch.look, self._watch_s, "Watching the repository").start()
        except BaseException:  # a signal may come at any moment
            self._stopping.set()
            self.server.stop()
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching, then stop Triton in order; from the first moment on nothing is ready."""
        self._states.stop()
        self._stopping.set()
        self._hurry.set()
        self._mending.join(_LOOK_S)
        nothing_to_answer = self._is_down()
        while self._restarting and self._mending.is_alive():
            # What only starts has nothing to answer.
            self.server.kill()
            self._mending.join(_LOOK_S)
            nothing_to_answer = True
        code = self.server.stop()
        self.exit_code = 0 if nothing_to_answer else code or 0
        self._mending.join()
        self._looking.join()
        self._close()

    @property
    def url(self) -> str:
        """Where readiness and metrics are, as in ``http://127.0.0.1:8003``."""
        if self._health is None:
            raise StartError("This supervisor has not been started; use it in a `with` block")
        return f"http://127.0.0.1:{self._health.server_address[1]}"

    def states(self) -> dict[str, ModelReport]:
        """What state each model is in."""
        return self._states.all()

    def reload(self, model: str) -> None:
        """Load what the repository has of a model now. If that fails, what was served goes on.

        A model that is quarantined gets another chance; one that is new in the repository is served from now on. From
        S3 it is pulled first. If Triton is to be started again after a pause, that is over.

        Raises:
            InputError: there is no such model.
            StoreError: S3 does not answer or refuses, or the model is not whole there.
            RepositoryError: the copy of what is in S3 cannot be written.
            ManifestError: a file of a version is not the one that was published.
            SignatureError: there is a public key, and a version is not signed by it.
            ServerError: the model does not load; the message has Triton's reason.
        """
        try:
            # It may take long, and meanwhile models are healed.
            self.server.source.pull(model)
        except TritiumError as exc:
            self._refuse(model, exc)
            raise
        self._hurry.set()
        with self._changing:
            self._hurry.clear()
            self._reload(model)

    def _reload(self, model: str) -> None:
        with self._changing, self._load_of(model):
            try:
                with self._watch.loading(model):
                    self._load(model)
            except TritiumError as exc:
                self._refuse(model, exc)
                raise
            self._deaths.forget(model)
            self._serving(model)
            self._states.reloads.labels(model, "done").inc()
            versions = self._good[model]["version_policy"]["specific"]["versions"]
            self._progress(f"{model} was reloaded: version {', '.join(map(str, versions))}")

    def _take_over(self, model: str) -> None:
        with self._changing:
            # By now it may have been reloaded by hand. A Triton that has ended says nothing of a model: the next look
            # finds it once more.
            if not self._stopping.is_set() and self.server.wait(0) is None and self._watch.is_new(model):
                self._reload(model)

    def _refuse(self, model: str, exc: TritiumError) -> None:
        report = self._states.own().get(model)
        match report.state if report else None:
            case None:
                what = "is not served"
            case ModelState.QUARANTINED:
                what = "was not reloaded, and stays quarantined"
            case ModelState.READY:
                what = "was not reloaded, and what was served goes on"
            case _:
                what = "was not reloaded"
        self._progress(f"{model} {what}: {exc}", "WARNING")
        # Not of every name that somebody asks for.
        if report or model in self.server.repository.models():
            self._states.reloads.labels(model, "refused").inc()

    def _load(self, model: str) -> None:
        repository = self.server.repository
        if model not in self.server.models:
            repository.version_folder(model)  # says what there is instead
        self.server.load(model)
        loaded, known = [model], self._states.own()
        for name in loaded:  # it grows by an ensemble's steps, which Triton loads with it
            loaded += [step for step in repository.steps(name) if step not in loaded]
        for step in loaded[1:]:
            # One that is being healed says so itself when it is there.
            if step not in known or known[step].state in (ModelState.QUARANTINED, ModelState.READY):
                self._serving(step)

    @contextmanager
    def _load_of(self, model: str) -> Iterator[None]:
        self._loading = model
        try:
            yield
        finally:
            self._loading = None

    def _look(self) -> None:
        """See how Triton and the models' processes are, and say so at once; it waits for nobody who loads something."""
        pid, asked_s = self.server.pid, time.monotonic()
        if self.server.wait(0) is not None:
            for model in self._states.own():
                self._states.degrade(model, "Triton has ended")
            return
        if self._pulse is None or self._pulse.pid != pid:
            self._pulse = Pulse(pid)
        pulse = self._pulse
        pulse.beat(self.server.answers(timeout_s=_ANSWER_S), asked_s=asked_s, now_s=time.monotonic())
        self._states.silence(f"Triton has not answered for {pulse.silent_s:.0f} s" if pulse.is_silent else "")
        if pulse.hangs and self.server.pid == pid and not self._stopping.is_set():
            # Whoever waits for it, because it loads something, then gets an error, and it is started again.
            self._hung = pid
            self.server.kill()
            return
        for model, reason in self._missing().items():
            if model != self._loading:
                self._states.degrade(model, reason)
        for model in self._states.own():
            if lacking := self._lacking(model):
                self._states.degrade(model, lacking)

    def _missing(self) -> dict[str, str]:
        """The models that are without some of their backend processes, and without how many."""
        if not any(self._stubs.values()):
            return {}  # without looking at every process of this machine
        alive = live_stubs(self.server.pid)
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

    def _mend(self) -> None:
        """Start Triton again if it ended, and load what is not served as it should be."""
        with self._changing:
            code = self.server.wait(0)
            if code is not None:
                hung = self._hung == self.server.pid
                self._restart("Triton did not answer any more" if hung else f"Triton ended with exit code {code}")
            elif self._pulse and self._pulse.answers:
                self._heal_all()

    def _heal_all(self) -> None:
        missing, there = self._missing(), self._index()
        troubles = []
        own = self._states.own()
        # Ensembles last: whether one can serve is a matter of its steps.
        for model in sorted(own, key=lambda model: "ensemble_scheduling" in self._good.get(model, {})):
            report = own[model]
            if self._stopping.is_set() or self.server.wait(0) is not None:
                return  # with Triton all its processes went
            try:
                # Of a model whose folder vanished, the index says nothing.
                self._bring_back(model, report, there.get(model, {"READY"}), missing.get(model))
            except TritiumError as exc:  # the others have their turn all the same
                troubles.append(exc)
        if troubles:
            raise troubles[0]

    def _bring_back(self, model: str, report: ModelReport, states: set[str], died: str | None) -> None:
        """Do what one model needs, by what we say of it, what Triton says of its versions, and what died of it."""
        gone = "READY" not in states
        if report.state is ModelState.QUARANTINED:
            if report.reason == _UNLOADED and not gone:
                self._serving(model)
        elif lacking := self._lacking(model):
            self._states.degrade(model, lacking)
            if gone:  # Triton takes an ensemble away with its step, and does not bring it back with it
                self._owed.add(model)
        elif gone and ("LOADING" in states or model not in self._owed):
            # Somebody else does that, so it is left to come or to go.
            if states == {"UNAVAILABLE"}:
                self._quarantine(model, _UNLOADED)
            else:
                self._states.degrade(model, f"Triton calls it {', '.join(sorted(states))}")
        elif died and not gone and not self._lacks_processes(model):
            self._serving(model)  # it was loaded anew, as an ensemble's step or by somebody else, and asks for fewer
        elif gone or died:
            self._heal(model, died or report.reason)
        elif report.state is not ModelState.READY:
            self._serving(model)

    def _index(self) -> dict[str, set[str]]:
        """What Triton says of each model's versions; nothing if it cannot read the repository."""
        found: dict[str, set[str]] = defaultdict(set)
        with suppress(TritiumError), self.server.client() as client:
            for status in client.models():
                found[status.name].add(status.state)
        return dict(found)

    def _lacks_processes(self, model: str) -> bool:
        """Whether a model has fewer backend processes than Triton's config of it asks for, as far as one knows."""
        try:
            config, versions = self._asked(model)
        except TritiumError:
            return True
        return live_stubs(self.server.pid)[model] < self._wanted_processes(config, versions)

    def _heal(self, model: str, reason: str) -> None:
        # What is owed was counted when it died; now it is only tried again.
        if model not in self._owed and self._deaths.too_many(model):
            self._quarantine(model, f"{reason}, the {STRIKES}th time in {STRIKES_WITHIN_S:g} s")
            return
        self._states.set(model, ModelState.DEGRADED, reason)
        self._progress(f"{model}: {reason}; loading it anew", "WARNING")
        with self._load_of(model):
            try:
                # Loading alone would change nothing: Triton believes that it is there.
                self._unload(model)
                self.server.load(model)
            except TransportError:
                raise  # it may be there later; no answer says nothing of the model
            except TritiumError as exc:
                if self._has_ended():
                    return  # which need not be the model's fault
                if not self._serves_as_before(model, str(exc)):
                    if not self._has_ended():
                        self._quarantine(model, f"{reason}, and it does not load: {exc}")
                    return
            else:
                self._serving(model)
        self._states.heals.labels(model).inc()
        self._progress(f"{model} is serving again")

    def _serves_as_before(self, model: str, why_not_now: str) -> bool:
        """Load what was served last, where what the repository has now does not load; whether that is possible."""
        good = self._good.get(model)
        if good is None:
            return False
        try:
            self.server.load(model, config=good)
        except TransportError:
            raise
        except TritiumError:
            return False
        remark = f"it is served as it was before, since what the repository has now does not load: {why_not_now}"
        self._serving(model, remark)
        self._progress(f"{model}: {remark}", "WARNING")
        return True

    def _serving(self, model: str, remark: str = "") -> None:
        """A model was loaded: it is ready, and has the backend processes that its config asks for."""
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

    def _asked(self, model: str) -> tuple[dict[str, Any], list[int]]:
        """What Triton says of a model: its config, and the versions that it serves."""
        with self.server.client() as client:
            handle = client.model(model)
            return handle.config, [int(version) for version in handle.metadata.versions]

    def _wanted_processes(self, config: Mapping[str, Any], versions: Sequence[int]) -> int:
        return 0 if self._runs_within(config["backend"]) else wanted_stubs(config, len(versions))

    def _runs_within(self, backend: str) -> bool:
        """Whether models of a backend run within Triton's own process."""
        if backend == "onnxruntime":
            return self.server.onnx_backend == "native"
        return backend not in ("python", *PYTHON_BASED)

    def _unload(self, model: str) -> None:
        """Take a model away; one with a request in the process that died never ends, and is left where it is."""
        self._owed.add(model)
        self.server.unload(model)
        deadline = time.monotonic() + _UNLOAD_S
        with self.server.client(protocol="grpc") as client:
            while any(status.name == model and status.state in ("READY", "UNLOADING") for status in client.models()):
                if time.monotonic() > deadline:
                    return
                time.sleep(0.05)

    def _quarantine(self, model: str, reason: str) -> None:
        self._owed.discard(model)
        self._states.set(model, ModelState.QUARANTINED, reason)
        self._states.quarantines.labels(model).inc()
        self._progress(f"{model} is quarantined: {reason}. `tritium reload {model}` gives it another chance", "WARNING")
        if self.server.wait(0) is None:
            self.server.unload(model)

    def _restart(self, reason: str) -> None:
        if self._stopping.is_set():  # it ends because it shall
            return
        pause_s = self._backoff.pause_s()
        served = [name for name, report in self._states.own().items() if report.state is not ModelState.QUARANTINED]
        for model in served:
            self._states.set(model, ModelState.DEGRADED, reason)
        self._progress(f"{reason}; starting it again" + (f" in {pause_s:g} s" if pause_s else ""), "WARNING")
        self._restarting = True
        try:
            self._hurry.wait(pause_s)
            if self._stopping.is_set():
                return
            self._states.restarts.inc()
            failed = self._started_again(served)
        finally:
            self._restarting = False
        self._backoff.started()
        self._owed.update(served)
        lost = 0
        for model in served:
            if model not in failed:
                self._serving(model)
            elif not self._serves_as_before(model, failed[model]):
                self._quarantine(model, failed[model])
                lost += 1
        self._progress(f"Triton is serving again, {len(served) - lost} of {len(served)} models")

    def _started_again(self, models: list[str]) -> dict[str, str]:
        """Start Triton with these models; why some are not served, by name."""
        try:
            return self._start_with(models)
        except StartError as exc:
            if self._stopping.is_set():
                raise
            self._progress(f"Triton did not start again: {exc}", "WARNING")
            return self._start_one_by_one(models)

    def _start_with(self, models: list[str]) -> dict[str, str]:
        failed = self.server.restart(models)
        # It need not have been seen to answer: it may hang as soon as something is loaded.
        self._pulse = Pulse(self.server.pid, started=True)
        return failed

    def _start_one_by_one(self, models: list[str]) -> dict[str, str]:
        """Start Triton with nothing and load each model alone, so that one that ends it is known by name."""
        failed: dict[str, str] = {}
        while True:
            good = [model for model in models if model not in failed]
            self._start_with([])
            for model in good:
                try:
                    self.server.load(model)
                except TritiumError as exc:
                    ended = self.server.wait(1) is not None
                    failed[model] = f"Triton ended while it was loaded: {exc}" if ended else str(exc)
                    if ended:
                        break
            else:
                return failed

    def _is_down(self) -> bool:
        """Whether there is no Triton, or only one that has ended."""
        try:
            return self.server.wait(0) is not None
        except StartError:
            return True

    def _has_ended(self) -> bool:
        """Whether Triton has ended, or does so just now."""
        return self.server.wait(1) is not None

    def _loop(self, name: str, step: Callable[[], None], every_s: float, what: str) -> threading.Thread:
        """A thread that does something again and again; whatever goes wrong there, nothing must end the watch."""

        def run() -> None:
            keep_doing(
                step,
                every_s=every_s,
                stopping=self._stopping,
                complain=lambda trouble: self._progress(f"{what} goes on after {trouble}", "WARNING"),
            )

        return threading.Thread(target=run, name=name, daemon=True)

    def _progress(self, line: str, level: str = "INFO") -> None:
        self._show(self.server.note(line, level))

    def _close(self) -> None:
        if self._health:
            self._health.shutdown()
            self._health.server_close()
