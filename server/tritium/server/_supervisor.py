"""A supervisor: it keeps a Triton honest for as long as a `with` block lasts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

from tritium.client import InputError, TritiumError

from ._errors import PortInUseError, StartError
from ._healing import Healer
from ._health import HealthServer
from ._loop import keep_doing
from ._pulse import Backoff, Pulse
from ._runtime import Progress, silent
from ._server import TritonServer
from ._states import ModelReport, ModelState, States
from ._watch import RepositoryWatch

_LOOK_S = 0.5
_ANSWER_S = 2.0


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
        self._healer = Healer(server, self._states, stopping=self._stopping, say=self._progress)
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
                self._healer.serving(model)
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
        nothing_to_answer = not self.server.is_running
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
        with self._changing, self._healer.loading(model):
            try:
                with self._watch.loading(model):
                    self._healer.load(model)
            except TritiumError as exc:
                self._refuse(model, exc)
                raise
            self._healer.forgive(model)
            self._healer.serving(model)
            self._states.reloads.labels(model, "done").inc()
            versions = ", ".join(map(str, self._healer.versions(model)))
            self._progress(f"{model} was reloaded: version {versions}")

    def _take_over(self, model: str) -> None:
        with self._changing:
            # By now it may have been reloaded by hand. A Triton that has ended says nothing of a model: the next look
            # finds it once more.
            if not self._stopping.is_set() and self.server.is_running and self._watch.is_new(model):
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

    def _look(self) -> None:
        """See how Triton and the models' processes are, and say so at once; it waits for nobody who loads something."""
        pid, asked_s = self.server.pid, time.monotonic()
        if not self.server.is_running:
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
        self._healer.look()

    def _mend(self) -> None:
        """Start Triton again if it ended, and load what is not served as it should be."""
        with self._changing:
            code = self.server.wait(0)
            if code is not None:
                hung = self._hung == self.server.pid
                self._restart("Triton did not answer any more" if hung else f"Triton ended with exit code {code}")
            elif self._pulse and self._pulse.answers:
                self._healer.heal_all()

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
        self._healer.owe(served)
        lost = 0
        for model in served:
            if model not in failed:
                self._healer.serving(model)
            elif not self._healer.serves_as_before(model, failed[model]):
                self._healer.quarantine(model, failed[model])
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
