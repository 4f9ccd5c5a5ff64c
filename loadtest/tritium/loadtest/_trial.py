"""One choice that was measured, and what can be said of it beside others. Pure."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ._figures import Figures
from ._objectives import Evidence, Objective, Verdict
from ._space import Knobs

MEASURED, STOPPED, FAILED = "measured", "stopped early", "failed"
# A median of n normal values strays 1.2533 times as much as their mean: sqrt(pi / 2).
_OF_A_MEDIAN = math.sqrt(math.pi / 2)
# The median absolute deviation of normal values, as a standard deviation.
_OF_A_DEVIATION = 1.4826
# Blocks of the current choice before and after one, which are as good to compare with as its own.
_NEAR = 2
# However quiet a machine is, its next hour may be another one.
_LEAST_NOISE = 0.01
# What is said of chance holds in all but one of twenty cases, those to either side together.
_DOUBT = 0.05
# A missed objective that has no measure, because half of the blocks or more had no right answer.
_HOPELESS_MISS = 1e3
# As near as a miss can come: `p99<5ms` at 5 ms exactly.
_LEAST_MISS = 1e-9


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A choice, and what was measured of it.

    Attributes:
        number: in the order in which they were tried, from 0, which is the current choice.
        knobs: the choice.
        state: "measured", "stopped early" where it was clear that it is not the best, or "failed" where it did not
            load or did not answer right.
        blocks: the figures of each block.
        beside: the figures of the current choice, each measured right before, or in the finals in the same round.
        misses: of each objective by what part it is missed; 0 where it is met.
        reason: why it was stopped, or failed.
    """

    number: int
    knobs: Knobs
    state: str = MEASURED
    blocks: tuple[Figures, ...] = ()
    beside: tuple[Figures, ...] = ()
    misses: tuple[float, ...] = ()
    reason: str = ""

    @property
    def gains(self) -> list[float]:
        """Right answers a second as a multiple of the current choice's, block by block.

        Of the current choice it is the median of the five blocks nearest in time: a server may stall for a block, which
        says nothing, and a machine does not become another one within seconds. Left out where it gave no answer at all.
        """
        rates = [still.requests_per_s for still in self.beside]
        levels = [statistics.median(rates[max(place - _NEAR, 0) : place + _NEAR + 1]) for place in range(len(rates))]
        pairs = zip(self.blocks, levels, strict=True)
        return [block.requests_per_s / level for block, level in pairs if level]

    @property
    def gain(self) -> float:
        """Their median; 0 if there are none."""
        return statistics.median(self.gains or [0.0])

    @property
    def requests_per_s(self) -> float:
        """Right answers a second: the median of the blocks."""
        return self.median("requests_per_s")

    @property
    def p50_ms(self) -> float:
        """Median latency: the median of the blocks'."""
        return self.median("p50_ms")

    @property
    def p99_ms(self) -> float:
        """99th percentile of the latency: the median of the blocks'."""
        return self.median("p99_ms")

    @property
    def feasible(self) -> bool:
        """Whether every objective is met."""
        return self.state != FAILED and not any(self.misses)

    @property
    def rank(self) -> tuple[bool, float]:
        """What trials are compared by, the best being the greatest: objectives met, then gain or less of a miss."""
        if self.state == FAILED:
            return False, -math.inf
        return (True, self.gain) if self.feasible else (False, -sum(self.misses))

    def median(self, name: str) -> float:
        """The median over the blocks of a figure; 0 if there are none. A block without an answer has no latency."""
        blocks = [block for block in self.blocks if block.right or not name.endswith("_ms")]
        return statistics.median(getattr(block, name) for block in blocks) if blocks else 0.0

    def judged(self, objectives: Sequence[Objective], model: str) -> Trial:
        """The same with what its blocks say of objectives."""
        return replace(self, misses=tuple(missed(goal, self.blocks, model) for goal in objectives))

    def to_json(self) -> dict[str, Any]:
        """Everything for a file: plain JSON types."""
        return {
            "number": self.number,
            "knobs": vars(self.knobs),
            "state": self.state,
            "reason": self.reason,
            "feasible": self.feasible,
            "gain": self.gain,
            "gains": self.gains,
            "requests_per_s": self.requests_per_s,
            "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
            "misses": list(self.misses),
        }


