"""Tritium's clients beside tritonclient, PyTriton's and KServe's, and bulk beside ONNX Runtime in process, in turns.

Every client is a process of its own; all ask one Triton with the native backend, and every answer is compared with ONNX
Runtime's. Prints tables on standard error and one JSON document on standard output; exit code 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from benchmarks._contenders import BATCH_SIZE
from benchmarks._shared import (
    INPUT,
    OUTPUT,
    Array,
    BenchError,
    Model,
    cnn,
    copied,
    mlp,
    print_columns,
    serving,
    spread,
)
from tests.client.environments import InstallError, environment

from tritium.client import TritiumError
from tritium.exporters.zoo import load_digits

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / "benchmarks/peers"
IN_FLIGHT = 64
WARM_UP_CALLS = 200
TURN_TIMEOUT_S = 300.0
END_TIMEOUT_S = 10.0
BULK_MODEL = "digits_cnn"
# How long an import may take in a process of its own, and whose are measured beside it.
IMPORT_S = 0.35
IMPORTS = ("tritium.client", "tritonclient.http", "tritonclient.grpc")


@dataclass(frozen=True)
class Target:
    """What one side's figure is to be of another's, so many times at most or at least; neither: it is only stated."""

    side: str
    over: str
    measure: str
    at_most: float | None = None
    at_least: float | None = None

    def met(self, reached: float) -> bool:
        """Whether that is good enough."""
        return (self.at_most is None or reached <= self.at_most) and (self.at_least is None or reached >= self.at_least)

    def __str__(self) -> str:
        """As in ``≤ 0.5``."""
        bounds = {"≤": self.at_most, "≥": self.at_least}
        return next((f"{sign} {bound:g}" for sign, bound in bounds.items() if bound is not None), "")


@dataclass(frozen=True)
class Part:
    """Sides that take turns at the same calls.

    Attributes:
        in_flight: how many calls each has under way.
        whole: whether a turn is one call that sends all rows; otherwise it is many calls of one row.
    """

    title: str
    models: Sequence[str]
    sides: Sequence[str]
    targets: Sequence[Target]
    in_flight: int = 1
    whole: bool = False


SYNC = Part(
    "one call at a time",
    ("cnn", "mlp"),
    ("tritium_http", "tritonclient_http", "tritium_grpc", "tritonclient_grpc"),
    (
        Target("tritium_http", "tritonclient_http", "cpu_us", at_most=0.5),
        Target("tritium_http", "tritonclient_http", "p50_us", at_most=0.8),
        Target("tritium_grpc", "tritonclient_grpc", "p50_us", at_most=1.0),
        Target("tritium_grpc", "tritonclient_grpc", "cpu_us"),
    ),
)
ASYNC = Part(
    f"asyncio, {IN_FLIGHT} calls under way",
    ("cnn", "mlp"),
    ("tritium_http_aio", "tritonclient_http_aio", "tritium_grpc_aio", "tritonclient_grpc_aio"),
    (
        Target("tritium_http_aio", "tritonclient_http_aio", "rows_per_s", at_least=1.5),
        Target("tritium_grpc_aio", "tritonclient_grpc_aio", "rows_per_s", at_least=1.0),
        Target("tritium_http_aio", "tritonclient_grpc_aio", "rows_per_s"),
    ),
    in_flight=IN_FLIGHT,
)
PREDICTS = ("predict_http", "predict_grpc", "predict_http_aio", "predict_grpc_aio")
BULK = Part(
    f"20 000 rows in batches of {BATCH_SIZE}",
    (BULK_MODEL,),
    (*PREDICTS, "onnxruntime", "tritonclient_loop"),
    (
        *(Target(side, "onnxruntime", "rows_per_s", at_least=0.85) for side in PREDICTS),
        *(Target(side, "tritonclient_loop", "rows_per_s", at_least=5.0) for side in PREDICTS),
    ),
    whole=True,
)
PARTS: Mapping[str, Part] = {"sync": SYNC, "async": ASYNC, "bulk": BULK}
# Beside the first part, without targets: how each is started, in an environment of its own.
PEER_SIDES: Mapping[str, tuple[str, Sequence[str]]] = {
    "pytriton_http": ("pytriton", ["benchmarks.peers.pytriton_client", "http"]),
    "pytriton_grpc": ("pytriton", ["benchmarks.peers.pytriton_client", "grpc"]),
    "kserve_http": ("kserve", ["benchmarks.peers.kserve_client"]),
}
SECTIONS = ("import", *PARTS, "peers")
MEASURES = ("p50_us", "p99_us", "cpu_us", "rows_per_s")

# Make a side's turn: the model, how many calls, how many of them under way.
Turn = Callable[[str, int, int], dict[str, float]]


@dataclass(frozen=True)
class Timing:
    """What one side took in one round."""

    part: str
    model: str
    side: str
    round: int
    p50_us: float
    p99_us: float
    cpu_us: float
    rows_per_s: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.client", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=3000, help="calls a turn; bulk always sends all its rows")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    options = parser.parse_args()
    if min(options.rounds, options.calls) < 1:
        parser.error("--rounds and --calls must be 1 or more")
    imports = import_times(options.rounds) if "import" in options.only else {}
    chosen = [name for name in PARTS if name in options.only or (name == "sync" and "peers" in options.only)]
    peers = list(PEER_SIDES) if "peers" in options.only else []
    try:
        timings = measure(chosen, peers, options.rounds, options.calls) if chosen else []
    except (BenchError, InstallError, TritiumError) as exc:
        parser.exit(2, f"{exc}\n")
    comparisons = []
    for name in chosen:
        for model in PARTS[name].models:
            mine = [timing for timing in timings if (timing.part, timing.model) == (name, model)]
            print_sides(PARTS[name], model, mine)
            comparisons += [{"part": name, "model": model, **compare(mine, target)} for target in PARTS[name].targets]
    print_comparisons(comparisons)
    light = not imports or statistics.median(imports[IMPORTS[0]]) <= IMPORT_S
    print_imports(imports)
    document = {
        "cpus": os.cpu_count(),
        "versions": versions(),
        "rounds": options.rounds,
        "calls": options.calls,
        "in_flight": {name: PARTS[name].in_flight for name in chosen},
        "import_s": imports,
        "comparisons": comparisons,
        "timings": [asdict(timing) for timing in timings],
    }
    print(json.dumps(document, indent=2))
    return 0 if light and all(row["met"] for row in comparisons) else 1


def import_times(rounds: int) -> dict[str, list[float]]:
    """Seconds of each import, in processes of their own, in turns."""
    code = "import time; begun = time.perf_counter(); import {}; print(time.perf_counter() - begun)"
    times: dict[str, list[float]] = {module: [] for module in IMPORTS}
    for _ in range(rounds):
        for module in IMPORTS:
            command = [sys.executable, "-c", code.format(module)]
            times[module].append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return times


def measure(chosen: Sequence[str], peers: Sequence[str], rounds: int, calls: int) -> list[Timing]:
    """One server for all; of the clients, those of one part are there at once, and take turns within each round."""
    environments = dict.fromkeys(PEER_SIDES[side][0] for side in peers)
    if environments:
        print(f"Environments of {' and '.join(environments)}: a minute if they are new", file=sys.stderr)
    pythons = {name: str(environment(name, PEERS / f"{name}-requirements.txt")) for name in environments}
    timings = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tritium-bench-")))
        print("Making the models and starting the server", file=sys.stderr)
        repository = folder / "models"
        subjects: dict[str, dict[str, Any]] = {}
        if "sync" in chosen or "async" in chosen:
            subjects |= {model.name: single(model) for model in (cnn(repository), mlp(repository))}
        if "bulk" in chosen:
            subjects[BULK_MODEL] = bulk(repository)
        server = stack.enter_context(serving(repository, "native"))
        addresses = {"http": server.http_url, "grpc": server.grpc_url}
        addresses = {protocol: url.partition("://")[2] for protocol, url in addresses.items()}
        for name in chosen:
            part = PARTS[name]
            job = addresses | {"subjects": written({model: subjects[model] for model in part.models}, folder)}
            commands = {side: [sys.executable, "-m", "benchmarks._contenders", side] for side in part.sides}
            if part is SYNC:
                for side, (name_of_environment, module) in PEER_SIDES.items():
                    if side in peers:
                        commands[side] = [pythons[name_of_environment], "-m", *module]
            timings += rounds_of(name, commands, job, rounds, calls, folder)
    return timings


def rounds_of(
    name: str, commands: Mapping[str, Sequence[str]], job: Mapping[str, Any], rounds: int, calls: int, folder: Path
) -> list[Timing]:
    """One part; a round starts with another side each."""
    part, timings, sides = PARTS[name], [], list(commands)
    for number in range(rounds):
        print(f"{part.title}: round {number + 1} of {rounds}", file=sys.stderr)
        first = number % len(sides)
        order = (*sides[first:], *sides[:first])
        # Processes are made anew: two of the same side differ by up to 8 % for as long as they live.
        with ExitStack() as stack:
            turns = {
                side: stack.enter_context(started(side, commands[side], job, folder / f"{side}.log")) for side in order
            }
            for model in part.models:
                for turn in turns.values():
                    turn(model, 1 if part.whole else WARM_UP_CALLS, part.in_flight)
                for side, turn in turns.items():
                    figures = turn(model, 1 if part.whole else calls, part.in_flight)
                    timings.append(Timing(name, model, side, number, **figures))
    return timings


@contextmanager
def started(side: str, command: Sequence[str], job: Mapping[str, Any], log: Path) -> Iterator[Turn]:
    """A side's process, which ends when its standard input does."""
    with (
        log.open("w+") as complaints,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, text=True, cwd=ROOT
        ) as process,
    ):
        # For the type checker: they are pipes.
        assert process.stdin is not None and process.stdout is not None  # noqa: S101
        stdin, stdout = process.stdin, process.stdout

        def send(message: Mapping[str, Any]) -> None:
            stdin.write(json.dumps(message) + "\n")
            stdin.flush()

        def turn(model: str, calls: int, in_flight: int) -> dict[str, float]:
            try:
                send({"model": model, "calls": calls, "in_flight": in_flight})
                ready, _, _ = select.select([stdout], [], [], TURN_TIMEOUT_S)
                line = stdout.readline() if ready else ""
            except BrokenPipeError:
                line = ""
            if not line:
                raise BenchError(f"{side} failed at {model}:\n{log.read_text()[-4000:]}")
            figures: dict[str, float] = json.loads(line)
            return figures

        try:
            send(job)
            yield turn
        finally:
            try:
                stdin.close()
                process.wait(END_TIMEOUT_S)
            except (BrokenPipeError, subprocess.TimeoutExpired):
                process.kill()


