"""What tuning came to: a verdict in words, every trial, files for people and programs, and how it is applied."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritonclient.grpc.model_config_pb2 import ModelConfig

from tritium.client import InputError, MissingExtraError
from tritium.repository import Repository, RepositoryError, config_text, opened, write_config

from ._objectives import Verdict
from ._space import Knobs
from ._trial import FAILED, MEASURED, STOPPED, Trial, front

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BETTER, KEEP, MISSED, INTERRUPTED = "better", "keep", "missed", "interrupted"
_KEPT_NAME = "config.pbtxt.before-tuning"


@dataclass(frozen=True, kw_only=True)
class TuneResult:
    """What tuning a model came to.

    Attributes:
        model: its name.
        backend: what ran it, as in ``onnxruntime (native)``.
        users: requests that were under way at once.
        objectives: as they were written; empty where there were none.
        space: how many choices there were.
        trials: those that were tried, in their order; the first is the current choice.
        finals: the best of them and the current choice, measured once more in turns; these figures decide.
        noise: what the best of the finalists is better by than an equal one by chance alone, as a part of its figure.
        winner: the choice to take: the current one where nothing is better.
        verdict: "better", "keep" where nothing beats the current choice by more than the noise, "missed" where no
            choice meets the objectives, or "interrupted", where the winner is only the best so far.
        reason: the same in words.
        verdicts: what the winner's figures say of each objective.
        before: the config that was tuned.
        after: the same with the winner in it.
        duration_s: seconds that it took.
    """

    model: str
    backend: str
    users: int
    objectives: str
    space: int
    trials: tuple[Trial, ...]
    finals: tuple[Trial, ...]
    noise: float
    winner: Knobs
    verdict: str
    reason: str
    verdicts: tuple[Verdict, ...]
    before: ModelConfig
    after: ModelConfig
    duration_s: float

    @property
    def ok(self) -> bool:
        """Whether it ran to its end, and the winner meets every objective."""
        return self.verdict in (BETTER, KEEP)

    @property
    def current(self) -> Knobs:
        """The choice that the config had."""
        return self.trials[0].knobs

    @property
    def front(self) -> list[Trial]:
        """The Pareto front: throughput against p99 latency, by rising throughput."""
        return front(self.trials)

    @property
    def best(self) -> Trial:
        """The figures of the winner: those of the finals, if there were any."""
        return next(trial for trial in (*self.finals, *self.trials) if trial.knobs == self.winner)

    def to_json(self) -> dict[str, Any]:
        """Everything for a file: plain JSON types."""
        return {
            "model": self.model,
            "backend": self.backend,
            "users": self.users,
            "objectives": self.objectives,
            "space": self.space,
            "ok": self.ok,
            "verdict": self.verdict,
            "reason": self.reason,
            "noise": self.noise,
            "current": vars(self.current),
            "winner": vars(self.winner),
            "gain": self.best.gain,
            "changes": self.current.differences(self.winner),
            "verdicts": [vars(verdict) for verdict in self.verdicts],
            "trials": [trial.to_json() for trial in self.trials],
            "finals": [trial.to_json() for trial in self.finals],
            "front": [trial.number for trial in self.front],
            "config": config_text(self.after),
            "duration_s": self.duration_s,
        }

    def save(self, path: str | Path) -> None:
        """Write it to a file as JSON.

        Raises:
            InputError: it cannot be written.
        """
        try:
            Path(path).write_text(f"{json.dumps(self.to_json(), indent=2)}\n", encoding="utf-8")
        except OSError as exc:
            raise InputError(f"The result cannot be written to {path}: {exc.strerror}") from exc

    def plot(self, path: str | Path) -> None:
        """Draw every trial by throughput and p99 latency, the front among them, to a PNG or SVG file.

        Raises:
            MissingExtraError: matplotlib is not installed.
            InputError: it cannot be written, or its name ends in no format that matplotlib has.
        """
        drawing = _drawing(self)
        try:
            drawing.savefig(path)
        except (OSError, ValueError) as exc:
            raise InputError(f"The plot cannot be written to {path}: {exc}") from exc


def apply(result: TuneResult, repository: str | Path | Repository) -> Path:
    """Write the winner into the model's `config.pbtxt`, by a rename, and keep the old one beside it.

    Every answer to the winner's golden cases was right, and lint said nothing of it, or it would not be the winner.

    Returns:
        Where the old config lies: `config.pbtxt.before-tuning`, with a number behind it where there is one already.

    Raises:
        InputError: there is nothing better to write.
        RepositoryError: the config is not the one that was tuned any more, or it cannot be written.
    """
    if result.verdict != BETTER:
        raise InputError(f"There is nothing to apply: {result.reason}")
    repository = opened(repository)
    if repository.config(result.model) != result.before:
        raise RepositoryError(
            f"The config of {result.model} was changed while it was tuned, so it was another. Tune it again"
        )
    folder = repository.model_folder(result.model)
    try:
        kept = _kept(folder)
    except OSError as exc:
        raise RepositoryError(
            f"The old config cannot be kept in {folder}: {exc.strerror}; nothing has changed"
        ) from exc
    try:
        write_config(repository, result.model, result.after)
    except BaseException:
        with suppress(OSError):
            kept.unlink()
        raise
    return kept


def _kept(folder: Path) -> Path:
    """A copy of the config, comments and all, under a name that nothing had."""
    text = (folder / "config.pbtxt").read_bytes()
    for number in itertools.count(1):
        path = folder / (_KEPT_NAME if number == 1 else f"{_KEPT_NAME}-{number}")
        with suppress(FileExistsError), path.open("xb") as file:
            file.write(text)
            return path
    raise AssertionError("there is always a next number")


def _drawing(result: TuneResult) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise MissingExtraError("matplotlib", "loadtest") from exc
    # The figure alone, without pyplot: nothing of it outlives the call.
    drawing = Figure(figsize=(8, 5), layout="constrained")
    axes = drawing.add_subplot()
    drawn = [trial for trial in result.trials if trial.state != FAILED]
    kinds: Sequence[tuple[str, str, list[Trial]]] = (
        ("tried", "tab:blue", [trial for trial in drawn if trial.state == MEASURED and trial.feasible]),
        ("misses an objective", "tab:orange", [trial for trial in drawn if not trial.feasible]),
        ("stopped early", "0.7", [trial for trial in drawn if trial.state == STOPPED and trial.feasible]),
    )
    for label, colour, trials in kinds:
        if trials:
            axes.scatter(*_places(trials), s=28, c=colour, label=label)
    axes.plot(*_places(result.front), c="tab:blue", lw=1, label="Pareto front")
    # Where they were in the search, as all others are: the finals are another hour.
    marks = (("current", "s", result.current), ("winner" if result.ok else "best", "*", result.winner))
    for label, marker, knobs in marks:
        at = _places([trial for trial in drawn if trial.knobs == knobs])
        axes.scatter(*at, s=160, marker=marker, fc="none", ec="tab:red", label=f"{label}: {knobs}")
    axes.axvspan(1 - result.noise, 1 + result.noise, color="0.93", zorder=0, label=f"noise, ±{result.noise:.0%}")
    axes.set(
        xlabel="throughput, as a multiple of the current config's",
        ylabel="p99 latency, ms",
        title=f"{result.model}, {result.users} users, {result.backend}",
    )
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    return drawing


def _places(trials: Sequence[Trial]) -> tuple[list[float], list[float]]:
    return [trial.gain for trial in trials], [trial.p99_ms for trial in trials]
