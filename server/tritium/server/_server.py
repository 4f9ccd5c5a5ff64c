"""A Triton server that lives as long as a `with` block."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from tritium.client import Client, InputError, TritiumError
from tritium.repository import check_loadable

from ._access import ADMIN_GROUPS, admin_headers
from ._command import CommandLine
from ._drain import end_in_order
from ._environment import triton_environment
from ._errors import ModelLoadError, StartError
from ._flags import VERBOSE_VARIABLE, Features
from ._log import ServerLog, is_tritons, load_failures
from ._native import ONNX_BACKENDS, NativeBackend, choose_onnx_backend
from ._ports import LOOPBACK, choose_ports, listens, says
from ._process import BoundProcess
from ._runs import RunningServer, hold, run_folder, shm_prefix, sweep_dead_owners, sweep_shm, write_record
from ._runtime import Progress, Runtime, install_runtime, silent
from ._source import source_of

# How a chosen free port can still be taken: somebody else was quicker.
_PORT_TRIES = 3
_KINDS = ("http", "grpc", "metrics")


class TritonServer:
    """The real `tritonserver` on this machine, over a model repository, on loopback.

    >>> with TritonServer("model_repository") as server, server.client() as client:
    ...     print(client.model("digits_cnn").metadata)

    Models are loaded explicitly: what changes in the repository is served only after :meth:`load`. Before it is, every
    file is compared with the version's manifest. Loading models, shared memory, traces and logging take a secret, which
    :meth:`client` sends along.

    Args:
        repository: the model repository's folder; or its URL in S3, ``s3://bucket/prefix``, which is copied into the
            cache first. Its credentials are those of boto3, and Triton gets none of them.
        models: the models to load, and with an ensemble those of its steps; all by default.
        http_port: the port for HTTP; 0 takes any free one, as for the other two.
        grpc_port: the port for gRPC.
        metrics_port: the port for Prometheus metrics.
        onnx_backend: what runs ONNX models: ``native``, a library within Triton; ``python``, a process of its own for
            each instance; or ``auto``, which is native where that can be compiled.
        expose: listen on every interface instead of loopback. This Triton has known flaws that a stranger can use, so
            only behind something that keeps strangers out: the network of a compose file, a gateway.
        open_groups: what every client may do without the secret, of shared-memory, model-repository, trace and logging.
            With shared-memory, a client can make Triton read and write what other programs share.
        public_key: a PEM file; only versions that are signed by its key are loaded.
        log_format: ``text``, or ``json`` for a log with a JSON object in each line, and progress likewise.
        log_verbose: log what becomes of every request, by its id.
        otlp_url: where an OpenTelemetry collector takes traces over HTTP, as in ``http://127.0.0.1:4318/v1/traces``;
            None for no traces. The environment's ``OTEL_SERVICE_NAME`` names the service, else it is ``tritium``.
        trace_rate: of so many requests one is traced; those whose caller traces them are, anyway.
        response_cache_mb: mebibytes of answers that are kept for models whose config has ``response_cache { enable:
            true }``; 0 for none.
        rate_limit: heed the ``rate_limiter`` of instance groups.
        startup_timeout_s: seconds until every model must be ready.
        shutdown_timeout_s: seconds that requests under way, and then the models, get to finish when the server stops.
        progress: called with a line for people where something takes long.

    Raises:
        InputError: the repository is no folder or has no such models, or a parameter has no such value.
        StoreError: S3 does not answer or refuses, or what lies there is not whole.
    """

    def __init__(
        self,
        repository: str | Path,
        *,
        models: Sequence[str] | None = None,
        http_port: int = 0,
        grpc_port: int = 0,
        metrics_port: int = 0,
        onnx_backend: str = "auto",
        expose: bool = False,
        open_groups: Sequence[str] = (),
        public_key: str | Path | None = None,
        log_format: str = "text",
        log_verbose: bool = False,
        otlp_url: str | None = None,
        trace_rate: int = 1,
        response_cache_mb: int = 0,
        rate_limit: bool = False,
        startup_timeout_s: float = 120.0,
        shutdown_timeout_s: float = 10.0,
        progress: Progress = silent,
    ) -> None:
        self.source = source_of(repository, models or (), progress)
        self.repository = self.source.repository
        known = self.repository.models()
        for model in sorted(set(models or ()) - set(known)):
            self.repository.version_folder(model)  # says what there is instead
        if not known:
            raise InputError(
                f"There are no models in {self.repository.path}; `tritium zoo train` builds the reference models"
            )
        self.models = self._with_steps(models or known)
        self.serves_all = not models
        self._asked_ports = dict(zip(_KINDS, (http_port, grpc_port, metrics_port), strict=True))
        for kind, port in self._asked_ports.items():
            if not 0 <= port < 65536:
                raise InputError(f"The '{kind}_port' parameter must be 0 to 65535, got {port} instead")
        if onnx_backend not in ONNX_BACKENDS:
            raise InputError(
                f"The 'onnx_backend' parameter must be one of {', '.join(ONNX_BACKENDS)}, got {onnx_backend!r} instead"
            )
        self._asked_onnx_backend = onnx_backend
        self._onnx_backend: NativeBackend | None = None
        self._ports: dict[str, int] = {}
        self._address = "0.0.0.0" if expose else LOOPBACK  # noqa: S104 — asked for by name
        for group in open_groups:
            if group not in ADMIN_GROUPS:
                raise InputError(
                    f"The 'open_groups' parameter may have {', '.join(ADMIN_GROUPS)}, got {group!r} instead"
                )
        self._public_key = Path(public_key) if public_key else None
        self._secret = secrets.token_urlsafe(32)
        self._startup_timeout_s = startup_timeout_s
        self._shutdown_timeout_s = shutdown_timeout_s
        self._features = Features(
            log_format=log_format,
            log_verbose=log_verbose,
            otlp_url=otlp_url,
            trace_rate=trace_rate,
            response_cache_mb=response_cache_mb,
            rate_limit=rate_limit,
        )
        self._id = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._command_line = CommandLine(
            repository=self.repository,
            address=self._address,
            closed_groups=[group for group in ADMIN_GROUPS if group not in open_groups],
            secret=self._secret,
            shutdown_timeout_s=shutdown_timeout_s,
            shm_prefix=shm_prefix(self._id),
            features=self._features,
        )
        self._log = ServerLog(self.log, log_format)
        self._show = progress
        self._process: BoundProcess | None = None
        self._alive: IO[str]

    def __enter__(self) -> TritonServer:
        """Start the server, as :meth:`start`."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server, as :meth:`stop`; if it is a StartError that leaves the block, the log is kept."""
        self._end(keep_log=isinstance(exc, StartError))

    def start(self, *, supervisor_url: str | None = None, watched: bool = False) -> None:
        """Start Triton and wait until every model is ready. The runtime is installed first, if it is not there.

        Args:
            supervisor_url: where its supervisor answers; other processes of this user are told.
            watched: whether that one reloads by itself what changes in the repository; they are told, too.

        Raises:
            UnsupportedSystemError: this machine or this Python cannot run it.
            RuntimeInstallError: the runtime cannot be installed.
            NativeBackendError: the native backend was asked for, and cannot run.
            PortInUseError: a port that was asked for is taken.
            ModelLoadError: models did not load, or are not what was published; it has the reason of each.
            StartError: Triton died, or was not ready in time.
        """
        if self._process is not None:
            raise StartError("This server is started already")
        if refused := self._unloadable(self.models):
            raise ModelLoadError(refused)
        runtime = install_runtime(progress=self._progress)
        onnx = self._onnx_backend = choose_onnx_backend(self._asked_onnx_backend, self._progress)
        sweep_dead_owners()
        environment = self._environment(runtime)
        for attempt in range(_PORT_TRIES):
            self._ports = choose_ports(self._address, self._asked_ports)
            command = self._command(runtime, onnx, self.models)
            self._alive = hold(self.folder)
            self._process = BoundProcess(command, env=environment, folder=self.folder, log=self._log)
            try:
                self._process.start()
                self._wait_until_ready()
                self._warn_of_what_is_off(self.models)
                self._tell_others(supervisor_url, watched)
                return
            except BaseException as exc:
                taken = any(
                    "Address already in use" in line or "failed to bind" in line for line in list(self._process.tail)
                )
                self._end(keep_log=isinstance(exc, StartError))
                if not (isinstance(exc, StartError) and taken and attempt + 1 < _PORT_TRIES):
                    raise

    def restart(self, models: Sequence[str]) -> dict[str, str]:
        """End Triton at once, with all that it started, and start it again on the same ports.

        Unlike at the first start, a model that does not load keeps no other from being served.

        Args:
            models: the models to load.

        Returns:
            Why models are not served, by name.

        Raises:
            StartError: Triton died while it started, or was not ready in time. It can be started again.
        """
        self._running().stop(0)
        sweep_shm(self._id)
        failed = self._unloadable(models)
        loaded = [model for model in models if model not in failed]
        runtime = install_runtime(progress=self._progress)
        command = [
            *self._command(runtime, self._chosen, loaded),
            "--exit-on-error=false",
            "--strict-readiness=false",
        ]
        process = BoundProcess(command, env=self._environment(runtime), folder=self.folder, log=self._log)
        try:
            process.start()
            self._process = process
            self._wait_until_ready()
        except BaseException:
            if not process.call_off():
                process.stop(0)
            raise
        with self.client(protocol="grpc") as client:
            ready = {status.name for status in client.models() if status.state == "READY"}
        reasons = load_failures(list(self._process.tail))
        absent = [model for model in loaded if model not in ready]
        return failed | {model: reasons.get(model, "Triton does not say why it is not there") for model in absent}

    def answers(self, *, timeout_s: float = 5.0) -> bool:
        """Whether Triton says in time that it lives."""
        return says(self._ports["http"], "live", timeout_s=timeout_s)

    def stop(self) -> int | None:
        """Stop Triton: it takes no more and answers what it took, for at most the shutdown timeout; nothing is left.

        Connections that nobody uses do not hold it.

        Returns:
            Triton's exit code; None if it was not running.
        """
        return self._end(keep_log=False)

    def kill(self) -> None:
        """End Triton at once: what is under way gets no answer. What it leaves is tidied up by :meth:`stop`."""
        if self._process is not None:
            self._process.kill()

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for Triton to end by itself; its exit code, or None if it is still running after `timeout_s`."""
        return self._running().wait(timeout_s)

    @property
    def is_running(self) -> bool:
        """Whether Triton is there: started, and not ended since."""
        return self._process is not None and self._process.exit_code() is None

    @property
    def address(self) -> str:
        """The interface that it listens on: that of loopback, or ``0.0.0.0`` for every one."""
        return self._address

    @property
    def http_url(self) -> str:
        """As in ``http://127.0.0.1:8000``."""
        return f"http://{LOOPBACK}:{self._ports['http']}"

    @property
    def grpc_url(self) -> str:
        """As in ``grpc://127.0.0.1:8001``."""
        return f"grpc://{LOOPBACK}:{self._ports['grpc']}"

    @property
    def metrics_url(self) -> str:
        """Where Prometheus finds the metrics."""
        return f"http://{LOOPBACK}:{self._ports['metrics']}/metrics"

    @property
    def secret(self) -> str:
        """What administering this server takes; other processes of this user find it with `running_servers`."""
        return self._secret

    @property
    def onnx_backend(self) -> str:
        """What runs ONNX models: ``native`` or ``python``."""
        return self._chosen.kind

    @property
    def onnx_backend_reason(self) -> str | None:
        """Why it is the Python-based backend that runs them; None if it is not. The first line is the short of it."""
        return self._chosen.reason

    @property
    def pid(self) -> int:
        """Triton's process id."""
        return self._running().pid

    @property
    def folder(self) -> Path:
        """Where this server's log lies. It vanishes when the server stops in order."""
        return run_folder(self._id)

    @property
    def log(self) -> Path:
        """Triton's log, at most 8 MiB and as much again from before."""
        return self.folder / "triton.log"

    def note(self, message: str, level: str = "INFO") -> str:
        """Put a line of one's own into Triton's log.

        Args:
            message: what to say.
            level: ``INFO``, ``WARNING`` or ``ERROR``.

        Returns:
            The message, or with ``log_format="json"`` a JSON object with it: what to show of it elsewhere.
        """
        return self._log.note(message, level)

    def client(self, *, protocol: str = "http", timeout_s: float = 30.0) -> Client:
        """A client of this server, over ``http`` or ``grpc``, that may also administer it."""
        if protocol not in ("http", "grpc"):
            raise InputError(f"The 'protocol' parameter of client must be 'http' or 'grpc', got {protocol!r} instead")
        url = self.http_url if protocol == "http" else self.grpc_url
        return Client(url, timeout_s=timeout_s, headers=admin_headers(url, self._secret))

    def load(self, model: str, *, config: Mapping[str, Any] | None = None) -> None:
        """Load a model, or load it again as it is in the repository now. If that fails, what was served goes on.

        Triton loads an ensemble's steps with it: all of them are among `models` then.

        Args:
            model: its name.
            config: a config to load it with instead of the repository's, as Triton has it in JSON.

        Raises:
            InputError: the config is none, or there is no such model.
            ArtifactError: a file is nothing that the backend loads.
            ConfigError: the repository's config cannot be read.
            ManifestError: a file of a version is not the one that was published.
            SignatureError: there is a public key, and a version is not signed by it.
            ServerError: the model does not load; the message has Triton's reason.
        """
        loaded = self._with_steps([model])
        check_loadable(self.repository, model, config=config, public_key=self._public_key)
        # Over HTTP a load would block one of the server's few threads.
        with self.client(protocol="grpc") as client:
            client.load(model, config=config)
        self.models += [name for name in loaded if name not in self.models]
        self._warn_of_what_is_off([model])

    def unload(self, model: str) -> None:
        """Take a model out of service."""
        with self.client(protocol="grpc") as client:
            client.unload(model)

    def _running(self) -> BoundProcess:
        if self._process is None:
            raise StartError("This server is not running; use it in a `with` block or call start()")
        return self._process

    @property
    def _chosen(self) -> NativeBackend:
        if self._onnx_backend is None:
            raise StartError("This server has not been started; use it in a `with` block or call start()")
        return self._onnx_backend

    def _command(self, runtime: Runtime, onnx: NativeBackend, models: Sequence[str]) -> list[str]:
        return self._command_line.command(runtime, onnx, ports=self._ports, there=self._there(), models=models)

    def _with_steps(self, models: Sequence[str]) -> list[str]:
        """The models, and with an ensemble those of its steps that are there, or that S3 has."""
        found = list(models)
        for model in found:  # it grows by the steps
            # Of a folder that is gone, who loads it says more.
            for step in self.repository.steps(model) if (self.repository.path / model).is_dir() else ():
                if not (self.repository.path / step).is_dir():
                    self.source.pull(step)
                # One that is not there is a reason not to load the ensemble.
                if step not in found and (self.repository.path / step).is_dir():
                    found.append(step)
        return found

    def _there(self) -> list[str]:
        """The models that are still in the repository."""
        return [model for model in self.models if (self.repository.path / model).is_dir()]

    def _environment(self, runtime: Runtime) -> dict[str, str]:
        return triton_environment(runtime) | ({VERBOSE_VARIABLE: "1"} if self._features.log_verbose else {})

    def _wait_until_ready(self) -> None:
        process = self._running()
        deadline = time.monotonic() + self._startup_timeout_s
        hidden = False
        # Triton opens gRPC, HTTP and metrics in this order; HTTP says when the models are ready.
        while not (says(self._ports["http"], "ready") and listens(self._ports["metrics"]) and hidden):
            code = process.exit_code()
            if code is not None:
                process.stop(0)  # its output is then complete
                raise self._start_error(f"Triton ended with exit code {code} before it was ready")
            if not hidden and any(is_tritons(line) for line in list(process.tail)):
                # It logs nothing before it has read its arguments.
                self._hide_secret()
                hidden = True
            if time.monotonic() > deadline:
                raise self._start_error(
                    f"Triton was not ready after {self._startup_timeout_s:g} s. Give it longer "
                    "(--startup-timeout, or startup_timeout_s in Python), or serve fewer models"
                )
            process.wait(0.02)

    def _hide_secret(self) -> None:
        try:
            self._running().blot_out(self._secret)
        except OSError as exc:
            self.note(f"The secret stays visible among Triton's arguments: {exc}", "WARNING")

    def _unloadable(self, models: Sequence[str]) -> dict[str, str]:
        """Why models must not be loaded, by name."""
        refused: dict[str, str] = {}
        for model in models:
            if not (self.repository.path / model).is_dir():
                refused[model] = f"it is not in the repository any more: there is no folder {model!r}"
                continue
            try:
                # Not even a config that Triton may read after all: what it then loads would be unchecked.
                check_loadable(self.repository, model, public_key=self._public_key)
            except TritiumError as exc:
                refused[model] = str(exc)
        return refused

    def _progress(self, line: str, level: str = "INFO") -> None:
        self._show(self._log.note(line, level))

    def _warn_of_what_is_off(self, models: Sequence[str]) -> None:
        """Triton ignores these without a word; a log line is the least."""
        for model in models:
            for key, how in self._features.asked_in_vain(self.repository, model).items():
                self._progress(f"{model}: its config's {key} has no effect: serve with {how}", "WARNING")

    def _tell_others(self, supervisor_url: str | None, watched: bool) -> None:
        record = RunningServer(
            repository=self.source.name,
            http_url=self.http_url,
            grpc_url=self.grpc_url,
            secret=self._secret,
            supervisor_url=supervisor_url,
            watched=watched,
        )
        write_record(self.folder, record)

    def _start_error(self, what: str) -> StartError:
        lines = list(self._running().tail)
        if reasons := load_failures(lines):
            return ModelLoadError(reasons, log=self.log)
        complaints = [line for line in lines if re.match(r"E\d{4} |error:|Error:", line) and "NVML" not in line]
        return StartError("\n".join([what, *(f"  {line}" for line in complaints[-5:])]), log=self.log)

    def _end(self, *, keep_log: bool) -> int | None:
        if self._process is None:
            return None
        code = None
        if not self._process.call_off():
            # A little more than Triton itself allows for what is under way.
            code = end_in_order(self._process, self._ports, self._shutdown_timeout_s + 5)
        self._process = None
        self._log.close()
        sweep_shm(self._id)
        if not keep_log:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._alive.close()
        return code
