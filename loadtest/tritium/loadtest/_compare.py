"""Two results side by side: is one worse than the other, or is that the noise?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tritium.client import InputError, MissingExtraError

from ._result import LoadReport, LoadResult, Second, StageResult

# Into how many blocks a level that was run once is cut, at most.
_BLOCKS = 10


@dataclass(frozen=True, kw_only=True)
class _Metric:
    """What is compared: from a round, and from a block of seconds where there is one round only.

    Attributes:
        name: for people, with its unit.
        better: 1 if more of it is better, -1 if less is, 0 if neither is.
        of_round: the value; None where there is none.
        of_block: likewise; None where seconds do not tell.
        judged: whether the verdict counts; not of what goes with another figure, because each one more widens all
            intervals.
        share: whether it is in percent, so that differences and not ratios are compared.
    """

    name: str
    better: int
    of_round: Callable[[StageResult], float | None]
    of_block: Callable[[Sequence[Second]], float | None] | None = None
    judged: bool = True
    share: bool = False


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One figure of one level in both results.

    Attributes:
        level: the level's name.
        metric: the figure, with its unit.
        a: its median over the samples of A; None where there are none.
        b: likewise of B.
        samples_a: how many there are: rounds, or blocks of seconds.
        samples_b: likewise.
        ratio: B over A, of geometric means; of shares in percent, B minus A.
        low: the lower end of the ratio's interval; None where there are too few samples for one.
        high: its upper end.
        judged: whether the verdict counts.
        verdict: ``worse`` or ``better`` if the whole interval lies beyond what is tolerated (``more`` or ``less`` of a
            figure of which neither is better), ``same`` if it lies within, ``unclear`` if the noise is too large to
            tell, ``unknown`` if nothing is known of the noise.
    """

    level: str
    metric: str
    a: float | None
    b: float | None
    samples_a: int
    samples_b: int
    ratio: float | None
    low: float | None
    high: float | None
    judged: bool
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two results of a suite, compared.

    Attributes:
        suite: its name.
        differences: each figure of each level that both have.
        remarks: what one should know before believing it.
        blocks: whether the noise is that within single runs, for want of repeats.
        tolerance_percent: what change is tolerated.
        confidence_percent: how sure it is that all intervals that are judged hold.
    """

    suite: str
    differences: tuple[Difference, ...]
    remarks: tuple[str, ...]
    blocks: bool
    tolerance_percent: float
    confidence_percent: float

    @property
    def worse(self) -> tuple[Difference, ...]:
        """In what B is worse than A, beyond the noise and what is tolerated."""
        return tuple(item for item in self.differences if item.judged and item.verdict == "worse")

    @property
    def ok(self) -> bool:
        """Whether B is worse in nothing."""
        return not self.worse

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON types."""
        return asdict(self) | {"ok": self.ok, "worse": [asdict(item) for item in self.worse]}


def compare_reports(
    a: LoadReport, b: LoadReport, *, tolerance_percent: float = 5.0, confidence_percent: float = 95.0
) -> Comparison:
    """Compare two results of one suite, level by level, with the noise of both.

    The samples are the rounds: all stages of a name, in all runs. Where a level was run once, they are blocks of its
    seconds, which know nothing of what differs from one run to the next. The interval is Welch's for the difference of
    two means (B. L. Welch, Biometrika 34, 1947) with Satterthwaite's degrees of freedom (F. E. Satterthwaite,
    Biometrics Bulletin 2, 1946): of the logarithms of rates and latencies, so that it is one of the ratio of geometric
    means; of the shares of errors themselves. Each is so wide that all that are judged hold together (Bonferroni), so
    that many levels make a false alarm no likelier. What is judged: requests a second, p50, p99 and errors.

    Args:
        a: the result to compare with.
        b: the result that is judged.
        tolerance_percent: by how much a figure may become worse; of a share of errors, by so much of the share in A.
        confidence_percent: how sure it is that all judged intervals hold.

    Returns:
        Each figure in both, and whether B is worse.

    Raises:
        InputError: the results are of different suites, have no level in common, or tell nothing of their noise; or
            an argument is out of its range.
        MissingExtraError: SciPy is not installed.
    """
    if not 0 <= tolerance_percent < math.inf:
        raise InputError(f"The 'tolerance_percent' parameter must be 0 or more, got {tolerance_percent:g} instead")
    if not 0 < confidence_percent < 100:
        raise InputError(
            f"The 'confidence_percent' parameter must be between 0 and 100, got {confidence_percent:g} instead"
        )
    if a.suite != b.suite:
        raise InputError(f"Only results of one suite can be compared, and A is of {a.suite!r}, B of {b.suite!r}")
    mine, others = _rounds(a), _rounds(b)
    names = [name for name in mine if name in others]
    if not names:
        raise InputError(f"A has the levels {', '.join(mine)}, B has {', '.join(others)}: none is in both")
    pairs = [pair for name in names for pair in _pairs(name, a, b, mine[name], others[name])]
    if not any(pair.judged and pair.known for pair in pairs):
        raise InputError("Nothing is known of the noise: repeat the runs, or let each level last for several seconds")
    # What is the same in every sample, such as no errors at all, cannot be wrong by chance.
    chances = sum(pair.judged and pair.known and len({*pair.a, *pair.b}) > 1 for pair in pairs)
    confidence = 1 - (1 - confidence_percent / 100) / max(chances, 1)
    differences = tuple(_difference(pair, tolerance_percent / 100, confidence) for pair in pairs)
    blocks = any(pair.blocks for pair in pairs)
    return Comparison(
        suite=a.suite,
        differences=differences,
        remarks=tuple(_remarks(a, b, mine, others, blocks)),
        blocks=blocks,
        tolerance_percent=tolerance_percent,
        confidence_percent=confidence_percent,
    )


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """The samples of a figure in both results."""

    level: str
    metric: _Metric
    a: Sequence[float]
    b: Sequence[float]
    blocks: bool
    judged: bool

    @property
    def known(self) -> bool:
        """Whether they tell something of the noise."""
        return min(len(self.a), len(self.b)) >= 2


