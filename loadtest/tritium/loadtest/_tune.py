"""The tuner: which config serves a model best on this machine, under real load and with checked answers."""

from __future__ import annotations

import itertools
import math
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from tritonclient.grpc.model_config_pb2 import ModelConfig

from tritium.client import InputError, TritiumError
from tritium.repository import Repository, has_manifest, opened

from ._figures import Figures
from ._objectives import Objective, parse_objectives
from ._proposals import Proposals
from ._rig import Rig, Sample
from ._space import Knobs, configured, knobs_of, simplicity, space_of
from ._trial import FAILED, MEASURED, STOPPED, Trial, deviation, hopeless, margin, verdicts
from ._tuned import BETTER, INTERRUPTED, KEEP, MISSED, TuneResult

DEFAULT_BUDGET_S = 300.0
# Blocks of a trial; of the current choice some more, because what is known of the noise at first is from those.
_BLOCKS = 4
_FIRST_BLOCKS = 6
# A block has so many answers at least, within reason: a percentile and a rate of fewer say little.
_ANSWERS = 200
_BLOCK_S = (0.5, 3.0)
# Each finalist is loaded once a round, for so many blocks, until it is clear that it is not the best. There are as many
# rounds as it takes for the noise to be small, within the time.
_FINALISTS = 5
_BLOCKS_A_ROUND = 2
_FEWEST_ROUNDS = 3
_SMALL_NOISE = 0.04
# What of the budget is kept for the finals, and how long they are at most, in seconds.
_FINALS_SHARE, _FINALS_KEPT_S, _FINALS_S = 0.4, 180.0, 300.0
# However much noise there is, a choice that is worse by more than this is no equal.
_EQUAL = 0.05
_NOTHING_WRONG = "errors=0, wrong=0"
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", re.ASCII)


class Measuring(Protocol):
    """What the search asks of a :class:`Rig`."""

    model: str
    config: ModelConfig
    block_s: float

    @property
    def backend(self) -> str:
        """What runs the model."""

    def load(self, knobs: Knobs) -> None:
        """Try another choice from now on."""

    def block(self, *, still: bool = False) -> Sample:
        """Measure it, or what stays as it is."""

    def verify(self) -> Sequence[Any]:
        """What the golden cases say of the choice."""

    def findings(self) -> Sequence[Any]:
        """What lint says of it."""


def _silent(_: str) -> None:
    """Tell nobody."""


def parse_budget(text: str) -> float:
    """Seconds, from a text such as ``90s``, ``10m`` or ``1h30m``.

    Raises:
        InputError: it is no such text, or no time at all.
    """
    match = _DURATION.fullmatch(text.strip().lower())
    hours, minutes, seconds = (float(part or 0) for part in match.groups()) if match else (0.0, 0.0, 0.0)
    budget_s = hours * 3600 + minutes * 60 + seconds
    if not budget_s:
        hint = f". Did you mean '{text}s' or '{text}m'?" if re.fullmatch(r"\d+(\.\d+)?", text) else ""
        raise InputError(f"A budget is a time with its unit, as in '90s', '10m' or '1h30m', got {text!r} instead{hint}")
    return budget_s


def tune(
    model: str,
    *,
    repository: str | Path | Repository,
    objectives: str = "",
    budget_s: float | None = None,
    trials: int | None = None,
    users: int = 16,
    onnx_backend: str = "auto",
    seed: int = 0,
    progress: Callable[[str], object] = _silent,
) -> TuneResult:
    """Find the config that serves a model best on this machine. The repository is only read: :func:`apply` writes.

    Instances, the runtime's threads, the largest batch, and how long a batch may wait are chosen by Optuna's sampler;
    where there is a GPU, also CUDA, TensorRT and its precision. Each choice is loaded into a server of the tuner's own
    and measured with golden cases in short blocks, by turns with the current config, until it is clear that it is not
    the best. The best few are then measured again, in turns. Ctrl-C ends it early, with the best so far.

    Args:
        model: its name.
        repository: where it is.
        objectives: what must be reached, as in ``p99<25ms``; among the choices that do, the one with the most right
            answers a second is the best. Without any, it is so of all.
        budget_s: seconds that it may take; 300 by default, or as long as it takes where `trials` is given. The finals
            are never left out, and make it a few seconds more where the budget is short.
        trials: most choices to try, the current one included.
        users: requests of one golden case that are under way at once (closed loop).
        onnx_backend: as for :class:`TritonServer`: ``native``, ``python`` or ``auto``.
        seed: of the sampler.
        progress: is told what is being done.

    Returns:
        The winner, why, and every trial.

    Raises:
        InputError: an argument cannot be used, or the model has nothing to tune or no golden cases.
        MissingExtraError: Optuna is not installed.
        TritiumError: the server does not start, or the model does not answer as it is.
    """
    source = opened(repository)
    config = source.config(model)
    for what, number in (("trials", trials), ("users", users)):
        if number is not None and number < 1:
            raise InputError(f"The '{what}' parameter of tune must be 1 or more, got {number} instead")
    if budget_s is not None and not 0 < budget_s < math.inf:
        raise InputError(f"The 'budget_s' parameter of tune must be more than 0, got {budget_s:g} instead")
    if not has_manifest(source, model):
        raise InputError(f"{model} has no golden cases, so nobody could tell a right answer; `tritium add` makes them")
    goals = parse_objectives(objectives or _NOTHING_WRONG)
    for goal in goals:
        goal.check([model], memory=False)
    cores = len(os.sched_getaffinity(0))
    space = space_of(config, users=users, cores=cores, gpus=_gpus())
    proposals = Proposals(space, space.seeds(knobs_of(config), cores), seed=seed)
    limit_s = budget_s if budget_s is not None else DEFAULT_BUDGET_S if trials is None else math.inf
    with Rig(source, model, users=users, onnx_backend=onnx_backend) as rig:
        return search(
            rig,
            proposals,
            goals,
            space=len(space.points()),
            users=users,
            objectives=objectives,
            budget_s=limit_s,
            trials=trials,
            progress=progress,
        )


