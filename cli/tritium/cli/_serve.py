"""`tritium serve`."""

from __future__ import annotations

import json
import shlex
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version as package_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._shared import json_option, port_options, print_json, repository_place_option, say

if TYPE_CHECKING:
    from tritium.server import Supervisor, TritonServer

# What a backend of the config runs on here: the package, and its name for people.
_ENGINES = {"onnxruntime": ("onnxruntime-gpu", "ONNX Runtime"), "pytorch": ("torch", "PyTorch")}


@click.command("serve")
@repository_place_option
@click.option("--model", "models", multiple=True, help="Serve this model; may be given several times. All by default.")
@port_options
@click.option(
    "--onnx-backend",
    type=click.Choice(["auto", "native", "python"]),
    default="auto",
    show_default=True,
    help="What runs ONNX models: a library within Triton, or a Python process for each instance; auto is native where "
    "that can be compiled.",
)
@click.option(
    "--expose", is_flag=True, help="Listen on every interface instead of loopback. Read the warning it prints."
)
@click.option(
    "--health-port",
    type=click.IntRange(0, 65535),
    default=8003,
    show_default=True,
    help="The supervisor's port, for readiness and metrics of its own; 0 stands for any free one.",
)
@click.option(
    "--watch",
    is_flag=True,
    help="Take over by itself what changes in the repository: new versions, new models, configs.",
)
@click.option(
    "--allow-shared-memory",
    is_flag=True,
    help="Let every client on this machine register shared memory, without this server's secret.",
)
@click.option(
    "--public-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Load only versions that are signed by the key with this public part; `tritium sign` signs them.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How the log is written: as Triton does, or with a JSON object in each line, on standard error too.",
)
@click.option("--log-verbose", is_flag=True, help="Log what becomes of every request, by its id.")
@click.option(
    "--otlp",
    "otlp_url",
    metavar="URL",
    help="Send traces to the OpenTelemetry collector there, over HTTP, as in http://127.0.0.1:4318/v1/traces.",
)
@click.option(
    "--trace-rate",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Trace one of N requests, beside those whose caller traces them.",
)
@click.option(
    "--response-cache-mb",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Keep N MiB of answers, for models whose config has response_cache { enable: true }.",
)
@click.option("--rate-limit", is_flag=True, help="Heed the rate_limiter of the configs' instance groups.")
@click.option(
    "--startup-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="How long all models together may take to load.",
)
@click.option(
    "--shutdown-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long requests under way get at the end.",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    repository: Path | str,
    models: tuple[str, ...],
    http_port: int,
    grpc_port: int,
    metrics_port: int,
    onnx_backend: str,
    expose: bool,
    health_port: int,
    watch: bool,
    allow_shared_memory: bool,
    public_key: Path | None,
    log_format: str,
    log_verbose: bool,
    otlp_url: str | None,
    trace_rate: int,
    response_cache_mb: int,
    rate_limit: bool,
    startup_timeout: float,
    shutdown_timeout: float,
    as_json: bool,
) -> None:
    """Serve a model repository with a real Triton.

    A supervisor starts Triton again if it dies or hangs, and loads a model anew if its backend process dies. Loading
    models, shared memory, traces and logs take a secret that only you can read; `tritium reload` and `tritium rollback`
    use it. A repository in S3 is copied into the cache and served from there. The first start fetches the server. With
    --json one document is printed when every model is ready.

    It ends with Ctrl-C or SIGTERM, and exits 0 if all that was accepted was answered, 1 if not in the time for that.
    """
    from tritium.server import Supervisor, TritonServer

    serving: list[Supervisor] = []
    forced = threading.Event()
    _stop_by_signals(serving, forced)
    try:
        server = TritonServer(
            repository,
            models=models or None,
            http_port=http_port,
            grpc_port=grpc_port,
            metrics_port=metrics_port,
            onnx_backend=onnx_backend,
            expose=expose,
            open_groups=("shared-memory",) if allow_shared_memory else (),
            public_key=public_key,
            log_format=log_format,
            log_verbose=log_verbose,
            otlp_url=otlp_url,
            trace_rate=trace_rate,
            response_cache_mb=response_cache_mb,
            rate_limit=rate_limit,
            startup_timeout_s=startup_timeout,
            shutdown_timeout_s=shutdown_timeout,
            progress=say,
        )
        supervisor = Supervisor(server, health_port=health_port, watch_s=1.0 if watch else None, progress=say)
        serving.append(supervisor)
        if expose:
            warning = (
                "Warning: this Triton listens on every interface and checks nobody. It has published flaws: let only "
                "hosts that you trust reach it."
            )
            say(server.note(warning, "WARNING"))
        with supervisor:
            _announce(supervisor, as_json, in_a_line=log_format == "json")
            try:
                while True:  # a signal that another thread takes would end no longer wait
                    time.sleep(1)
            except KeyboardInterrupt:
                say(server.note("Stopping, with an answer to all that was accepted; Ctrl-C again ends it at once"))
                raise
    except KeyboardInterrupt:
        for supervisor in serving:
            if supervisor.exit_code and not forced.is_set():
                text = f"Triton did not end in its time, or not in order (exit code {supervisor.exit_code}): "
                text += "what was under way got no answer. --shutdown-timeout gives it longer"
                say(supervisor.server.note(text, "ERROR"))
                ctx.exit(1)
        say(serving[0].server.note("Stopped") if serving else "Stopped")


