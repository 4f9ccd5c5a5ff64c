"""Triton under its supervisor beside Triton alone, cold starts, what memory each model takes, and a full queue.

Prints tables on standard error and one JSON document on standard output; exit code 1 if a target is missed.
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
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks._memory import ALL, KINDS, Sample, look
from benchmarks._overload import LEAST_S, overload, print_overload
from benchmarks._shared import (
    BenchError,
    Model,
    print_columns,
    reference,
    serving,
    spread,
    zoo,
)
from benchmarks._wrk import check, triton_side, wrk

from tritium.client import TritiumError
from tritium.repository import Repository, verify_server
from tritium.server import Supervisor, TritonServer

PARTS = ("throughput", "start", "memory", "overload")
MODELS = ("digits_cnn", "digits_mlp")
LEVELS = (16, 64)
BACKENDS = ("native", "python")
BARE, SUPERVISED = "bare", "supervised"
# What came first, or what the machine did meanwhile, counts for either side alike.
ORDER = (BARE, SUPERVISED, SUPERVISED, BARE)
# Of the requests a second of Triton alone, at least.
TARGET = 0.97


@dataclass(frozen=True)
class Rate:
    """What wrk measured of one side; each is a Triton of its own, and no other is up."""

    round: int
    side: str
    model: str
    connections: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Start:
    """Seconds from `start()` until every model is ready; under a supervisor, until that has all of them in its care."""

    backend: str
    side: str
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-serving", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5, help="of throughput: four servers each")
    parser.add_argument("--duration", type=int, default=5, help="seconds a measurement of throughput")
    parser.add_argument("--starts", type=int, default=7, help="of each backend, with and without a supervisor")
    parser.add_argument("--overload", type=int, default=30, metavar="SECONDS", help="that the queue is kept full")
    options = parser.parse_args()
    if options.overload < LEAST_S:
        parser.error(f"--overload must be {LEAST_S} or more to judge the memory")
    if min(options.rounds, options.duration, options.starts) < 1:
        parser.error("--rounds, --duration and --starts must be 1 or more")
    if "throughput" in options.parts and shutil.which("wrk") is None:
        parser.error("wrk is missing, the load generator: apt-get install wrk")
    document: dict[str, Any] = {"cpus": os.cpu_count()}
    met = True
    try:
        repository = zoo()
        if "throughput" in options.parts:
            rates = throughput(options.rounds, options.duration)
            rows = [compare(rates, model, level) for model in MODELS for level in LEVELS]
            print_rates(rows)
            met = all(row["met"] for row in rows)
            document["throughput"] = {"comparisons": rows, "rates": [asdict(rate) for rate in rates]}
        if "start" in options.parts:
            starts = cold_starts(repository, options.starts)
            print_starts(starts, len(repository.models()))
            document["starts"] = [asdict(start) for start in starts]
        if "memory" in options.parts:
            memory = {backend: memory_of_each(repository, backend) for backend in BACKENDS}
            print_memory(memory)
            document["memory_mb"] = memory
        if "overload" in options.parts:
            document["overload"] = overload(options.overload)
            print_overload(document["overload"])
            met = met and document["overload"]["met"]
    except (BenchError, TritiumError) as exc:
        parser.exit(2, f"{exc}\n")
    print(json.dumps(document, indent=2))
    return 0 if met else 1


def throughput(rounds: int, duration_s: int) -> list[Rate]:
    """Every turn is a server started anew: two of the same kind differ for as long as they live."""
    rates = []
    with tempfile.TemporaryDirectory(prefix="tritium-bench-") as name:
        folder = Path(name)
        models = [reference(model, folder / "models") for model in MODELS]
        for turn in range(rounds):
            print(f"Throughput: round {turn + 1} of {rounds}", file=sys.stderr)
            for side in ORDER:
                rates += measure(turn, side, models, folder, duration_s)
    return rates


def measure(turn: int, kind: str, models: Sequence[Model], folder: Path, duration_s: int) -> list[Rate]:
    rates = []
    with started(kind, models[0].repository, "native") as server:
        side = triton_side(kind, server, models, folder)
        check([side], models)
        for model in models:
            wrk(side, model.name, connections=16, duration_s=1)  # to warm up
            for connections in LEVELS:
                found = wrk(side, model.name, connections, duration_s)
                p50_ms, p99_ms = found["p50_us"] / 1e3, found["p99_us"] / 1e3
                rate = found["requests"] / found["duration_us"] * 1e6
                rates.append(Rate(turn, kind, model.name, connections, rate, p50_ms, p99_ms))
        check([side], models)
    return rates


@contextmanager
def started(kind: str, repository: Path, backend: str) -> Iterator[TritonServer]:
    """A Triton of that kind, and no other backend in the asked one's place."""
    if kind == BARE:
        with serving(repository, backend) as server:
            yield server
    else:
        with Supervisor(TritonServer(repository, onnx_backend=backend)) as supervisor:
            if supervisor.server.onnx_backend != backend:
                raise BenchError(f"Triton was to run the {backend} backend and runs {supervisor.server.onnx_backend}")
            yield supervisor.server


