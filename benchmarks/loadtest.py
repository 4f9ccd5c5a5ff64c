"""Locust users, one process each: ours, whose answers are checked, beside `FastHttpUser` and `tritonclient.http`.

Prints a table on standard error and one JSON document on standard output; exit code 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks._shared import BenchError, Model, print_columns, reference, serving, spread
from benchmarks._wrk import check, triton_side

from tritium.client import TritiumError
from tritium.loadtest import run_suite
from tritium.repository import Repository
from tritium.server import TritonServer

HERE = Path(__file__).resolve().parent
MODELS = ("digits_mlp", "digits_cnn")
OURS, FAST, TRITON = "tritium", "FastHttpUser", "tritonclient.http"
# What ours is to be of the others' requests a second, at least.
TARGETS = {FAST: 1.25, TRITON: 1.0}
SETTLING_S = 1.0


@dataclass(frozen=True)
class Rate:
    """What one side reached once."""

    round: int
    side: str
    model: str
    requests_per_s: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-loadtest", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration", type=float, default=5.0, help="seconds a measurement")
    parser.add_argument("--users", type=int, default=32)
    options = parser.parse_args()
    if min(options.rounds, options.users) < 1 or options.duration <= 0:
        parser.error("--rounds and --users must be 1 or more, --duration more than 0")
    try:
        rates = measured(options.rounds, options.duration, options.users)
    except (BenchError, TritiumError) as exc:
        parser.exit(2, f"{exc}\n")
    rows = [compare(rates, model, other) for model in MODELS for other in TARGETS]
    print_table(rows, options.users)
    document = {"cpus": os.cpu_count(), "users": options.users, "comparisons": rows, "rates": list(map(asdict, rates))}
    print(json.dumps(document, indent=2))
    return 0 if all(row["met"] for row in rows) else 1


def measured(rounds: int, duration_s: float, users: int) -> list[Rate]:
    """All sides in turns against one server, each round in another order."""
    rates = []
    with tempfile.TemporaryDirectory(prefix="tritium-bench-") as name:
        folder = Path(name)
        models = [reference(model, folder / "models") for model in MODELS]
        with serving(models[0].repository, "native") as server:
            check([triton_side("triton", server, models, folder)], models)
            for turn in range(rounds):
                print(f"round {turn + 1} of {rounds}", file=sys.stderr)
                sides = [OURS, FAST, TRITON]
                for side in sides[turn % 3 :] + sides[: turn % 3]:
                    for model in models:
                        rate = ours if side == OURS else theirs
                        found = rate(side, server, model, folder, duration_s, users)
                        rates.append(Rate(turn, side, model.name, found))
    return rates


def ours(_: str, server: TritonServer, model: Model, __: Path, duration_s: float, users: int) -> float:
    """Right answers a second of the suite that every answer of is checked in."""
    report = run_suite(
        "smoke",
        url=server.http_url,
        repository=Repository(model.repository),
        models=[model.name],
        users=users,
        duration_s=duration_s + SETTLING_S,
    )
    if not report.ok:
        raise BenchError(f"the suite smoke failed at {model.name}: {'; '.join(map(str, report.verdicts))}")
    return report.runs[0].judged.requests_per_s


def theirs(side: str, server: TritonServer, model: Model, folder: Path, duration_s: float, users: int) -> float:
    """Answers a second of another user, which looks at none of them."""
    call = triton_side("triton", server, [model], folder).calls[model.name]
    result = folder / "result.json"
    request = {
        "path": call.path,
        "headers": dict(call.headers),
        "body": str(call.body),
        "model": model.name,
        "input": model.input,
        "output": model.output,
        "row": model.row.tolist(),
        "settling_s": SETTLING_S,
        "duration_s": duration_s,
        "result": str(result),
    }
    file, user_class = ("fast_http", "FastHttp") if side == FAST else ("triton_client", "TritonClient")
    command = [sys.executable, "-m", "locust", "-f", str(HERE / "generators" / f"{file}.py"), "--headless", user_class]
    command += ["--host", server.http_url, "--users", str(users), "--spawn-rate", str(users), "--only-summary"]
    environment = os.environ | {"BENCH_REQUEST": json.dumps(request), "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=duration_s + 60)
    if not result.exists():
        raise BenchError(f"{side} ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    found = json.loads(result.read_text(encoding="utf-8"))
    result.unlink()
    if found["errors"]:
        raise BenchError(f"{side} failed {found['errors']} times at {model.name}")
    return float(found["requests_per_s"])


def compare(rates: Sequence[Rate], model: str, other: str) -> dict[str, Any]:
    """Ours beside another: each side's spread, and the ratio within each round."""
    by_side = {
        side: [rate.requests_per_s for rate in rates if (rate.side, rate.model) == (side, model)]
        for side in (OURS, other)
    }
    ratio = spread([mine / its for mine, its in zip(by_side[OURS], by_side[other], strict=True)])
    return {
        "model": model,
        "other": other,
        "sides": {side: spread(found) for side, found in by_side.items()},
        "ratio": ratio,
        "target": TARGETS[other],
        "met": ratio["median"] >= TARGETS[other],
    }


def print_table(rows: Sequence[Mapping[str, Any]], users: int) -> None:
    print(f"\nrequests/s of one process with {users} users, median (lowest–highest)", file=sys.stderr)
    cells = [["model", "tritium", "other", "", "ratio", "target"]]
    for row in rows:
        mine, its, ratio = row["sides"][OURS], row["sides"][row["other"]], row["ratio"]
        cells.append(
            [
                row["model"],
                *(f"{side['median']:.0f} ({side['min']:.0f}–{side['max']:.0f})" for side in (mine,)),
                row["other"],
                f"{its['median']:.0f} ({its['min']:.0f}–{its['max']:.0f})",
                f"{ratio['median']:.2f} ({ratio['min']:.2f}–{ratio['max']:.2f})",
                f"≥ {row['target']} {'met' if row['met'] else 'NOT met'}",
            ]
        )
    print_columns(cells)


if __name__ == "__main__":
    sys.exit(main())
