"""The server's side of a run: its statistics and its processes, looked at twice a second from outside."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tritium.client import Client, MissingExtraError, TritiumError

try:
    import psutil
except ModuleNotFoundError as exc:
    raise MissingExtraError("psutil", "loadtest") from exc

_EVERY_S = 0.5


@dataclass(frozen=True)
class Work:
    """What a server did for a model, or for several.

    Attributes:
        requests: answered.
        rows: in them.
        executions: runs of the model.
        queue_ms: that a request waited in the queue, on average.
        compute_ms: that the run of a request's batch took, copies included, on average.
        batch_sizes: how many times the model ran with a batch of each size.
    """

    requests: int = 0
    rows: int = 0
    executions: int = 0
    queue_ms: float = 0.0
    compute_ms: float = 0.0
    batch_sizes: Mapping[int, int] = field(default_factory=dict)

    @property
    def mean_batch_size(self) -> float:
        """Rows a run of the model."""
        return self.rows / self.executions if self.executions else 0.0


@dataclass(frozen=True)
class Look:
    """What was seen at one moment.

    Attributes:
        at_s: the moment, in seconds of Unix time.
        counts: of each model that the server has, its counters since it was loaded.
        cpu_s: processor time that the server's processes have taken so far; None where nobody could look.
        memory_bytes: resident memory of all of them; None where nobody could look.
        processes: how many there are.
    """

    at_s: float
    counts: Mapping[str, Mapping[str, int]]
    cpu_s: float | None = None
    memory_bytes: int | None = None
    processes: int = 0


class Observer:
    """Looks at a server twice a second, from a thread of its own.

    Args:
        client: the server.
        pid: its process, if it runs on this machine.
    """

    def __init__(self, client: Client, pid: int | None) -> None:
        self._client = client
        self._pid = pid
        self.looks: list[Look] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look as long as this lasts; once at its begin, and once at its end."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(_EVERY_S):
                self.look()

        self.look()
        thread = threading.Thread(target=watch, name="tritium-observer", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.look()

    def look(self) -> None:
        """Look once. A server that does not answer just now is looked at again the next time."""
        with suppress(TritiumError):
            stats = self._client.statistics()["model_stats"]
            counts = {name: _counts([item for item in stats if item["name"] == name]) for name in _names(stats)}
            self.looks.append(Look(time.time(), counts, *_processes(self._pid)))


def work(looks: Sequence[Look], begin_s: float, end_s: float, models: Sequence[str] = ()) -> Work | None:
    """What was done between two moments, to the nearest looks; None if nobody looked twice.

    Args:
        looks: by time.
        begin_s: the first moment, in seconds of Unix time.
        end_s: the second.
        models: whose work; all if empty.
    """
    if len(looks) < 2:
        return None
    first, last = nearest(looks, begin_s), nearest(looks, end_s)
    total: Counter[str] = Counter()
    seen = dict(first.counts)
    for look in looks[looks.index(first) + 1 : looks.index(last) + 1]:
        for model, counts in look.counts.items():
            before = seen.get(model, {})
            seen[model] = counts
            if models and model not in models:
                continue
            # A model that was loaded anew in between counts from nothing.
            anew = any(counts.get(key, 0) < count for key, count in before.items())
            total.update({key: count - (0 if anew else before.get(key, 0)) for key, count in counts.items()})
    requests = total["requests"]
    return Work(
        requests=requests,
        rows=total["rows"],
        executions=total["executions"],
        queue_ms=total["queue_ns"] / requests / 1e6 if requests else 0.0,
        compute_ms=total["compute_ns"] / requests / 1e6 if requests else 0.0,
        batch_sizes={
            int(key.removeprefix("batch ")): count
            for key, count in sorted(total.items(), key=lambda item: (len(item[0]), item[0]))
            if key.startswith("batch ") and count
        },
    )


def nearest(looks: Sequence[Look], at_s: float) -> Look:
    """The look nearest to a moment."""
    return min(looks, key=lambda look: abs(look.at_s - at_s))


def together(works: Sequence[Work]) -> Work | None:
    """What was done in several times together; None if there are none."""
    if not works:
        return None
    requests = sum(item.requests for item in works)
    sizes: Counter[int] = Counter()
    for item in works:
        sizes.update(item.batch_sizes)
    return Work(
        requests=requests,
        rows=sum(item.rows for item in works),
        executions=sum(item.executions for item in works),
        queue_ms=sum(item.queue_ms * item.requests for item in works) / requests if requests else 0.0,
        compute_ms=sum(item.compute_ms * item.requests for item in works) / requests if requests else 0.0,
        batch_sizes=dict(sorted(sizes.items())),
    )


def server_process(url: str) -> int | None:
    """The process of this machine that listens where a URL says; None if there is none that one may see."""
    host, _, port = url.partition("://")[2].rpartition(":")
    if host.strip("[]") not in ("127.0.0.1", "localhost", "::1") or not port.isdigit():
        return None
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            address = connection.laddr
            if connection.status == psutil.CONN_LISTEN and address and address.port == int(port):
                return connection.pid
    return None


def _names(stats: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(item["name"] for item in stats))


def _counts(versions: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """A model's counters, over all of its versions."""
    total: Counter[str] = Counter()
    for item in versions:
        spent = item.get("inference_stats", {})
        total["requests"] += int(spent.get("success", {}).get("count", 0))
        total["queue_ns"] += int(spent.get("queue", {}).get("ns", 0))
        total["compute_ns"] += sum(
            int(spent.get(f"compute_{part}", {}).get("ns", 0)) for part in ("input", "infer", "output")
        )
        total["rows"] += int(item.get("inference_count", 0))
        total["executions"] += int(item.get("execution_count", 0))
        for batch in item.get("batch_stats", ()):
            total[f"batch {batch['batch_size']}"] += int(batch["compute_infer"]["count"])
    return dict(total)


def _processes(pid: int | None) -> tuple[float | None, int | None, int]:
    """Processor time and memory of a process and all below it, and how many they are."""
    if pid is None:
        return None, None, 0
    cpu_s, memory_bytes, count = 0.0, 0, 0
    with suppress(psutil.Error):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with suppress(psutil.Error):
                times = process.cpu_times()
                cpu_s += times.user + times.system
                memory_bytes += process.memory_info().rss
                count += 1
    return (cpu_s, memory_bytes, count) if count else (None, None, 0)
