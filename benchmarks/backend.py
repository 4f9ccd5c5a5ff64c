"""Tritium's native and Python-based ONNX Runtime backends beside FastAPI, in turns in one run, loaded by wrk.

Prints a table on standard error and one JSON document on standard output; exit code 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPException, HTTPResponse
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import psutil
from benchmarks._shared import (
    MODELS,
    Array,
    BenchError,
    Model,
    free_port,
    print_columns,
    serving,
    spread,
)
from benchmarks._wrk import HERE, HOST, Call, Side, ask, check, triton_side, wrk

from tritium.client import TritiumError
from tritium.server._log import ServerLog
from tritium.server._process import BoundProcess

LEVELS = (1, 16, 64)
# Over FastAPI, by the model and the requests under way: p50 at most, or throughput at least, so many times its own.
TARGETS = {
    ("cnn", 1): ("p50_ms", 0.65),
    ("cnn", 16): ("requests_per_s", 1.35),
    ("cnn", 64): ("requests_per_s", 1.4),
    ("mlp", 1): ("p50_ms", 0.85),
    ("mlp", 16): ("requests_per_s", 1.5),
    ("mlp", 64): ("requests_per_s", 1.7),
}
# Of one core, on average, for all the servers that are up but not asked. More, and they would disturb the one that is.
IDLE_SHARE = 0.03


@dataclass(frozen=True)
class Timing:
    """What wrk measured of one side in one round."""

    model: str
    connections: int
    side: str
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    idle_share: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.backend", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--duration", type=int, default=3, help="seconds a measurement")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    options = parser.parse_args()
    if min(options.rounds, options.duration) < 1:
        parser.error("--rounds and --duration must be 1 or more")
    if shutil.which("wrk") is None:
        parser.error("wrk is missing, the load generator: apt-get install wrk")
    try:
        timings = measure(options.models, options.rounds, options.duration)
    except (BenchError, TritiumError) as exc:
        parser.exit(2, f"{exc}\n")
    rows = [compare(timings, model, connections) for model in options.models for connections in LEVELS]
    print_table(rows)
    idle_share = statistics.mean(timing.idle_share for timing in timings)
    quiet = "" if idle_share <= IDLE_SHARE else f": too much, at most {IDLE_SHARE:.0%} may disturb the others"
    print(f"Servers up but not asked take {idle_share:.1%} of one core{quiet}", file=sys.stderr)
    document = {
        "cpus": os.cpu_count(),
        "versions": {
            "onnxruntime": ort.__version__,
            **{name: version(name) for name in ("fastapi", "httptools", "uvicorn", "uvloop")},
        },
        "rounds": options.rounds,
        "duration_s": options.duration,
        "idle_share": idle_share,
        "comparisons": rows,
        "timings": [asdict(timing) for timing in timings],
    }
    print(json.dumps(document, indent=2))
    return 0 if idle_share <= IDLE_SHARE and all(row["met"] for row in rows) else 1


def measure(names: Sequence[str], rounds: int, duration_s: int) -> list[Timing]:
    """All servers are up at once, so that they take turns within each round; a round starts with another one each."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tritium-bench-")))
        print("Making the models and starting the servers", file=sys.stderr)
        models = [MODELS[name](folder / "models") for name in names]
        sides = [stack.enter_context(triton(backend, models, folder)) for backend in ("native", "python")]
        sides += [stack.enter_context(fastapi(workers, models, folder)) for workers in (1, 2)]
        check(sides, models)
        for side in sides:
            for name in names:
                wrk(side, name, connections=16, duration_s=1)  # to warm up
        timings = []
        for turn in range(rounds):
            print(f"Round {turn + 1} of {rounds}", file=sys.stderr)
            first = turn % len(sides)
            timings += [
                timed(side, sides, name, connections, duration_s)
                for name in names
                for connections in LEVELS
                for side in (*sides[first:], *sides[:first])
            ]
        check(sides, models)
        return timings


@contextmanager
def triton(backend: str, models: Sequence[Model], folder: Path) -> Iterator[Side]:
    with serving(models[0].repository, backend) as server:
        yield triton_side(backend, server, models, folder)


