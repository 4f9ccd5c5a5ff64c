"""`make fuzz`: the native backend with sanitizers in it, under documents, requests and models that mean it no good."""

# ruff: noqa: T201 - a command prints

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from .build import PLANTS, BuildError, build_backend, build_driver, has_sanitizers, sources
from .documents import compare
from .hostile import GOOD_EVERY
from .models import Subject
from .request import FuzzError
from .serving import Asking, FuzzServer, Loading, reached, repository
from .subjects import subjects

# Of all requests, at least so many must come as far as the backend: the others only show that Triton is careful.
REACHED_SHARE = 0.3
_PAIRS_BETWEEN = 10
_SHOWN = 5000


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--documents", type=int, default=200_000, help="for the JSON reader")
    parser.add_argument("--requests", type=int, default=100_000, help="for the models")
    parser.add_argument("--pairs", type=int, default=500, help="of a model and a config, to be loaded")
    parser.add_argument("--first", type=int, default=0, help="the number of the first request and of the first pair")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plant", choices=PLANTS, help="build a bug into a copy of the sources: it must be found")
    options = parser.parse_args()
    if not has_sanitizers():
        parser.exit(2, "There is no g++ with libasan and libubsan; Debian and Ubuntu: apt-get install g++\n")

    made = list(subjects().values())
    with tempfile.TemporaryDirectory(prefix="tritium-fuzz-") as name:
        folder = Path(name)
        try:
            source = sources(folder, options.plant)
            print("Building with AddressSanitizer and UndefinedBehaviorSanitizer")
            failures = []
            if options.documents:
                failures += documents(folder, source, options.documents, options.seed, made)
            if options.requests or options.pairs:
                failures += serve(folder, source, options, made)
        except BuildError as exc:
            parser.exit(2, f"{exc}\n")
    for failure in failures:
        print(f"FAILED: {failure[:_SHOWN]}")
    print("FAILED" if failures else "Nothing was found")
    return 1 if failures else 0


def documents(folder: Path, source: Path, count: int, seed: int, made: Sequence[Subject]) -> list[str]:
    """Give documents to the JSON reader; what is wrong."""
    try:
        accepted, refused = compare(build_driver(folder, source), count, seed, made)
    except FuzzError as exc:
        return [str(exc)]
    print(f"{accepted + refused} documents: {accepted} accepted, {refused} refused, each as Python does")
    return []


def serve(folder: Path, source: Path, options: argparse.Namespace, made: Sequence[Subject]) -> list[str]:
    """Ask and load; what is wrong."""
    backend = build_backend(folder, source)
    with FuzzServer(repository(folder, made), backends=backend.backends, variables=backend.variables) as server:
        asking = Asking(server, made, options.seed)
        loading = Loading(server, made, options.seed)
        started_s = time.monotonic()
        asking.ask(range(options.first, options.first + options.requests))
        print(f"{asking.asked.total() / (time.monotonic() - started_s):.0f} requests per second")
        last = options.first + options.pairs
        for first in range(options.first, last, _PAIRS_BETWEEN):
            loading.load(range(first, min(first + _PAIRS_BETWEEN, last)))
            # Those that were there before go on answering.
            asking.ask(range(first * GOOD_EVERY, (first + len(made)) * GOOD_EVERY, GOOD_EVERY))
        failures = [*asking.failures, *loading.failures]
        if server.alive:
            try:
                counts = reached(server, made)
            except FuzzError as exc:
                return [*failures, str(exc)]
            print("{requests} requests reached the backend; {errors} of them got an error from it".format(**counts))
            print(f"{counts['requests'] - counts['errors']} were answered in {counts['runs']} runs")
            if counts["requests"] < REACHED_SHARE * asking.asked.total():
                failures.append("too few requests reached the backend for the rest to mean much")
        else:
            last_words = "\n".join(server.whole_log().splitlines()[-20:])
            failures.append(f"Triton has ended with exit code {server.wait()}:\n{last_words}")
    print(f"{'requests':<18} {'sent':>8} {'answered':>8}")
    for kind, count in [*sorted(asking.asked.items()), ("all", asking.asked.total())]:
        print(f"{kind:<18} {count:8} {asking.answered[kind] if kind != 'all' else asking.answered.total():8}")
    print(f"{asking.answered['good']} of {asking.asked['good']} good requests were answered, and right")
    loaded, refused = loading.loaded, loading.refused
    print(f"{len(loaded) + len(refused)} pairs: {len(loaded)} loaded, {len(refused)} were refused with a reason")
    reports = backend.found()
    print(f"{len(reports)} reports of the sanitizers")
    return failures + reports


if __name__ == "__main__":
    sys.exit(main())
