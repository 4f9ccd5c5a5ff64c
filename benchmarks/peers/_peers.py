"""Who is compared: how each server is started, how it is asked, and how it was tuned."""

from __future__ import annotations

import json
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks._shared import Model
from benchmarks._wrk import HOST, triton_call
from benchmarks.peers import _calls
from benchmarks.peers._calls import MakeCall

OURS = "native"
MAX_BATCH_SIZE = 64


@dataclass(frozen=True)
class Place:
    """Where a server runs.

    Attributes:
        bin: the folder of its environment's programs.
        folder: for its files, new at each start.
        ports: by protocol, free ones of 127.0.0.1.
    """

    bin: Path
    folder: Path
    ports: Mapping[str, int]
    models: Sequence[Model]


@dataclass(frozen=True)
class Peer:
    """One server.

    Attributes:
        tuned: how, in words for the page.
        command: what starts it; it writes into the place's folder what the server reads there.
        calls: how it is asked, by protocol.
        packages: the environment it runs in, by the name of its requirements; Tritium's own if empty.
        env: environment variables; ``{folder}`` stands for the place's folder.
    """

    name: str
    title: str
    tuned: str
    command: Callable[[Place], Sequence[str]]
    calls: Mapping[str, MakeCall]
    packages: str = ""
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def ours(self) -> bool:
        """Whether it is Tritium."""
        return not self.packages


def _tritium(backend: str) -> Callable[[Place], Sequence[str]]:
    def command(place: Place) -> list[str]:
        flags = {"repository": place.models[0].repository, "onnx-backend": backend, "metrics-port": 0, "health-port": 0}
        flags |= {f"{protocol}-port": number for protocol, number in place.ports.items()}
        return [str(place.bin / "tritium"), "serve", *(f"--{name}={value}" for name, value in flags.items())]

    return command


def _fastapi(workers: int) -> Callable[[Place], Sequence[str]]:
    def command(place: Place) -> list[str]:
        flags = {"host": HOST, "port": place.ports["http"], "workers": workers}
        # Nothing that it need not do: no header that nobody reads, no line for each request.
        flags |= {"loop": "uvloop", "http": "httptools", "lifespan": "off", "ws": "none", "log-level": "warning"}
        switches = ["--no-access-log", "--no-server-header", "--no-date-header", "--no-proxy-headers"]
        app = [str(place.bin / "python"), "-m", "uvicorn", "benchmarks.peers.fastapi_app:app"]
        return [*app, *switches, *(f"--{name}={value}" for name, value in flags.items())]

    return command


def _module(name: str) -> Callable[[Place], Sequence[str]]:
    return lambda place: [str(place.bin / "python"), "-m", f"benchmarks.peers.{name}"]


def _bentoml(place: Place) -> list[str]:
    flags = ["--host", HOST, "--port", str(place.ports["http"]), "--quiet"]
    return [str(place.bin / "python"), "-m", "bentoml", "serve", "benchmarks.peers.bentoml_app:Models", *flags]


def _mlserver(batching: Mapping[str, float]) -> Callable[[Place], Sequence[str]]:
    def command(place: Place) -> list[str]:
        settings = {
            "host": HOST,
            "http_port": place.ports["http"],
            "grpc_port": place.ports["grpc"],
            "parallel_workers": 0,
            "debug": False,
            "gzip_enabled": False,
            "metrics_endpoint": None,
        }
        folder = place.folder / "mlserver"
        folder.mkdir()
        (folder / "settings.json").write_text(json.dumps(settings))
        for model in place.models:
            about = {"name": model.name, "implementation": "benchmarks.peers.mlserver_app.Runtime", **batching}
            (folder / model.name).mkdir()
            (folder / model.name / "model-settings.json").write_text(json.dumps(about))
        return [str(place.bin / "python"), "-c", "from mlserver.cli import main; main()", "start", str(folder)]

    return command


_TRITON = {"http": triton_call, "grpc": _calls.triton_grpc}
_MLSERVER = {"http": _calls.mlserver, "grpc": _calls.triton_grpc}
_RAY = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "2",
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    # A socket's path may have no more than 97 characters, and Ray puts in a folder with a long name.
    "RAY_SERVE_HAPROXY_SOCKET_PATH": "{folder}/h.sock",
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "{folder}/haproxy.cfg",
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": "{folder}",
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "{folder}/server-state",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
}
_UVICORN = "uvloop, httptools, no access log, no extra headers; raw bytes; the model runs on the event loop"

PEERS: Mapping[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer(
            OURS,
            "Tritium, native backend",
            "`tritium serve`, supervised, as it comes: one instance of each model, one thread, dynamic batching "
            "without delay, batches of at most 64",
            _tritium("native"),
            _TRITON,
        ),
        Peer(
            "python",
            "Tritium, Python-based backend",
            "the same with `--onnx-backend python`",
            _tritium("python"),
            _TRITON,
        ),
        Peer("fastapi_1", "FastAPI, 1 worker", _UVICORN, _fastapi(1), {"http": _calls.raw}, "fastapi"),
        Peer("fastapi_2", "FastAPI, 2 workers", "the same", _fastapi(2), {"http": _calls.raw}, "fastapi"),
        Peer(
            "litserve",
            "LitServe",
            "`fast_queue`, 2 workers and 2 API servers, uvloop, httptools, no access log; raw bytes; no batching: with "
            "it (one worker, 5 ms) it was slower at 1 and 16 in flight and hardly faster at 64",
            _module("litserve_app"),
            {"http": _calls.raw},
            "litserve",
        ),
        Peer(
            "bentoml",
            "BentoML",
            "2 workers, metrics and access log off; `async` methods, on the event loop; base64 in JSON; not batchable: "
            "that was slower at 1 in flight, and faster at 16 or 64 only by chance",
            _bentoml,
            {"http": _calls.bentoml},
            "bentoml",
            {"BENTOML_DO_NOT_TRACK": "True"},
        ),
        Peer(
            "mlserver",
            "MLServer",
            "no parallel workers; debug, gzip and metrics off; base64 in a BYTES tensor over HTTP, raw FP32 over gRPC",
            _mlserver({}),
            _MLSERVER,
            "mlserver",
        ),
        Peer(
            "mlserver_batching",
            "MLServer, batching",
            "the same with batches of at most 64 after at most 1 ms",
            _mlserver({"max_batch_size": MAX_BATCH_SIZE, "max_batch_time": 0.001}),
            _MLSERVER,
            "mlserver",
        ),
        Peer(
            "ray",
            "Ray Serve",
            "throughput-optimised, HAProxy mode with 2 threads, metrics and access log off; 2 replicas of each model, "
            "`@serve.batch` of at most 64 of what waits; raw bytes",
            _module("ray_app"),
            {"http": _calls.raw},
            "ray",
            _RAY | {"BENCH_BATCH_WAIT_S": "0"},
        ),
        Peer(
            "ray_waiting",
            "Ray Serve, waiting",
            "the same, for which requests wait for at most 1 ms",
            _module("ray_app"),
            {"http": _calls.raw, "grpc": _calls.ray_grpc},
            "ray",
            _RAY | {"BENCH_BATCH_WAIT_S": "0.001"},
        ),
        Peer(
            "pytriton",
            "PyTriton",
            "`@batch`, batches of at most 64 without delay, 2 inference functions for each model, metrics and checks "
            "of the answers off",
            _module("pytriton_app"),
            _TRITON,
            "pytriton",
            # Its Triton loads the interpreter as a library.
            {"LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR"))},
        ),
    )
}
# Tritium's own environment.
OWN_BIN = Path(sys.executable).parent
