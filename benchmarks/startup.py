"""Fifteen small ONNX models: from `tritium serve` to ready, and what memory that takes, by either backend in turns.

Prints a table on standard error and one JSON document on standard output; exit code 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import IO, Any

import psutil
from benchmarks._shared import BenchError, Model, cnn, free_port, mlp

from tritium.client import Client, TritiumError

BACKENDS = ("native", "python")
CNNS, MLPS = 8, 7
# For the native backend. By the document that `serve` prints, not by Triton's readiness, which comes a little earlier;
# and by resident memory summed, which counts shared pages once for each process.
TARGETS = {"announced_s": 1.5, "rss_mb": 250.0}
TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Start:
    """One start, from the command's execution on.

    Attributes:
        ready_s: until Triton says over HTTP that every model is ready.
        announced_s: until `serve` has printed its JSON document.
        processes: how many there are: the command itself, Triton and what Triton started.
        rss_mb: their resident memory, summed, when every model has answered once; 1 MB is 1 000 000 bytes.
        pss_mb: the same with each shared page divided among those that share it, other programs included.
    """

    backend: str
    ready_s: float
    announced_s: float
    processes: int
    rss_mb: float
    pss_mb: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.startup", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error("--repeats must be 1 or more")
    try:
        starts = measure(options.repeats)
    except (BenchError, TritiumError) as exc:
        parser.exit(2, f"{exc}\n")
    medians = {backend: _medians([start for start in starts if start.backend == backend]) for backend in BACKENDS}
    met = {measure: medians["native"][measure] <= target for measure, target in TARGETS.items()}
    print_table(medians)
    for figure, target in TARGETS.items():
        print(f"native {figure} ≤ {target:g}: {'met' if met[figure] else 'NOT met'}", file=sys.stderr)
    document = {
        "models": CNNS + MLPS,
        "cpus": os.cpu_count(),
        "medians": medians,
        "targets": TARGETS,
        "met": met,
        "starts": [asdict(start) for start in starts],
    }
    print(json.dumps(document, indent=2))
    return 0 if all(met.values()) else 1


def measure(repeats: int) -> list[Start]:
    with tempfile.TemporaryDirectory(prefix="tritium-bench-") as name:
        folder = Path(name)
        print("Making the models", file=sys.stderr)
        models = [cnn(folder / "models", f"cnn_{seed}", seed=seed) for seed in range(CNNS)]
        models += [mlp(folder / "models", f"mlp_{seed}", seed=seed) for seed in range(MLPS)]
        for backend in BACKENDS:
            start(backend, models, folder)  # so that all that is read from the disk is in memory
        starts = []
        for turn in range(repeats):
            print(f"Round {turn + 1} of {repeats}", file=sys.stderr)
            starts += [start(backend, models, folder) for backend in BACKENDS]
        return starts


def start(backend: str, models: Sequence[Model], folder: Path) -> Start:
    """Start the command as a user does, ask every model once, look at the memory, stop it."""
    port = free_port()
    begun = time.perf_counter()
    with serving(backend, models[0].repository, port, folder / "serve.log") as process:
        while not _says_ready(port):
            if process.poll() is not None or time.perf_counter() - begun > TIMEOUT_S:
                raise BenchError(f"`tritium serve` was not ready:\n{(folder / 'serve.log').read_text()}")
            time.sleep(0.005)
        ready_s = time.perf_counter() - begun
        url = _document(process.stdout)["http_url"]
        announced_s = time.perf_counter() - begun
        with Client(url) as client:
            for model in models:
                model.check(client.model(model.name)(model.row), backend)
        tree = psutil.Process(process.pid)
        memory = [process.memory_full_info() for process in (tree, *tree.children(recursive=True))]
        rss_mb, pss_mb = (sum(getattr(item, kind) for item in memory) / 1e6 for kind in ("rss", "pss"))
        return Start(backend, ready_s, announced_s, len(memory), rss_mb, pss_mb)


@contextmanager
def serving(backend: str, repository: Path, port: int, log: Path) -> Iterator[subprocess.Popen[str]]:
    command = [str(Path(sys.executable).with_name("tritium")), "serve", "--json", "--repository", str(repository)]
    command += ["--onnx-backend", backend, "--http-port", str(port), "--grpc-port", "0", "--metrics-port", "0"]
    with (
        log.open("w") as complaints,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=complaints, text=True, start_new_session=True
        ) as process,
    ):
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def print_table(medians: dict[str, dict[str, float]]) -> None:
    figures = list(medians["native"])
    cells = [["", *figures], *([side, *(f"{mine[name]:.4g}" for name in figures)] for side, mine in medians.items())]
    for line in cells:
        print("  ".join(f"{cell:<12}" for cell in line).rstrip(), file=sys.stderr)


def _document(output: IO[str] | None) -> Any:
    """The first JSON document of an output that stays open: it ends where a line is a closing brace."""
    lines = []
    for line in output or ():
        lines.append(line)
        if line == "}\n":
            break
    return json.loads("".join(lines))


def _says_ready(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _medians(starts: Sequence[Start]) -> dict[str, float]:
    names = [field.name for field in fields(Start) if field.name != "backend"]
    return {name: statistics.median(getattr(start, name) for start in starts) for name in names}


if __name__ == "__main__":
    sys.exit(main())