def verdicts(objectives: Sequence[Objective], blocks: Sequence[Figures], model: str) -> list[Verdict]:
    """What blocks say of objectives: latencies and rates by the median of the blocks, counts by all together."""
    evidence = [
        Evidence(judged=block, everywhere=block, models={model: block}, models_everywhere={model: block})
        for block in blocks
    ]
    return [goal.judge(evidence) for goal in objectives]


def missed(objective: Objective, blocks: Sequence[Figures], model: str) -> float:
    """By what part of its value an objective is missed; 0 if it is met."""
    (verdict,) = verdicts([objective], blocks, model)
    if verdict.ok:
        return 0.0
    if 2 * sum(block.right > 0 for block in blocks) <= len(blocks):
        return _HOPELESS_MISS
    if objective.sign in (">", ">=", "≥"):
        return max(1 - verdict.found / objective.value, _LEAST_MISS)
    return max(abs(verdict.found - objective.value) / (objective.value or 1.0), _LEAST_MISS)


def deviation(trials: Iterable[Trial]) -> float:
    """How far a block beside one of the current choice strays: a standard deviation, a part of it, at least 0.01.

    From the differences of successive blocks of one trial (J. von Neumann, 1941), which a drift of the machine hardly
    touches, and by the median of their sizes (times 1.4826, as for normal values), which a stall does not touch. Each
    block is taken beside that of the current choice right before it: what :attr:`Trial.gains` compare with is the same
    for blocks that follow each other, so their differences would not show how far that strays.
    """
    steps = [
        abs(math.log(after / before))
        for trial in trials
        for before, after in itertools.pairwise(
            block.requests_per_s / still.requests_per_s
            for block, still in zip(trial.blocks, trial.beside, strict=True)
            if block.requests_per_s and still.requests_per_s
        )
    ]
    return max(_OF_A_DEVIATION * statistics.median(steps) / math.sqrt(2), _LEAST_NOISE) if steps else 0.1


def margin(sigma: float, blocks: int, other_blocks: int, *, comparisons: int = 1) -> float:
    """What the medians of two choices differ by, by chance alone, in nineteen of twenty cases.

    Args:
        sigma: of a block, as :func:`deviation` has it.
        blocks: of the one.
        other_blocks: of the other.
        comparisons: how many pairs there are of which the one that differs most is looked at (C. E. Bonferroni, 1936).

    Returns:
        A part of the gain.
    """
    variance = 1 / max(blocks, 1) + 1 / max(other_blocks, 1)
    sigmas = statistics.NormalDist().inv_cdf(1 - _DOUBT / 2 / comparisons)
    return sigmas * _OF_A_MEDIAN * sigma * math.sqrt(variance)


def hopeless(trial: Trial, best: Trial | None, sigma: float, *, comparisons: int = 1) -> str:
    """Why a trial need not go on; empty if it may still be the best.

    Args:
        trial: after some of its blocks, judged.
        best: the best so far.
        sigma: of a block.
        comparisons: of how many it is the best.
    """
    # One block alone may have been a stall; of two it is the better that counts, for the same reason.
    if best is None or len(trial.gains) < 2:
        return ""
    highest = statistics.median_high(trial.gains)
    leeway = margin(sigma, len(trial.gains), len(best.gains), comparisons=comparisons)
    # As long as nothing meets the objectives, it is not throughput that is looked for.
    if best.feasible and highest * (1 + leeway) < best.gain:
        return f"{trial.gain:.2f} times the current throughput, and {best.gain:.2f} has been seen"
    # An objective that noise alone can make good is none to stop at; half as much again is beyond most.
    if best.feasible and max(trial.misses, default=0.0) > max(0.5, leeway):
        return "it is far from the objectives, and others meet them"
    return ""


def front(trials: Sequence[Trial]) -> list[Trial]:
    """The Pareto front: those that none beats both in throughput and in p99 latency, by rising throughput.

    Throughput is the gain, because the machine may have been slower when one was measured than when another was.
    """
    whole = [trial for trial in trials if trial.state == MEASURED and trial.blocks]
    best_p99_ms, found = math.inf, []
    for trial in sorted(whole, key=lambda trial: (-trial.gain, trial.p99_ms)):
        if trial.p99_ms < best_p99_ms:
            best_p99_ms = trial.p99_ms
            found.append(trial)
    return found[::-1]
