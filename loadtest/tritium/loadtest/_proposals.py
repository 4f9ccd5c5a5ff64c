"""What to try next: Optuna's sampler, and that nothing is tried twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from tritium.client import MissingExtraError

from ._space import Knobs, Space
from ._trial import FAILED, MEASURED, Trial

if TYPE_CHECKING:
    import optuna

# What misses its objectives by a thousand times is as bad as what does not load.
_FAILURE = 1e3
_AXES = {
    "instances": "instances",
    "threads": "threads",
    "max_batch": "max_batches",
    "delay_us": "delays_us",
    "accelerator": "accelerators",
}


class Proposals:
    """Choices of a space, each once: first the seeds, then what a sampler hopes for, or the nearest to the best.

    The sampler is Optuna's TPE (Bergstra et al., 2011). Its axes are the places of the values and not the values, so
    that 2 instances are between 1 and 4. It starts from the seeds alone, without random trials: of few trials none is
    to spare, and the seeds are spread over the space already. Where it names what was tried already, what differs least
    from the best so far is as good a guess, and a better one than what it names when asked again. Objectives are its
    constraints: a choice that misses them is worth less than any that does not, and the less the more it misses.

    Args:
        space: what there is.
        seeds: what comes first.
        seed: of the sampler.

    Raises:
        MissingExtraError: Optuna is not installed.
    """

    def __init__(self, space: Space, seeds: Sequence[Knobs], *, seed: int = 0) -> None:
        self._space = space
        self._left = dict.fromkeys(space.points())
        self._asked: optuna.trial.Trial
        self._told: list[Trial] = []
        optuna_ = _optuna()
        with _quiet(optuna_):
            sampler = optuna_.samplers.TPESampler(
                n_startup_trials=min(len(seeds), 5),
                seed=seed,
            )
            self._study = optuna_.create_study(direction="maximize", sampler=sampler)
        self._optuna = optuna_
        for knobs in seeds:
            self._study.enqueue_trial(self._places(knobs))

    def __iter__(self) -> Iterator[Knobs]:
        """Until everything has been tried; each must be told about before the next."""
        while self._left:
            yield self._next()

    def tell(self, trial: Trial) -> None:
        """What came of the last."""
        asked = self._asked
        with _quiet(self._optuna):
            for number, miss in enumerate(trial.misses):
                asked.set_constraint(str(number), miss)
            if trial.state == FAILED:
                # It has no figures, but the sampler is to keep away from it.
                asked.set_constraint("failed", _FAILURE)
                self._study.tell(asked, 0.0)
            elif trial.state == MEASURED:
                self._study.tell(asked, trial.gain)
            else:
                for step, gain in enumerate(trial.gains):
                    asked.report(gain, step)
                self._study.tell(asked, state=self._optuna.trial.TrialState.PRUNED)
        self._told.append(trial)

    def _next(self) -> Knobs:
        with _quiet(self._optuna):
            while (knobs := self._suggested()) is None:
                self._study.enqueue_trial(self._places(self._nearest()))
            return knobs

    def _suggested(self) -> Knobs | None:
        asked = self._study.ask()
        chosen = [
            getattr(self._space, values)[asked.suggest_int(axis, 0, len(getattr(self._space, values)) - 1)]
            for axis, values in _AXES.items()
        ]
        knobs = self._space.point(*chosen)
        if knobs not in self._left:
            self._study.tell(asked, state=self._optuna.trial.TrialState.FAIL)
            return None
        del self._left[knobs]
        self._asked = asked
        return knobs

    def _nearest(self) -> Knobs:
        """Of what is left, what differs least from the best so far."""
        best = max(self._told, key=lambda trial: trial.rank).knobs if self._told else next(iter(self._left))
        return min(self._left, key=lambda knobs: len(best.differences(knobs)))

    def _places(self, knobs: Knobs) -> dict[str, Any]:
        values = {field.name: getattr(knobs, field.name) for field in fields(Knobs)}
        places = {axis: getattr(self._space, _AXES[axis]) for axis in values}
        return {axis: places[axis].index(value) if value in places[axis] else 0 for axis, value in values.items()}


def _optuna() -> Any:
    # Imported here: it takes half a second, and only the tuner needs it.
    try:
        import optuna
    except ImportError as exc:
        raise MissingExtraError("optuna", "loadtest") from exc
    return optuna


@contextmanager
def _quiet(optuna_: Any) -> Iterator[None]:
    """Without a line for each trial, and without a change for whoever else uses Optuna in this process."""
    before = optuna_.logging.get_verbosity()
    optuna_.logging.set_verbosity(optuna_.logging.ERROR)
    try:
        yield
    finally:
        optuna_.logging.set_verbosity(before)
