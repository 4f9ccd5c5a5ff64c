"""Dynamic batching on and off, side by side: the same model, the same load, in turns."""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tritium.client import InputError
from tritium.repository import Repository, config_text
from tritium.server import TritonServer

from ._result import LoadResult
from ._run import run_suite


@dataclass(frozen=True)
class BatchingResult:
    """One side of the comparison.

    Attributes:
        batching: whether dynamic batching was on.
        rounds: what the clients saw, a result a round.
        batch_sizes: how many times the server ran the model with a batch of each size, over all rounds.
    """

    batching: bool
    rounds: Sequence[LoadResult]
    batch_sizes: dict[int, int]

    @property
    def requests_per_s(self) -> float:
        """Median of the rounds."""
        return statistics.median(result.requests_per_s for result in self.rounds)

    @property
    def p50_ms(self) -> float:
        """Median of the rounds."""
        return statistics.median(result.p50_ms for result in self.rounds)

    @property
    def p99_ms(self) -> float:
        """Median of the rounds."""
        return statistics.median(result.p99_ms for result in self.rounds)

    @property
    def mean_batch_size(self) -> float:
        """Rows a run of the model."""
        runs = sum(self.batch_sizes.values())
        return sum(size * count for size, count in self.batch_sizes.items()) / runs if runs else 0.0


def compare_batching(
    repository: str | Path | Repository,
    model: str,
    *,
    users: int = 16,
    duration_s: float = 5.0,
    rounds: int = 3,
    protocol: str = "http",
) -> tuple[BatchingResult, BatchingResult]:
    """Serve a model twice, with and without dynamic batching, and load both in turns with single rows.

    Returns:
        The result with dynamic batching, and the one without.
    """
    source = repository if isinstance(repository, Repository) else Repository(repository)
    if protocol not in ("http", "grpc"):
        raise InputError(f"The 'protocol' parameter must be 'http' or 'grpc', got {protocol!r} instead")
    if rounds < 1 or users < 1:
        raise InputError(f"The comparison needs rounds and users of 1 or more, got rounds {rounds} and users {users}")
    sides = (True, False)
    results: dict[bool, list[LoadResult]] = {side: [] for side in sides}
    sizes: dict[bool, Counter[int]] = {side: Counter() for side in sides}
    with ExitStack() as stack:
        servers = {}
        for side in sides:
            served = stack.enter_context(_with_batching(source, model, side))
            servers[side] = stack.enter_context(TritonServer(served.path))
        # Both are up all the time, so neither is warmer than the other.
        for _ in range(rounds):
            for side in sides:
                server = servers[side]
                url = server.http_url if protocol == "http" else server.grpc_url
                before = _batch_sizes(server, model)
                results[side].append(
                    run_suite("smoke", url=url, repository=source, models=[model], users=users, duration_s=duration_s)
                )
                sizes[side] += _batch_sizes(server, model) - before
    on, off = (BatchingResult(side, results[side], dict(sorted(sizes[side].items()))) for side in sides)
    return on, off


@contextmanager
def _with_batching(source: Repository, model: str, batching: bool) -> Iterator[Repository]:
    """A copy of one model's latest version, with dynamic batching switched on or off in its config."""
    config = source.config(model)
    if batching:
        config.dynamic_batching.SetInParent()
    else:
        config.ClearField("dynamic_batching")
    version = source.version_folder(model)
    with tempfile.TemporaryDirectory(prefix="tritium-batching-") as folder:
        target = Path(folder) / model
        shutil.copytree(version, target / version.name)
        for extra in (source.path / model).iterdir():
            if extra.is_file():
                shutil.copy2(extra, target)
        (target / "config.pbtxt").write_text(config_text(config), encoding="utf-8")
        yield Repository(folder)


def _batch_sizes(server: TritonServer, model: str) -> Counter[int]:
    """How many times the server has run the model with a batch of each size."""
    with server.client() as client:
        stats = client.model(model).statistics()["model_stats"]
    return Counter(
        {
            int(batch["batch_size"]): int(batch["compute_infer"]["count"])
            for version in stats
            for batch in version.get("batch_stats", ())
        }
    )