@contextmanager
def fastapi(workers: int, models: Sequence[Model], folder: Path) -> Iterator[Side]:
    name = f"fastapi_{workers}"
    port = free_port()
    flags = {"app-dir": HERE / "peers", "host": HOST, "port": port, "workers": workers}
    # Nothing that it need not do: no header that nobody reads, no line for each request.
    flags |= {"loop": "uvloop", "http": "httptools", "lifespan": "off", "ws": "none", "log-level": "warning"}
    switches = ["--no-access-log", "--no-server-header", "--no-date-header", "--no-proxy-headers"]
    served = [{"path": f"/{model.name}", "file": str(model.file), "shape": model.row.shape} for model in models]
    process = BoundProcess(
        [sys.executable, "-m", "uvicorn", "fastapi_app:app", *switches, *(f"--{k}={v}" for k, v in flags.items())],
        env=os.environ | {"BENCH_MODELS": json.dumps(served)},
        folder=folder,
        log=ServerLog(folder / f"{name}.log"),
    )
    side = Side(name, port, process.pid, {model.name: _raw_call(model, folder) for model in models})
    try:
        deadline = time.monotonic() + 60
        while not _answers(side, models[0]):
            if process.exit_code() is not None or time.monotonic() > deadline:
                raise BenchError("\n".join([f"{name} does not start:", *process.tail]))
            process.wait(0.1)
        yield side
    finally:
        process.stop(10)


def timed(side: Side, sides: Sequence[Side], model: str, connections: int, duration_s: int) -> Timing:
    idle = [other.pid for other in sides if other is not side]
    before = sum(map(_cpu_s, idle))
    found = wrk(side, model, connections, duration_s)
    idle_share = (sum(map(_cpu_s, idle)) - before) / duration_s
    seconds = found["duration_us"] / 1e6
    p50_ms, p99_ms = found["p50_us"] / 1e3, found["p99_us"] / 1e3
    return Timing(model, connections, side.name, found["requests"] / seconds, p50_ms, p99_ms, idle_share)


def compare(timings: Sequence[Timing], model: str, connections: int) -> dict[str, Any]:
    """The sides at one level: medians and spread, what native is of the others, and whether that is the target."""
    measures = ("requests_per_s", "p50_ms", "p99_ms")
    sides: dict[str, dict[str, dict[str, float]]] = {}
    for side in dict.fromkeys(timing.side for timing in timings):
        mine = [item for item in timings if (item.model, item.connections, item.side) == (model, connections, side)]
        sides[side] = {measure: spread([getattr(timing, measure) for timing in mine]) for measure in measures}
    measure, factor = TARGETS[model, connections]
    # The better of one and of two workers counts, at each level by what the target there is about.
    better = min if measure == "p50_ms" else max
    peers = {side: figures[measure]["median"] for side, figures in sides.items() if side.startswith("fastapi")}
    best = better(peers, key=lambda side: peers[side])
    ratios = {
        other: {measure: sides["native"][measure]["median"] / sides[other][measure]["median"] for measure in measures}
        for other in ("python", best)
    }
    reached = ratios[best][measure]
    return {
        "model": model,
        "connections": connections,
        "sides": sides,
        "native_over": ratios,
        "target": {"over": best, "measure": measure, "at_most" if measure == "p50_ms" else "at_least": factor},
        "met": reached <= factor if measure == "p50_ms" else reached >= factor,
    }


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Requests per second with their spread, and p50, of each side; then what native is of the others."""
    print("requests/s median (lowest–highest) and p50 in ms; × is native over the other", file=sys.stderr)
    cells = [["model", "under way", *rows[0]["sides"], "× python", "× fastapi", "target"]]
    for row in rows:
        measure = row["target"]["measure"]
        python, best = row["native_over"]
        bound = f"≤ {row['target']['at_most']}" if "at_most" in row["target"] else f"≥ {row['target']['at_least']}"
        cells.append(
            [
                row["model"],
                str(row["connections"]),
                *map(_cell, row["sides"].values()),
                *(f"{row['native_over'][other][measure]:.2f}" for other in (python, best)),
                f"{'p50' if measure == 'p50_ms' else 'rate'} {bound} {'met' if row['met'] else 'NOT met'}",
            ]
        )
    print_columns(cells)


def _cell(side: Mapping[str, Mapping[str, float]]) -> str:
    rate = side["requests_per_s"]
    return f"{rate['median']:.0f} ({rate['min']:.0f}–{rate['max']:.0f}) {side['p50_ms']['median']:.2f}"


def _raw_call(model: Model, folder: Path) -> Call:
    file = folder / f"{model.name}.raw"
    file.write_bytes(model.row.tobytes())
    return Call(f"/{model.name}", {"Content-Type": "application/octet-stream"}, file, _read_raw)


def _read_raw(response: HTTPResponse) -> Array:
    return np.frombuffer(response.read(), np.float32).reshape(1, -1)


def _answers(side: Side, model: Model) -> bool:
    try:
        ask(side, model.name)
    except (OSError, HTTPException):
        return False
    return True


def _cpu_s(pid: int) -> float:
    """Processor time that a process and all below it have taken so far."""
    parent = psutil.Process(pid)
    times = [process.cpu_times() for process in (parent, *parent.children(recursive=True))]
    return float(sum(time.user + time.system for time in times))


if __name__ == "__main__":
    sys.exit(main())