def _stop_by_signals(serving: Sequence[Supervisor], forced: threading.Event) -> None:
    """Let SIGTERM and Ctrl-C interrupt once. Stopping has an end of its own, which only a second Ctrl-C cuts short."""

    def force(_signal: int, _frame: Any) -> None:
        forced.set()
        for supervisor in serving:
            supervisor.server.kill()

    def interrupt(_signal: int, _frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, force)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in the background of a script
        signal.signal(signal.SIGINT, interrupt)


def _announce(supervisor: Supervisor, as_json: bool, *, in_a_line: bool) -> None:
    server = supervisor.server
    with server.client() as client:
        models = {name: client.model(name) for name in server.models}
        backends = {name: _backend(model.config) for name, model in models.items()}
        declared = {name: model.metadata for name, model in models.items()}
    if as_json:
        urls = {"http_url": server.http_url, "grpc_url": server.grpc_url, "metrics_url": server.metrics_url}
        urls["health_url"] = supervisor.url
        onnx = {"onnx_backend": server.onnx_backend, "onnx_backend_reason": server.onnx_backend_reason}
        print_json({"models": backends, **onnx, **urls, "pid": server.pid, "log": str(server.log)})
        return
    if in_a_line:
        ports = f"http {server.http_url}, grpc {server.grpc_url}, metrics {server.metrics_url}"
        say(server.note(f"Ready: {', '.join(backends)}; {ports}, health {supervisor.url}/ready, log {server.log}"))
        return
    width = max(map(len, backends))
    say("Ready:")
    for name, metadata in declared.items():
        inputs, outputs = (", ".join(map(str, specs)) for specs in (metadata.inputs, metadata.outputs))
        say(f"  {name:<{width}}  version {', '.join(metadata.versions)}  {inputs} → {outputs}")
    say()
    for backend in sorted(set(backends.values())):
        say(f"  backend  {backend}{_engine(server, backend)}")
    say(f"  http     {server.http_url}")
    say(f"  grpc     {server.grpc_url}")
    say(f"  metrics  {server.metrics_url}")
    say(f"  health   {supervisor.url}/ready")
    say(f"  log      {server.log}")
    say()
    say("Try it from another terminal:")
    for line in _examples(server):
        say(f"  {line}")
    say()
    say("Ctrl-C stops it.")


def _backend(config: Mapping[str, Any]) -> str:
    """What runs a model, by the config in use; an ensemble has a platform and no backend."""
    return str(config.get("backend") or config.get("platform"))


def _engine(server: TritonServer, backend: str) -> str:
    """How a backend runs here, and on which version of what; nothing for those that are Triton's own."""
    if backend not in _ENGINES:
        return ""
    package, title = _ENGINES[backend]
    if backend == "onnxruntime" and server.onnx_backend == "native":
        return f": native, {title} {_version(package)}"
    why = (server.onnx_backend_reason or "").partition("\n")[0] if backend == "onnxruntime" else ""
    return f": Python-based, {title} {_version(package)}" + (f" ({why.rstrip(':')})" if why else "")


def _examples(server: TritonServer) -> list[str]:
    """Commands to paste, with a golden case of the first model as their input."""
    from tritium.client import TritiumError
    from tritium.repository import golden_batches, input_specs, load_golden

    name = server.models[0]
    try:
        config = server.repository.config(name)
        golden = load_golden(server.repository.version_folder(name), config)
        case = next(golden_batches(golden, config, rows=1))
        inputs = [
            {
                "name": spec.name,
                "datatype": spec.dtype,
                "shape": list(case.inputs[spec.name].shape),
                "data": case.inputs[spec.name].tolist(),
            }
            for spec in input_specs(config)
        ]
        body = json.dumps({"inputs": inputs})
    except (TritiumError, TypeError):  # no golden cases, or a dtype that JSON has not
        return [f"curl -s {server.http_url}/v2/models/{name}"]
    file = server.folder / f"{name}.json"
    file.write_text(body, encoding="utf-8")
    repository = shlex.quote(str(server.repository.path))
    return [
        f"curl -s {server.http_url}/v2/models/{name}/infer -d @{shlex.quote(str(file))}",
        f"tritium infer {name} --url {server.http_url} --repository {repository} --case 0",
    ]


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError

    for name in (package, package.removesuffix("-gpu")):
        try:
            return package_version(name)
        except PackageNotFoundError:
            continue
    return "(not installed)"