def search(
    rig: Measuring,
    proposals: Proposals,
    goals: Sequence[Objective],
    *,
    space: int,
    users: int,
    objectives: str = "",
    budget_s: float = math.inf,
    trials: int | None = None,
    progress: Callable[[str], object] = _silent,
    clock: Callable[[], float] = time.monotonic,
) -> TuneResult:
    """What :func:`tune` does once there is something to measure with.

    Raises:
        TritiumError: the current choice does not answer right.
    """
    began_s = clock()
    ends_s = began_s + budget_s - min(_FINALS_SHARE * budget_s, _FINALS_KEPT_S)
    tried: list[Trial] = []
    finals: list[Trial] = []
    interrupted = False
    try:
        for knobs in proposals:
            trial = _measured(rig, len(tried), knobs, goals, tried)
            tried.append(trial)
            proposals.tell(trial)
            progress(_line(trial))
            if clock() >= ends_s or len(tried) == trials:
                break
        now_s = clock()
        left_s = min(began_s + budget_s - now_s, _FINALS_S)
        # As many as there is time for; the current config is one more. A turn has no blocks beside its own.
        turn_s = (now_s - began_s) / sum(len(trial.blocks) for trial in tried) * _BLOCKS_A_ROUND / 2
        finalists = max(1, min(_FINALISTS, math.floor(left_s / (_FEWEST_ROUNDS * turn_s)) - 1))
        finals = _finals(rig, goals, tried, finalists, now_s + left_s, progress, clock)
    except KeyboardInterrupt:
        if not tried:
            raise
        interrupted = True
    if interrupted:
        noise = margin(deviation(tried), _BLOCKS, _BLOCKS, comparisons=max(len(tried) - 1, 1))
        best = max(tried, key=lambda trial: trial.rank)
        verdict, reason = INTERRUPTED, f"It was interrupted; the best of {len(tried)} so far is {best.knobs}"
    else:
        noise = _noise(finals)
        best, verdict, reason = decide(finals, noise)
    return TuneResult(
        model=rig.model,
        backend=rig.backend,
        users=users,
        objectives=objectives,
        space=space,
        trials=tuple(tried),
        finals=() if interrupted else tuple(finals),
        noise=noise,
        winner=best.knobs,
        verdict=verdict,
        reason=reason,
        verdicts=tuple(verdicts(goals, best.blocks, rig.model)),
        before=rig.config,
        after=configured(rig.config, best.knobs),
        duration_s=clock() - began_s,
    )