def compare(rates: Sequence[Rate], model: str, connections: int) -> dict[str, Any]:
    """One level: each side's figures, and the median of what supervised is of bare within each round."""
    mine = [rate for rate in rates if (rate.model, rate.connections) == (model, connections)]
    sides = {
        side: {
            measure: spread([getattr(rate, measure) for rate in mine if rate.side == side])
            for measure in ("requests_per_s", "p50_ms", "p99_ms")
        }
        for side in (BARE, SUPERVISED)
    }
    ratios = []
    for turn in dict.fromkeys(rate.round for rate in mine):
        means = {
            side: statistics.mean(rate.requests_per_s for rate in mine if (rate.round, rate.side) == (turn, side))
            for side in (BARE, SUPERVISED)
        }
        ratios.append(means[SUPERVISED] / means[BARE])
    ratio = spread(ratios)
    return {
        "model": model,
        "connections": connections,
        "sides": sides,
        "supervised_over_bare": ratio,
        "target": TARGET,
        "met": ratio["median"] >= TARGET,
    }


def cold_starts(repository: Repository, count: int) -> list[Start]:
    """The whole zoo, its files in the page cache, by each backend, with and without a supervisor, in turns."""
    sides = [(backend, kind) for backend in BACKENDS for kind in (BARE, SUPERVISED)]
    starts = []
    for turn in range(count + 1):
        print(f"Cold starts: {turn} of {count}" if turn else "Cold starts: to warm up", file=sys.stderr)
        first = turn % len(sides)
        for backend, kind in (*sides[first:], *sides[:first]):
            begun = time.perf_counter()
            with started(kind, repository.path, backend):
                seconds = time.perf_counter() - begun
            if turn:
                starts.append(Start(backend, kind, seconds))
    return starts


def memory_of_each(repository: Repository, backend: str) -> dict[str, dict[str, Any]]:
    """Megabytes of a Triton with nothing, and of one with each model alone, when it has answered its golden cases."""
    found: dict[str, dict[str, Any]] = {}
    with serving(repository.path, backend) as server:
        for models in ([], *([model] for model in repository.models())):
            name = models[0] if models else ""
            print(f"\rMemory, {backend}: {name:<24}", end="", file=sys.stderr)
            if failed := server.restart(models):
                raise BenchError(f"{name} does not load: {failed[name]}")
            with server.client() as client:
                for verdict in verify_server(client, repository, models) if models else ():
                    if not verdict.ok:
                        raise BenchError(f"{name} fails its golden cases: {verdict}")
            found[name] = _figures(look(server.pid))
        print(file=sys.stderr)
    return found


def _figures(sample: Sample) -> dict[str, Any]:
    return {kind: dict(sample.mb[kind]) for kind in KINDS} | {"processes": len(sample.mb["rss"]) - 1}


def print_rates(rows: Sequence[Mapping[str, Any]]) -> None:
    print("\nrequests/s median (lowest–highest) and p50 in ms; × is supervised over bare", file=sys.stderr)
    cells = [["model", "under way", BARE, SUPERVISED, "×", f"≥ {TARGET}"]]
    for row in rows:
        ratio, verdict = row["supervised_over_bare"], "met" if row["met"] else "NOT met"
        sides = [
            f"{rate['median']:.0f} ({rate['min']:.0f}–{rate['max']:.0f}) {row['sides'][side]['p50_ms']['median']:.2f}"
            for side in (BARE, SUPERVISED)
            for rate in (row["sides"][side]["requests_per_s"],)
        ]
        times = f"{ratio['median']:.3f} ({ratio['min']:.3f}–{ratio['max']:.3f})"
        cells.append([row["model"], str(row["connections"]), *sides, times, verdict])
    print_columns(cells)


def print_starts(starts: Sequence[Start], models: int) -> None:
    print(f"\ncold start of {models} models, seconds until all are ready, median (lowest–highest)", file=sys.stderr)
    cells = [["", BARE, SUPERVISED]]
    for backend in BACKENDS:
        line = [backend]
        for kind in (BARE, SUPERVISED):
            mine = spread([start.seconds for start in starts if (start.backend, start.side) == (backend, kind)])
            line.append(f"{mine['median']:.2f} ({mine['min']:.2f}–{mine['max']:.2f})")
        cells.append(line)
    print_columns(cells)


def print_memory(memory: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """What a Triton with one model has more than one with none."""
    print("\nmemory of each model alone over a Triton with none, all processes: RSS / PSS in MB", file=sys.stderr)
    cells = [["", *BACKENDS]]
    for name in next(iter(memory.values())):
        line = [name or "(Triton with none)"]
        for backend in BACKENDS:
            mine, none = memory[backend][name], memory[backend][""]
            sizes = [mine[kind][ALL] - (none[kind][ALL] if name else 0.0) for kind in KINDS]
            line.append(f"{sizes[0]:.1f} / {sizes[1]:.1f}")
        cells.append(line)
    print_columns(cells)


if __name__ == "__main__":
    sys.exit(main())
