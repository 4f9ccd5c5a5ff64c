"""Dynamic batching on and off, in turns in one run, over both protocols. Prints one JSON document."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from tritium.exporters.zoo import build
from tritium.loadtest import compare_batching
from tritium.repository import Repository

REPOSITORY = Path(__file__).resolve().parents[1] / "model_repository"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="digits_cnn")
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--duration", type=float, default=5.0, help="seconds a round")
    options = parser.parse_args()
    repository = Repository(REPOSITORY)
    build(options.model, repository, progress=lambda line: print(line, file=sys.stderr))
    sides = []
    for protocol in ("http", "grpc"):
        for side in compare_batching(
            repository,
            options.model,
            users=options.users,
            rounds=options.rounds,
            duration_s=options.duration,
            protocol=protocol,
        ):
            medians = {
                "requests_per_s": side.requests_per_s,
                "p50_ms": side.p50_ms,
                "p99_ms": side.p99_ms,
                "mean_batch_size": side.mean_batch_size,
            }
            sides.append({"protocol": protocol, "medians": medians, **asdict(side)})
            rounded = {key: round(value, 2) for key, value in medians.items()}
            print(f"{protocol} batching {'on ' if side.batching else 'off'} {rounded}", file=sys.stderr)
    print(
        json.dumps({"model": options.model, "users": options.users, "cpus": os.cpu_count(), "sides": sides}, indent=2)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