def _rounds(report: LoadReport) -> dict[str, list[StageResult]]:
    rounds: dict[str, list[StageResult]] = {}
    for run in report.runs:
        for item in _whole(run):
            rounds.setdefault(item.stage.name, []).append(item)
    return rounds


def _whole(run: LoadResult) -> Sequence[StageResult]:
    """The stages that took all of their time; a run's only one however long it took."""
    return run.stages[:-1] if run.interrupted and len(run.stages) > 1 else run.stages


def _pairs(
    name: str, a: LoadReport, b: LoadReport, mine: Sequence[StageResult], others: Sequence[StageResult]
) -> list[_Pair]:
    blocks = min(len(mine), len(others)) < 2
    judged = mine[0].stage.judged and others[0].stage.judged
    pairs = []
    for metric in _METRICS:
        if blocks:
            of_block = metric.of_block
            samples = [[] if of_block is None else _present(map(of_block, _blocks(report, name))) for report in (a, b)]
        else:
            samples = [_present(map(metric.of_round, rounds)) for rounds in (mine, others)]
        if not all(samples):  # of a figure that cannot be had, one value of each is shown at least
            samples = [_present(map(metric.of_round, rounds)) for rounds in (mine, others)]
        if any(samples):
            judge = judged and metric.judged
            pairs.append(_Pair(level=name, metric=metric, a=samples[0], b=samples[1], blocks=blocks, judged=judge))
    return pairs


def _present(values: Any) -> list[float]:
    return [value for value in values if value is not None]


def _blocks(report: LoadReport, name: str) -> list[Sequence[Second]]:
    """The whole seconds of a level, without its begin, in blocks."""
    blocks: list[Sequence[Second]] = []
    for run in report.runs:
        begin_s = 0.0
        for item in _whole(run):
            end_s = begin_s + item.stage.duration_s
            if item.stage.name == name:
                settled_s = begin_s + item.stage.settling_s
                whole = [second for second in run.timeline if settled_s <= second.at_s <= end_s - 1]
                edges = np.linspace(0, len(whole), min(_BLOCKS, len(whole)) + 1).astype(int)
                blocks += [whole[low:high] for low, high in itertools.pairwise(edges)]
            begin_s = end_s
    return blocks


def _difference(pair: _Pair, tolerance: float, confidence: float) -> Difference:
    metric = pair.metric
    ratio = low = high = None
    verdict = "unknown"
    if pair.a and pair.b:
        samples = [np.array(values) if metric.share else np.log(values) for values in (pair.a, pair.b)]
        ratio = _unit(metric, float(samples[1].mean() - samples[0].mean()))
        if pair.known:
            ends = _welch(samples[0], samples[1], confidence)
            tolerated = tolerance * float(np.mean(pair.a)) if metric.share else math.log1p(tolerance)
            verdict = _verdict(ends, tolerated, metric.better)
            low, high = (_unit(metric, end) for end in ends)
    return Difference(
        level=pair.level,
        metric=metric.name,
        a=float(np.median(pair.a)) if pair.a else None,
        b=float(np.median(pair.b)) if pair.b else None,
        samples_a=len(pair.a),
        samples_b=len(pair.b),
        ratio=ratio,
        low=low,
        high=high,
        judged=pair.judged and pair.known,
        verdict=verdict,
    )


def _unit(metric: _Metric, difference: float) -> float:
    return difference if metric.share else math.exp(min(difference, 700.0))


def _verdict(ends: tuple[float, float], tolerated: float, better: int) -> str:
    low, high = ends
    if low > tolerated:
        return "better" if better > 0 else "worse" if better < 0 else "more"
    if high < -tolerated:
        return "worse" if better > 0 else "better" if better < 0 else "less"
    return "same" if low >= -tolerated and high <= tolerated else "unclear"


