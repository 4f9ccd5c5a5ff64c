"""The main job, end to end, on real digits: train, export, verify, publish, serve, call, load-test.

`make demo` runs it. Everything it does goes through what the packages publish.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tritium.client import Client
from tritium.exporters.zoo import Built, build, load_digits
from tritium.loadtest import LoadReport, run_suite
from tritium.repository import Repository, Verdict, verify_server
from tritium.server import TritonServer

REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository"
STARTED = time.monotonic()
DIGITS = ("digits_cnn", "digits_mlp", "digits_svm")
SHOWN_DIGITS = 12
USERS, LOAD_S = 16, 12.0


def step(text: str) -> None:
    print(f"[{time.monotonic() - STARTED:5.1f} s] {text}", flush=True)


def predictions(client: Client) -> dict[str, list[int]]:
    """The digit that each model sees in the first held-out images."""
    pixels = load_digits().test_pixels[:SHOWN_DIGITS]
    cnn = client.model("digits_cnn")(pixels.reshape(-1, 1, 28, 28))
    mlp = client.model("digits_mlp")(pixels)
    svm = client.model("digits_svm")(pixels, outputs=["label"])
    return {
        "digits_cnn": np.argmax(cnn, axis=1).tolist(),
        "digits_mlp": np.argmax(mlp, axis=1).tolist(),
        "digits_svm": np.ravel(svm).tolist(),
    }


def main() -> int:
    repository = Repository(REPOSITORY, create=True)
    built = []
    for name in DIGITS:
        step(f"train, export, verify and publish {name}")
        built.append(build(name, repository, progress=lambda line: print(f"          {line}", flush=True)))

    step("serve them with Triton")
    seen: dict[str, dict[str, list[int]]] = {}
    verdicts: list[tuple[str, Verdict]] = []
    with TritonServer(repository.path, models=DIGITS, progress=step) as server:
        for protocol in ("http", "grpc"):
            step(f"call them over {protocol}")
            with server.client(protocol=protocol) as client:
                verdicts += [(protocol, verdict) for verdict in verify_server(client, repository, DIGITS)]
                seen[protocol] = predictions(client)

    step("load digits_cnn with dynamic batching off and on, with several delays, in turns")
    load = run_suite("batching", repository=repository, models=["digits_cnn"], users=USERS, duration_s=LOAD_S)
    step("done")
    summary(built, verdicts, seen, load)
    right = all(verdict.ok for _, verdict in verdicts) and seen["http"] == seen["grpc"]
    return 0 if right and load.ok else 1


def summary(
    built: list[Built],
    verdicts: list[tuple[str, Verdict]],
    seen: dict[str, dict[str, list[int]]],
    load: LoadReport,
) -> None:
    data = built[0].manifest.data
    print(
        f"\nModels, trained on {data['train_rows']} digits of {data['name']}, "
        f"measured on {data['held_out_rows']} others"
    )
    for model in built:
        state = "built now" if model.fresh else "was up to date"
        print(
            f"  {model.model.name}  version {model.version} ({state}), {model.model.path}: "
            f"accuracy {model.manifest.metrics['accuracy']:.1%}; {model.manifest.parity_text()}"
        )

    print("\nGolden cases through Triton")
    for protocol, verdict in verdicts:
        print(f"  {protocol}  {verdict}")

    print("\nPredictions beside truths (the first held-out digits)")
    print(f"  {'truth':<18}{' '.join(map(str, load_digits().test_labels[:SHOWN_DIGITS]))}")
    for protocol, models in seen.items():
        for name, digits in models.items():
            print(f"  {name} {protocol:<7}{' '.join(map(str, digits))}")

    print(f"\ndigits_cnn under load: Locust over HTTP, {USERS} requests under way, one row each, every answer checked")
    print("  (medians of the rounds; Locust and Triton share the processor)")
    print(
        f"  {'delay':<10}{'requests/s':>11}{'p50 ms':>9}{'p99 ms':>9}{'errors':>8}{'mean batch':>12}  batches by size"
    )
    for level in load.levels:
        errors = sum(found.errors for found in level.rounds)
        batches = (f"{level.work.mean_batch_size:>12.2f}", spread(level.work.batch_sizes)) if level.work else ()
        print(
            f"  {level.name.removeprefix('digits_cnn.'):<10}{level.median('requests_per_s'):>11.0f}"
            f"{level.median('p50_ms'):>9.2f}{level.median('p99_ms'):>9.2f}{errors:>8}{'  '.join(batches)}"
        )


def spread(sizes: Mapping[int, int]) -> str:
    """The shares of the model's runs by batch size, as in ``1: 36%, 2-3: 20%, 4-7: 38%``."""
    total = sum(sizes.values())
    shares = []
    low = 1
    while low <= max(sizes, default=0):
        high = 2 * low - 1
        count = sum(runs for size, runs in sizes.items() if low <= size <= high)
        if count:
            share = f"{count / total:.0%}" if count / total >= 0.005 else "<1%"
            shares.append(f"{low if low == high else f'{low}-{high}'}: {share}")
        low *= 2
    return ", ".join(shares)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("Stopped")
