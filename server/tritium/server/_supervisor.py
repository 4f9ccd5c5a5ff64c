"""A supervisor: it keeps a Triton honest for as long as a `with` block lasts."""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict, deque
from contextlib import suppress
from types import TracebackType
from typing import Any

from tritium.client import InputError, TritiumError
from tritium.repository import served_versions

from ._backends import PYTHON_BASED
from ._errors import PortInUseError, StartError
from ._health import HealthServer
from ._runtime import Progress, silent
from ._server import TritonServer
from ._states import ModelReport, ModelState, States
from ._stubs import live_stubs
from ._watch import Fingerprint, fingerprint, settled

_LOOK_S = 0.5
# A Triton that says nothing for so long hangs. A busy machine makes it slow, but it still answers now and then.
_HANG_S = 15.0
_BACKOFF_S = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
# A Triton that ran for so long starts again at once if it dies.
_STEADY_S = 60.0
# So many deaths within so many seconds are not chance.
_STRIKES = 4
_STRIKES_WITHIN_S = 120.0
_UNLOAD_S = 2.0
# Asking S3 costs a listing, and a look at the folder nearly nothing.
_LOOKS_PER_REFRESH = 10


class Supervisor:
    """Keeps a `TritonServer` serving: heals models, restarts Triton, and says truly what is ready.

    >>> with Supervisor(TritonServer("model_repository")) as supervisor:
    ...     print(supervisor.url + "/ready")

    A backend process that dies is noticed within a second, and its model is loaded anew. A Triton that dies or hangs is
    started again on the same ports, with a growing pause if it dies soon. A model that dies four times in two minutes,
    or that does not load when Triton starts again, not even as it was before, is quarantined until somebody reloads it;
    all others go on.

    Args:
        server: the server, not yet started.
        health_port: the port of readiness and metrics, on the server's interface; 0 takes any free one.
        watch_s: seconds between two looks at the repository; what changed between two of them and holds still until
            the next is reloaded by itself. A repository in S3 is asked at every tenth look. None leaves it to
            :meth:`reload`.
        progress: called with a line for people whenever something happens.

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
        # How many backend processes each model must have; none where it runs within Triton.
        self._stubs: dict[str, int] = {}
        # The config that each model was served with last, with the versions by number.
        self._good: dict[str, dict[str, Any]] = {}
        self._deaths: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_STRIKES))
        self._quick_restarts = 0
        self._restarting = False
        self._started_s = self._answered_s = 0.0
        self._thread = threading.Thread(target=self._run, name="triton-supervisor", daemon=True)
        # How each model was when it was last loaded, or refused.
        self._seen: dict[str, Fingerprint] = {}
        self._health: HealthServer | None = None

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
            # Before they are loaded: what changes meanwhile is a change.
            self._seen = {model: self._fingerprint(model) for model in self.server.models}
            self.server.start(supervisor_url=self.url, watched=self._watch_s is not None)
            for model in self.server.models:
                self._serving(model)
        except BaseException:
            self.server.stop()
            self._close()
            raise
        self._started_s = self._answered_s = time.monotonic()
        self._thread.start()
        if self._watch_s is not None:
            # A thread of its own, so that what takes long there keeps no model from being healed.
            threading.Thread(target=self._watch, args=(self._watch_s,), name="triton-watch", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching, then stop Triton in order."""
        self._stopping.set()
        self._thread.join(_LOOK_S)
        while self._restarting and self._thread.is_alive():
            # What only starts has nothing to answer.
            self.server.kill()
            self._thread.join(_LOOK_S)
        self.server.stop()
        self._thread.join()
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
        S3 it is pulled first.

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
        self._reload(model)

    def _reload(self, model: str) -> None:
        with self._changing:
            there = model in self.server.repository.models()
            now = self._fingerprint(model) if there else Fingerprint()
            try:
                self._load(model)
            except TritiumError as exc:
                self._refuse(model, exc)
                raise
            finally:
                # Of what was refused as well: the watch does not try it again before it changes.
                if model in self._watched():
                    self._seen[model] = now
            self._deaths[model].clear()
            self._serving(model)
            self._states.reloads.labels(model, "done").inc()
            versions = ", ".join(map(str, served_versions(self.server.repository, model)))
            self._progress(f"{model} was reloaded: version {versions}")

    def _refuse(self, model: str, exc: TritiumError) -> None:
        served = model in self._states.all()
        what = "was not reloaded, and what was served goes on" if served else "is not served"
        self._progress(f"{model} {what}: {exc}", "WARNING")
        # Not of every name that somebody asks for.
        if served or model in self.server.repository.models():
            self._states.reloads.labels(model, "refused").inc()

    def _load(self, model: str) -> None:
        if model not in self.server.models:
            self.server.repository.version_folder(model)  # says what there is instead
        self.server.load(model)
        if model not in self.server.models:
            self.server.models.append(model)

    def _fingerprint(self, model: str) -> Fingerprint:
        return fingerprint(self.server.repository.path / model)

    def _watched(self) -> list[str]:
        """The models in the repository that are served, or may be because all are."""
        there = self.server.repository.models()
        return there if self.server.serves_all else [model for model in there if model in self.server.models]

    def _fingerprints(self) -> dict[str, Fingerprint]:
        return {model: self._fingerprint(model) for model in self._watched()}

    def _watch(self, every_s: float) -> None:
        before, told, answered = dict(self._seen), "", True
        for look in itertools.count(1):
            if self._stopping.wait(every_s):
                return
            try:
                if look % _LOOKS_PER_REFRESH == 0:
                    answered = self._refresh(answered)
                now = self._fingerprints()
                for model in settled(self._seen, before, now):
                    self._take_over(model, there=model in now)
                before, told = now, ""
            except Exception as exc:
                if self._stopping.is_set():
                    return
                trouble = f"{type(exc).__name__}: {exc}"
                if trouble != told:  # it may well be the same at every look
                    self._progress(f"Watching the repository goes on after {trouble}", "WARNING")
                told = trouble

    def _refresh(self, answered: bool) -> bool:
        """Bring what changed in S3; whether it answered. That it does not is said once, as it may last."""
        source = self.server.source
        try:
            for model, exc in source.refresh(None if self.server.serves_all else self.server.models):
                self._refuse(model, exc)
        except TritiumError as exc:
            if answered:
                self._progress(f"What changes in {source.name} is not known now; what is served goes on: {exc}")
            return False
        if not answered:
            self._progress(f"What changes in {source.name} is known again")
        return True

    def _take_over(self, model: str, *, there: bool) -> None:
        with self._changing, suppress(TritiumError):  # a refusal was told already
            if self._stopping.is_set():
                return
            if there:
                self._reload(model)
            else:
                del self._seen[model]
                self._progress(f"{model} is not in the repository any more; it is served on until Triton starts again")

    def _run(self) -> None:
        while not self._stopping.wait(_LOOK_S):
            try:
                with self._changing:
                    self._look()
            except Exception as exc:
                # Triton may end while it is asked, which the next look sees; and nothing must end the watch.
                if self._stopping.is_set():
                    return
                self._progress(f"The supervisor goes on after {type(exc).__name__}: {exc}", "WARNING")

    def _look(self) -> None:
        code = self.server.wait(0)
        if code is not None:
            self._restart(f"Triton ended with exit code {code}")
        elif self.server.answers():
            self._answered_s = time.monotonic()
            self._heal_the_dead()
        elif time.monotonic() - self._answered_s > _HANG_S:
            self._restart(f"Triton has not answered for {_HANG_S:g} s")

    def _heal_the_dead(self) -> None:
        alive = live_stubs(self.server.pid)
        for model, report in self._states.all().items():
            if report.state is ModelState.QUARANTINED or self._stopping.is_set():
                continue
            wanted = self._stubs.get(model, 0)
            if alive[model] < wanted:
                self._heal(model, f"{wanted - alive[model]} of its {wanted} backend processes died")

    def _heal(self, model: str, reason: str) -> None:
        if self._struck(model):
            self._quarantine(model, f"{reason}, the {_STRIKES}th time in {_STRIKES_WITHIN_S:g} s")
            return
        self._states.set(model, ModelState.DEGRADED, reason)
        self._progress(f"{model}: {reason}; loading it anew", "WARNING")
        try:
            # Loading alone would change nothing: Triton believes that it is there.
            self._unload(model)
            self.server.load(model)
        except TritiumError as exc:
            if self.server.wait(0) is not None:
                return
            if not self._serves_as_before(model, str(exc)):
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
        except TritiumError:
            return False
        remark = f"it is served as it was before, since what the repository has now does not load: {why_not_now}"
        self._serving(model, remark)
        self._progress(f"{model}: {remark}", "WARNING")
        return True

    def _serving(self, model: str, remark: str = "") -> None:
        """A model was loaded: it is ready, and has the backend processes that its config asks for."""
        with self.server.client() as client:
            handle = client.model(model)
            versions = [int(version) for version in handle.metadata.versions]
            self._good[model] = handle.config | {"version_policy": {"specific": {"versions": versions}}}
            # By the config, not by counting: a process may have died already, and those of an older version may be
            # there for some time yet.
            if self._runs_within(handle.config["backend"]):
                self._stubs[model] = 0
            else:
                groups = handle.config["instance_group"]
                instances = sum(int(group.get("count", 1)) * max(1, len(group.get("gpus", ()))) for group in groups)
                self._stubs[model] = instances * len(versions)
        self._states.set(model, ModelState.READY, remark)

    def _runs_within(self, backend: str) -> bool:
        """Whether models of a backend run within Triton's own process."""
        if backend == "onnxruntime":
            return self.server.onnx_backend == "native"
        return backend not in ("python", *PYTHON_BASED)

    def _unload(self, model: str) -> None:
        """Take a model away; one with a request in the process that died never ends, and is left where it is."""
        self.server.unload(model)
        deadline = time.monotonic() + _UNLOAD_S
        with self.server.client(protocol="grpc") as client:
            while any(status.name == model and status.state in ("READY", "UNLOADING") for status in client.models()):
                if time.monotonic() > deadline:
                    return
                time.sleep(0.05)

    def _quarantine(self, model: str, reason: str) -> None:
        self._states.set(model, ModelState.QUARANTINED, reason)
        self._states.quarantines.labels(model).inc()
        self._progress(f"{model} is quarantined: {reason}. `tritium reload {model}` gives it another chance", "WARNING")
        if self.server.wait(0) is None:
            self.server.unload(model)

    def _restart(self, reason: str) -> None:
        if self._stopping.is_set():  # it ends because it shall
            return
        steady = time.monotonic() - self._started_s > _STEADY_S
        self._quick_restarts = 0 if steady else self._quick_restarts + 1
        pause_s = _BACKOFF_S[min(self._quick_restarts, len(_BACKOFF_S)) - 1] if self._quick_restarts else 0.0
        served = [name for name, report in self._states.all().items() if report.state is not ModelState.QUARANTINED]
        for model in served:
            self._states.set(model, ModelState.DEGRADED, reason)
        self._progress(f"{reason}; starting it again" + (f" in {pause_s:g} s" if pause_s else ""), "WARNING")
        self._restarting = True
        try:
            if self._stopping.wait(pause_s):
                return
            self._states.restarts.inc()
            failed = self._started_again(served)
        finally:
            self._restarting = False
        self._started_s = self._answered_s = time.monotonic()
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
            return self.server.restart(models)
        except StartError as exc:
            if self._stopping.is_set():
                raise
            self._progress(f"Triton did not start again: {exc}", "WARNING")
            return self._start_one_by_one(models)

    def _start_one_by_one(self, models: list[str]) -> dict[str, str]:
        """Start Triton with nothing and load each model alone, so that one that ends it is known by name."""
        failed: dict[str, str] = {}
        while True:
            good = [model for model in models if model not in failed]
            self.server.restart([])
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

    def _struck(self, model: str) -> bool:
        deaths = self._deaths[model]
        deaths.append(time.monotonic())
        return len(deaths) == _STRIKES and deaths[-1] - deaths[0] < _STRIKES_WITHIN_S

    def _progress(self, line: str, level: str = "INFO") -> None:
        self._show(self.server.note(line, level))

    def _close(self) -> None:
        if self._health:
            self._health.shutdown()
            self._health.server_close()
