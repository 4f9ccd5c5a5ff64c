"""The requests of a run, a column for each thing that is known of them.

Every single one is kept, in about twenty bytes: no figure of a run is a mean of means or a bucket's edge, and whatever
a report asks for can still be answered when the run is over.
"""

from __future__ import annotations

import enum
import json
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Of each error the first line, and of errors so many kinds.
_KEPT_ERRORS = 50


class Outcome(enum.IntEnum):
    """What became of a request."""

    RIGHT = 0
    # It was answered, but not with the golden outputs.
    WRONG = 1
    # The server said that it has too much to do.
    REJECTED = 2
    TIMED_OUT = 3
    FAILED = 4


# What is kept of each request, and how.
_COLUMNS = {"due_s": "f", "latency_ms": "f", "late_ms": "f", "rows": "I", "model": "H", "outcome": "B"}


class Recorder:
    """Takes note of requests as they end, and gives away what it has when it is asked.

    Cheap enough to stand in the way of every request: six appends.
    """

    def __init__(self) -> None:
        self._models: dict[str, int] = {}
        self._start()

    def _start(self) -> None:
        self._columns: list[array[Any]] = [array(code) for code in _COLUMNS.values()]
        self._errors: Counter[str] = Counter()

    def add(
        self,
        model: str,
        outcome: Outcome,
        *,
        due_s: float,
        latency_ms: float,
        late_ms: float = 0.0,
        rows: int = 1,
        error: str = "",
    ) -> None:
        """One request.

        Args:
            model: what was asked.
            outcome: what became of it.
            due_s: when it was to be sent, in seconds from the run's begin.
            latency_ms: from when it was due to its answer.
            late_ms: how much later than that it was sent.
            rows: golden cases in it.
            error: what was wrong; its first line is kept.
        """
        number = self._models.setdefault(model, len(self._models))
        # One by one: a loop would take twice as long.
        dues, latencies, lates, counts, models, outcomes = self._columns
        dues.append(due_s)
        latencies.append(latency_ms)
        lates.append(late_ms)
        counts.append(rows)
        models.append(number)
        outcomes.append(outcome)
        if error:
            self._errors[error.partition("\n")[0]] += 1

    def take(self) -> dict[str, Any]:
        """What was noted since the last time, as types that Locust's own messages can carry."""
        columns, errors = self._columns, self._errors
        self._start()
        return {
            "models": list(self._models),
            "errors": dict(errors),
            **{name: column.tobytes() for name, column in zip(_COLUMNS, columns, strict=True)},
        }


@dataclass(frozen=True)
class Requests:
    """Many requests by the times at which they were due; element i of each column is about the i-th.

    Attributes:
        due_s: when each was to be sent, in seconds from the run's begin, float64.
        latency_ms: from then to its answer, float64.
        late_ms: how much later than that it was sent: the load generator's own delay, float64.
        rows: golden cases in it, int64.
        model: its place in `models`, int64.
        outcome: of :class:`Outcome`, int64.
        models: their names.
        errors: how often each error came, by its first line.
        began_s: the run's begin, in seconds of Unix time.
        cut_s: when Ctrl-C ended the run, in seconds from its begin; None if it ended by its plan.
        lost_workers: processes that were to send and did not, or did not say what became of it.
    """

    due_s: NDArray[np.float64]
    latency_ms: NDArray[np.float64]
    late_ms: NDArray[np.float64]
    rows: NDArray[np.int64]
    model: NDArray[np.int64]
    outcome: NDArray[np.int64]
    models: tuple[str, ...]
    errors: Mapping[str, int]
    began_s: float = 0.0
    cut_s: float | None = None
    lost_workers: int = 0

    @classmethod
    def merged(cls, parts: Iterable[Mapping[str, Any]], *, began_s: float = 0.0, lost_workers: int = 0) -> Requests:
        """What recorders gave away, in the order of the times at which requests were due."""
        columns: dict[str, list[NDArray[Any]]] = {name: [np.empty(0)] for name in _COLUMNS}
        models: dict[str, int] = {}
        errors: Counter[str] = Counter()
        for part in parts:
            errors.update(part["errors"])
            # Each process numbers the models as it meets them.
            numbers = np.array([models.setdefault(name, len(models)) for name in part["models"]], np.int64)
            for name, code in _COLUMNS.items():
                column = np.frombuffer(part[name], np.dtype(code))
                columns[name].append(numbers[column] if name == "model" and len(column) else column)
        whole = {name: np.concatenate(pieces) for name, pieces in columns.items()}
        order = np.argsort(whole["due_s"], kind="stable")
        kept = dict(errors.most_common(_KEPT_ERRORS))
        typed = {name: _typed(name, column[order]) for name, column in whole.items()}
        return cls(models=tuple(models), errors=kept, began_s=began_s, cut_s=None, lost_workers=lost_workers, **typed)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.due_s)

    def where(self, mask: NDArray[np.bool_]) -> Requests:
        """Some of them; the errors are those of all."""
        picked = {name: getattr(self, name)[mask] for name in _COLUMNS}
        return replace(self, **picked)

    def between(self, begin_s: float, end_s: float) -> Requests:
        """Those that were due within that time."""
        first, last = np.searchsorted(self.due_s, (begin_s, end_s))
        return replace(self, **{name: getattr(self, name)[first:last] for name in _COLUMNS})

    def of_model(self, name: str) -> Requests:
        """Those to one model."""
        return self.where(self.model == (self.models.index(name) if name in self.models else -1))

    def count(self, *outcomes: Outcome) -> int:
        """How many ended so."""
        return int(np.isin(self.outcome, outcomes).sum())

    def save(self, path: Path) -> None:
        """Write them to a file of numpy's, as :meth:`load` reads it."""
        columns = {name: getattr(self, name) for name in _COLUMNS}
        words = json.dumps([self.models, dict(self.errors), self.began_s, self.lost_workers])
        np.savez(path, words=np.frombuffer(words.encode(), np.uint8), **columns)

    @classmethod
    def load(cls, path: Path) -> Requests:
        """Read what :meth:`save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            models, errors, began_s, lost = json.loads(file["words"].tobytes())
            columns = {name: _typed(name, file[name]) for name in _COLUMNS}
            return cls(models=tuple(models), errors=errors, began_s=began_s, cut_s=None, lost_workers=lost, **columns)


def _typed(name: str, column: NDArray[Any]) -> NDArray[Any]:
    return column.astype(np.float64 if _COLUMNS[name] == "f" else np.int64)