def _welch(a: Any, b: Any, confidence: float) -> tuple[float, float]:
    """The interval of the mean of `b` less that of `a`, from two samples each or more."""
    try:
        from scipy.special import stdtrit
    except ImportError as exc:
        raise MissingExtraError("scipy", "loadtest") from exc
    middle = float(b.mean() - a.mean())
    parts = [float(sample.var(ddof=1)) / len(sample) for sample in (a, b)]
    spread = math.sqrt(sum(parts))
    if not spread:
        return middle, middle
    freedom = sum(parts) ** 2 / sum(part**2 / (len(sample) - 1) for part, sample in zip(parts, (a, b), strict=True))
    reach = float(stdtrit(freedom, 1 - (1 - confidence) / 2)) * spread
    return middle - reach, middle + reach


def _remarks(
    a: LoadReport,
    b: LoadReport,
    mine: Mapping[str, Sequence[StageResult]],
    others: Mapping[str, Sequence[StageResult]],
    blocks: bool,
) -> list[str]:
    remarks = []
    if blocks:
        remarks.append(
            "a level was run once only, so its noise is that between blocks of seconds within the run, and latencies "
            "are the middle of the seconds' own; what differs from one run to the next is not in it: use --repeats"
        )
    for which, report in (("A", a), ("B", b)):
        if report.interrupted:
            remarks.append(f"{which} was interrupted")
        if lost := sum(run.lost_workers for run in report.runs):
            remarks.append(f"{which} lost {lost} of the processes that were to send")
        if wrong := sum(run.everywhere.wrong for run in report.runs):
            remarks.append(f"{which} had {wrong} wrong answers")
    for which, one, other in (("A", mine, others), ("B", others, mine)):
        if alone := [name for name in one if name not in other]:
            remarks.append(f"only {which} has {', '.join(alone)}")
    for name in mine.keys() & others.keys():
        loads = [rounds[name][0].stage.load for rounds in (mine, others)]
        if loads[0] != loads[1]:
            remarks.append(f"{name} was {loads[0]} in A and {loads[1]} in B")
    models = [", ".join(sorted(run.models)) for run in (a.runs[0], b.runs[0])]
    if models[0] != models[1]:
        remarks.append(f"A was about {models[0] or 'no model'}, B about {models[1] or 'no model'}")
    return sorted(remarks, key=lambda remark: remark.startswith("only")) + _machines(a.runs[0], b.runs[0])


def _machines(a: LoadResult, b: LoadResult) -> list[str]:
    keys = [key for key in a.machine if a.machine[key] != b.machine.get(key)]
    return [f"{key} was {a.machine[key]} in A and {b.machine.get(key, 'unknown')} in B" for key in keys]


def _rate(count: int, duration_s: float) -> float | None:
    """A rate whose logarithm can be taken: none at all counts as half a one."""
    return max(count, 0.5) / duration_s if duration_s else None


def _latency(measure: str) -> Callable[[StageResult], float | None]:
    return lambda item: getattr(item.figures, measure) if item.figures.right else None


def _middle(measure: str) -> Callable[[Sequence[Second]], float | None]:
    def of_block(seconds: Sequence[Second]) -> float | None:
        found = [getattr(second, measure) for second in seconds if second.right]
        return float(np.median(found)) if found else None

    return of_block


def _errors(right: int, errors: int) -> float | None:
    return 100 * errors / (right + errors) if right + errors else None


def _batch(seconds: Sequence[Second]) -> float | None:
    sizes = [(size, count) for second in seconds for size, count in second.batch_sizes.items()]
    runs = sum(count for _, count in sizes)
    return sum(size * count for size, count in sizes) / runs if runs else None


_METRICS = (
    _Metric(
        name="requests/s",
        better=1,
        of_round=lambda item: _rate(item.figures.right, item.figures.duration_s),
        of_block=lambda seconds: _rate(sum(second.right for second in seconds), len(seconds)),
    ),
    _Metric(
        name="rows/s", better=1, judged=False, of_round=lambda item: _rate(item.figures.rows, item.figures.duration_s)
    ),
    _Metric(name="p50 ms", better=-1, of_round=_latency("p50_ms"), of_block=_middle("p50_ms")),
    _Metric(name="p90 ms", better=-1, judged=False, of_round=_latency("p90_ms")),
    _Metric(name="p99 ms", better=-1, of_round=_latency("p99_ms"), of_block=_middle("p99_ms")),
    _Metric(
        name="errors %",
        better=-1,
        share=True,
        of_round=lambda item: _errors(item.figures.right, item.figures.errors),
        of_block=lambda seconds: _errors(
            sum(second.right for second in seconds), sum(second.errors for second in seconds)
        ),
    ),
    _Metric(
        name="mean batch",
        better=0,
        judged=False,
        of_round=lambda item: item.work.mean_batch_size if item.work and item.work.rows else None,
        of_block=_batch,
    ),
)