def single(model: Model) -> dict[str, Any]:
    """One row, as what a client is told of it."""
    return {
        "file": str(model.file),
        "input": INPUT,
        "output": OUTPUT,
        "rows": model.row,
        "expected": model.expected,
    }


def bulk(repository: Path) -> dict[str, Any]:
    """The trained `digits_cnn`, and all of its digits four times over: raw pixels, which the model scales itself."""
    folder = copied(BULK_MODEL, repository)
    digits = load_digits()
    pixels = np.concatenate([digits.train_pixels, digits.test_pixels]).reshape(-1, 1, 28, 28)
    file = str(folder / "model.onnx")
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    once = [
        session.run(["probabilities"], {"image": pixels[start : start + BATCH_SIZE]})[0]
        for start in range(0, len(pixels), BATCH_SIZE)
    ]
    return {
        "file": file,
        "input": "image",
        "output": "probabilities",
        "rows": np.tile(pixels, (4, 1, 1, 1)),
        "expected": np.tile(np.concatenate(once), (4, 1)),
    }


def written(subjects: Mapping[str, Mapping[str, Any]], folder: Path) -> dict[str, dict[str, str]]:
    """The same with arrays in files, for other processes."""
    return {
        name: {key: _written(value, folder / f"{name}.{key}.npy") for key, value in subject.items()}
        for name, subject in subjects.items()
    }