def decide(finals: Sequence[Trial], noise: float) -> tuple[Trial, str, str]:
    """Which choice to take, and why. Pure.

    Args:
        finals: the current choice, and then those that may be better; one that was stopped is out.
        noise: what the best of them is better by than an equal one through chance alone, as a part of its gain.

    Returns:
        The choice, the verdict, and the reason in words.
    """
    current = finals[0]
    playing = [trial for trial in finals if trial.state == MEASURED] or [current]
    feasible = [trial for trial in playing if trial.feasible]
    if not feasible:
        best = max(playing, key=lambda trial: trial.rank)
        return best, MISSED, f"No choice meets the objectives; {best.knobs} misses them by the least"
    most = max(trial.gain for trial in feasible)
    # All gains are ratios to the copy that stays; that of the current choice was measured as the others were.
    base = current.gain or 1.0
    if current.feasible and most <= base * (1 + noise):
        most /= base
        return (
            current,
            KEEP,
            f"Keep what you have: nothing has more than {most:.2f} times its throughput, and the noise is ±{noise:.0%}",
        )
    # Figures within the noise say nothing about which is better, so what is simpler is.
    least = most * (1 - min(noise, _EQUAL))
    least = max(least, base * (1 + noise)) if current.feasible else least
    equals = [trial for trial in feasible if trial is not current and trial.gain >= least]
    best = min(equals, key=lambda trial: simplicity(trial.knobs, current.knobs))
    meets = "" if current.feasible else "It meets the objectives, which the current config does not. "
    refused = (
        f" Requests of more than {best.knobs.max_batch} rows will be refused, as those of more than "
        f"{current.knobs.max_batch} are now."
        if best.knobs.max_batch < current.knobs.max_batch
        else ""
    )
    return (
        best,
        BETTER,
        f"{meets}{best.gain / base:.2f} times the throughput of the current config (noise ±{noise:.0%}), p99 "
        f"{current.p99_ms:.3g} → {best.p99_ms:.3g} ms: {', '.join(current.knobs.differences(best.knobs))}.{refused}",
    )


def _measured(rig: Measuring, number: int, knobs: Knobs, goals: Sequence[Objective], tried: Sequence[Trial]) -> Trial:
    """A trial: blocks by turns with the current choice, until it is clear that it is not the best."""
    trial = Trial(number=number, knobs=knobs)
    if not tried:
        rig.load(knobs)
        # How many answers a block has is known only now.
        rate = rig.block().figures.requests_per_s
        rig.block_s = min(max(_ANSWERS / max(rate, 1e-9), _BLOCK_S[0]), _BLOCK_S[1])
        return _in_blocks(rig, trial, goals, tried)
    try:
        rig.load(knobs)
        return _in_blocks(rig, trial, goals, tried)
    except TritiumError as exc:  # it does not load, or the server has died of it
        return replace(trial, state=FAILED, reason=_first_line(exc))


def _in_blocks(rig: Measuring, trial: Trial, goals: Sequence[Objective], tried: Sequence[Trial]) -> Trial:
    best = max((one for one in tried if one.state == MEASURED), key=lambda one: one.rank, default=None)
    sigma = deviation(tried)
    for _ in range(_BLOCKS if tried else _FIRST_BLOCKS):
        still = rig.block(still=True)
        trial, wrong = _with_block(rig, trial, goals, rig.block(), still.figures)
        if wrong:
            if not tried:
                raise InputError(f"{rig.model} does not answer right as it is: {wrong}. `tritium verify` says more")
            return replace(trial, state=FAILED, reason=wrong)
        if reason := hopeless(trial, best, sigma):
            return replace(trial, state=STOPPED, reason=reason)
    return trial


def _finals(
    rig: Measuring,
    goals: Sequence[Objective],
    tried: Sequence[Trial],
    finalists: int,
    ends_s: float,
    progress: Callable[[str], object],
    clock: Callable[[], float],
) -> list[Trial]:
    """The current choice and the best others, measured again in turns. It is first seen to that each may win.

    The current choice is loaded anew in its turn, like the others: of two copies of a model one may be the faster one.
    All are compared with its blocks of the same round, which leaves twice the time for them.
    """
    by_rank = sorted((trial for trial in tried[1:] if trial.state == MEASURED), key=lambda trial: trial.rank)
    playing: list[Trial] = []
    while by_rank and len(playing) < finalists:
        trial = by_rank.pop()
        if refused := _refused(rig, trial.knobs):
            progress(f"{trial.knobs} is out: {refused}")
        else:
            playing.append(_bare(trial))
    progress(f"finals: {len(playing)} and the current config in turns" if playing else "finals: nobody to play against")
    if not playing:
        return [tried[0]]
    playing.insert(0, _bare(tried[0]))
    began_s = clock()
    for number in itertools.count():
        if number >= _FEWEST_ROUNDS:
            playing = [playing[0], *_judged_anew(playing)]
            decided = all(trial.state != MEASURED for trial in playing[1:])
            round_s = (clock() - began_s) / number
            if decided or clock() + round_s > ends_s or _noise(playing) <= _SMALL_NOISE:
                break
        playing[0] = _with_turn(rig, playing[0], goals, None)
        beside = playing[0].blocks[-_BLOCKS_A_ROUND:] if playing[0].state == MEASURED else ()
        # Whoever comes first in a round does not always do so.
        for shift in range(len(playing) - 1):
            place = 1 + (number + shift) % (len(playing) - 1)
            playing[place] = _with_turn(rig, playing[place], goals, beside)
    return [playing[0], *(trial for trial in playing[1:] if trial.state != FAILED)]


