"""The tuner beside an exhaustive grid: with a quarter of the trials it must find a config that is as good.

For each model every choice is measured in several rounds, each time right beside the current config, so that what the
machine does meanwhile falls out. The tuner then gets a quarter as many trials. In the end its winner and the grid's
best are measured in turns, because the best of sixty noisy figures is better on paper than in truth; the ratio of those
two counts. Prints a table on standard error and JSON on standard output; exit code 1 if the target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks._shared import BenchError, print_columns, zoo

from tritium.client import TritiumError
from tritium.loadtest import Knobs, Trial, tune
from tritium.loadtest._rig import Rig
from tritium.loadtest._space import knobs_of, space_of
from tritium.loadtest._trial import FAILED, deviation, margin
from tritium.repository import Repository

MODELS = ("digits_cnn", "sentiment_transformer")
FEWEST_POINTS = 60
SHARE = 0.25
MOST_NOISE = 0.10
USERS = 16


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--rounds", type=int, default=2, help="rounds over the grid")
    parser.add_argument("--blocks", type=int, default=2, help="of half a second for each choice in a round")
    parser.add_argument("--turns", type=int, default=30, help="of the winner and the grid's best, a block each")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    repository = zoo()
    found = [_measured(repository, model, arguments) for model in arguments.models]
    _print(found)
    print(json.dumps({"cores": os.cpu_count(), "users": USERS, "models": found}, indent=2))
    return 0 if all(one["ok"] for one in found) else 1


def _measured(repository: Repository, model: str, arguments: argparse.Namespace) -> dict[str, Any]:
    config = repository.config(model)
    points = space_of(config, users=USERS, cores=len(os.sched_getaffinity(0))).points()
    if len(points) < FEWEST_POINTS:
        raise BenchError(
            f"The grid of {model} has {len(points)} points on this machine, and {FEWEST_POINTS} are needed"
        )
    with Rig(repository, model, users=USERS) as rig:
        grid = _grid(rig, points, arguments.rounds, arguments.blocks, arguments.seed)
    best = max(grid, key=lambda trial: trial.gain)
    trials = int(SHARE * len(points))
    _say(f"{model}: the grid's best is {best.gain:.2f} × {best.knobs}; the tuner has {trials} trials")
    tuned = tune(model, repository=repository, trials=trials, users=USERS, seed=arguments.seed, progress=_say)
    on_grid = next(trial for trial in grid if trial.knobs == tuned.winner)
    with Rig(repository, model, users=USERS) as rig:
        duel = _grid(rig, list(dict.fromkeys((tuned.winner, best.knobs))), arguments.turns, 1, 0)
    noise = margin(deviation(duel), len(duel[0].gains), len(duel[-1].gains))
    ratio = duel[0].gain / duel[-1].gain
    return {
        "model": model,
        "points": len(points),
        "trials": len(tuned.trials),
        "grid_best": vars(best.knobs) | {"text": str(best.knobs), "gain": best.gain},
        "winner": vars(tuned.winner) | {"text": str(tuned.winner), "gain": tuned.best.gain, "grid_gain": on_grid.gain},
        "verdict": tuned.verdict,
        "tuner_s": tuned.duration_s,
        "tuner_noise": tuned.noise,
        "grid_rank": 1 + sum(trial.gain > on_grid.gain for trial in grid),
        "grid_gains": sorted((round(trial.gain, 3) for trial in grid), reverse=True),
        "duel": [{"config": str(one.knobs), "gain": one.gain, "requests_per_s": one.requests_per_s} for one in duel],
        "ratio": ratio,
        "noise": noise,
        "current": str(knobs_of(config)),
        "ok": len(tuned.trials) <= trials and noise <= MOST_NOISE and ratio >= 1 - noise,
    }


def _grid(rig: Rig, points: Sequence[Knobs], rounds: int, blocks: int, seed: int) -> list[Trial]:
    """Every point, each time in another order; wrong answers and what does not load count as nothing."""
    trials = {knobs: Trial(number=number, knobs=knobs) for number, knobs in enumerate(points)}
    chance = random.Random(seed)  # noqa: S311 — an order, no secret
    for number in range(rounds):
        for knobs in chance.sample(list(points), len(points)):
            trial = trials[knobs]
            try:
                rig.load(knobs)
            except TritiumError as exc:
                trials[knobs] = replace(trial, state=FAILED, reason=str(exc))
                continue
            for _ in range(blocks):
                still, mine = rig.block(still=True), rig.block()
                if mine.figures.errors:
                    raise BenchError(f"{knobs} is not answered right: {dict(mine.errors)}")
                trial = replace(trial, blocks=(*trial.blocks, mine.figures), beside=(*trial.beside, still.figures))
            trials[knobs] = trial
        _say(f"{rig.model}: round {number + 1} of {rounds} over {len(points)} points")
    return list(trials.values())


def _print(found: Sequence[dict[str, Any]]) -> None:
    heads = ["model", "grid", "trials", "grid's best", "tuner's winner", "winner / best", "noise", "spread", ""]
    rows = [
        [
            one["model"],
            str(one["points"]),
            str(one["trials"]),
            f"{one['grid_best']['gain']:.2f} × {one['grid_best']['text']}",
            f"{one['winner']['grid_gain']:.2f} × {one['winner']['text']} (place {one['grid_rank']})",
            f"{one['ratio']:.3f}",
            f"± {one['noise']:.1%}",
            f"{one['grid_gains'][-1]:.2f} to {one['grid_gains'][0]:.2f}",
            "ok" if one["ok"] else "MISSED",
        ]
        for one in found
    ]
    print_columns([heads, *rows])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