def compare(timings: Sequence[Timing], target: Target) -> dict[str, Any]:
    """One side over another: the median of what it is in each round, where both had the same moment."""
    sides = {
        side: {timing.round: getattr(timing, target.measure) for timing in timings if timing.side == side}
        for side in (target.side, target.over)
    }
    mine, other = sides[target.side], sides[target.over]
    ratio = spread([mine[number] / other[number] for number in mine])
    return {**asdict(target), "ratio": ratio, "met": target.met(ratio["median"]), "target": str(target)}


def print_sides(part: Part, model: str, timings: Sequence[Timing]) -> None:
    """Each side's figures: medians of the rounds, lowest–highest."""
    print(f"\n{model}, {part.title}", file=sys.stderr)
    measures = MEASURES[2:] if part.whole else MEASURES
    heads = {"p50_us": "p50 µs", "p99_us": "p99 µs", "cpu_us": "client's CPU µs a row", "rows_per_s": "rows/s"}
    cells = [["", *(heads[measure] for measure in measures)]]
    for side in dict.fromkeys(timing.side for timing in timings):
        mine = [timing for timing in timings if timing.side == side]
        cells.append([side, *(_cell([getattr(timing, measure) for timing in mine]) for measure in measures)])
    print_columns(cells)


def print_comparisons(rows: Sequence[Mapping[str, Any]]) -> None:
    """What each target's side is of the other."""
    print(file=sys.stderr)
    cells = [["model", "side", "over", "measure", "times", "target"]]
    for row in rows:
        ratio = row["ratio"]
        times = f"{ratio['median']:.2f} ({ratio['min']:.2f}–{ratio['max']:.2f})"
        verdict = f"{row['target']} {'met' if row['met'] else 'NOT met'}" if row["target"] else ""
        cells.append([row["model"], row["side"], row["over"], row["measure"], times, verdict])
    print_columns(cells)