def _bare(trial: Trial) -> Trial:
    return replace(trial, blocks=(), beside=(), misses=())


def _with_turn(rig: Measuring, trial: Trial, goals: Sequence[Objective], beside: Sequence[Figures] | None) -> Trial:
    """A finalist, if it still plays, with the blocks of one more round.

    Args:
        rig: what it is measured with.
        trial: the finalist.
        goals: what must be reached.
        beside: the current choice's blocks of the round; none where that one has failed, and the copy that stays is
            measured instead; None for the current choice itself.
    """
    if trial.state != MEASURED:
        return trial
    try:
        rig.load(trial.knobs)
        for place in range(_BLOCKS_A_ROUND):
            mine = rig.block()
            other = mine.figures if beside is None else beside[place] if beside else rig.block(still=True).figures
            trial, wrong = _with_block(rig, trial, goals, mine, other)
            if wrong:
                return replace(trial, state=FAILED, reason=wrong)
    except TritiumError as exc:
        return replace(trial, state=FAILED, reason=_first_line(exc))
    return trial


def _judged_anew(playing: Sequence[Trial]) -> list[Trial]:
    """All finalists but the current choice: stopped, if they have no hope beside the best that has not failed."""
    best = max((trial for trial in playing if trial.state != FAILED), key=lambda trial: trial.rank, default=None)
    sigma, comparisons = _strays(playing), len(playing) - 1
    found = []
    for trial in playing[1:]:
        reason = trial.reason if trial.state == FAILED else hopeless(trial, best, sigma, comparisons=comparisons)
        state = trial.state if trial.state == FAILED else STOPPED if reason else MEASURED
        found.append(replace(trial, state=state, reason=reason))
    return found


def _noise(finals: Sequence[Trial]) -> float:
    """What the best of the finalists is better by than an equal one, through chance alone."""
    blocks = min((len(trial.blocks) for trial in finals if trial.blocks and trial.state == MEASURED), default=_BLOCKS)
    return margin(_strays(finals), blocks, blocks, comparisons=max(len(finals) - 1, 1))


def _strays(finals: Sequence[Trial]) -> float:
    """How far a block of a finalist strays; that beside it is the same for all of them, and makes no difference."""
    others = [trial for trial in finals[1:] if trial.state != FAILED]
    return deviation(others) / math.sqrt(2) if others else deviation(finals)


def _with_block(
    rig: Measuring, trial: Trial, goals: Sequence[Objective], mine: Sample, beside: Figures
) -> tuple[Trial, str]:
    """A trial with one more block; and what was wrong, where something was that no objective allows for."""
    more = replace(trial, blocks=(*trial.blocks, mine.figures), beside=(*trial.beside, beside))
    more = more.judged(goals, rig.model)
    # What the server refuses, or is late with, is what objectives are about; a wrong answer is worth nothing.
    if mine.figures.wrong or mine.figures.failed:
        return more, "; ".join(list(mine.errors)[:2]) or "answers are wrong"
    return more, ""


def _refused(rig: Measuring, knobs: Knobs) -> str:
    """Why a choice must not win; empty if it may."""
    try:
        rig.load(knobs)
        wrong = [str(verdict) for verdict in rig.verify() if not verdict.ok]
    except TritiumError as exc:
        return _first_line(exc)
    found = [f"lint {finding.code}: {finding.message}" for finding in rig.findings()]
    return "; ".join([*wrong, *found])


def _line(trial: Trial) -> str:
    figures = f"{trial.gain:5.2f} ×  {trial.requests_per_s:7.0f}/s  p99 {trial.p99_ms:6.2f} ms" if trial.blocks else ""
    notes = [] if trial.state == MEASURED else [trial.state if trial.state == STOPPED else f"failed: {trial.reason}"]
    notes += ["misses an objective"] if trial.state == MEASURED and not trial.feasible else []
    return "  ".join(part for part in (f"{trial.number:3d}", figures, str(trial.knobs), *notes) if part)


def _first_line(exc: Exception) -> str:
    return str(exc).partition("\n")[0]


def _gpus() -> int:
    """How many GPUs ONNX Runtime would use: none without its CUDA provider."""
    try:
        import onnxruntime
    except ImportError:
        return 0
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return 0
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return 0
    return len(list(Path("/dev").glob("nvidia[0-9]*")))