def print_imports(times: Mapping[str, Sequence[float]]) -> None:
    """Each import's time, and whether ours is short enough."""
    cells = [["import", "seconds"], *([module, _cell(seconds)] for module, seconds in times.items())]
    if times:
        print(file=sys.stderr)
        print_columns(cells)
        verdict = "met" if statistics.median(times[IMPORTS[0]]) <= IMPORT_S else "NOT met"
        print(f"{IMPORTS[0]} ≤ {IMPORT_S:g} s: {verdict}", file=sys.stderr)


def versions() -> dict[str, str]:
    """Of what was compared."""
    pinned = {
        name: re.search(rf"^(?:nvidia-)?{name}==(\S+)$", (PEERS / f"{name}-requirements.txt").read_text(), re.MULTILINE)
        for name in ("pytriton", "kserve")
    }
    ours = {name: version(name) for name in ("tritium", "tritonclient", "numpy", "grpcio", "aiohttp", "gevent")}
    peers = {name: found[1] for name, found in pinned.items() if found}
    return {"python": sys.version.split()[0], "onnxruntime": ort.__version__, **ours, **peers}


def _written(value: str | Array, file: Path) -> str:
    if isinstance(value, str):
        return value
    np.save(file, value)
    return str(file)


def _cell(values: Sequence[float]) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.4g} ({low:.4g}–{high:.4g})" if high < 10_000 else f"{middle:.0f} ({low:.0f}–{high:.0f})"


if __name__ == "__main__":
    sys.exit(main())
