"""The memory of a Triton and of its backend processes: looks at it, and whether it stays flat over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tritium.server._stubs import stubs

KINDS = ("rss", "pss")
TRITON, ALL = "triton", "all"
# The first share of the time; caches and arenas fill in it.
WARM_UP_SHARE = 0.2
# From the end of the warm-up to the end.
MAX_GROWTH = 0.05
# What the trend of the last half adds within that half.
MAX_TREND = 0.01
# Each end is the median of this share of the time.
_END_SHARE = 0.1
_LEAST_SAMPLES = 50


@dataclass(frozen=True)
class Sample:
    """One look: megabytes (1 000 000 bytes) by kind and process.

    Attributes:
        at_s: seconds since the start.
        mb: by ``rss`` and ``pss``, then ``triton``, the models that have a backend process, and ``all`` together.
            Of pss each shared page is divided among those that share it, other programs included.
    """

    at_s: float
    mb: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Verdict:
    """How the resident memory of one process, or of all, went.

    Attributes:
        growth: from the end of the warm-up to the end, as a share.
        trend: what the median of the slopes between any two samples of the last half adds within it, as a share.
    """

    warm_mb: float
    end_mb: float
    growth: float
    trend: float
    flat: bool


def look(triton_pid: int, at_s: float = 0.0) -> Sample:
    """The memory now."""
    names = {triton_pid: TRITON, **stubs(triton_pid)}
    mb: dict[str, dict[str, float]] = {kind: {} for kind in KINDS}
    for pid, name in names.items():
        with suppress(psutil.NoSuchProcess):  # it ended meanwhile
            found = psutil.Process(pid).memory_full_info()
            for kind in KINDS:
                # Instances of one model count together.
                mb[kind][name] = mb[kind].get(name, 0.0) + getattr(found, kind) / 1e6
    return Sample(at_s, {kind: mine | {ALL: sum(mine.values())} for kind, mine in mb.items()})


def series(samples: Sequence[Sample], kind: str, process: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Seconds and megabytes of one process."""
    found = [(sample.at_s, sample.mb[kind][process]) for sample in samples if process in sample.mb[kind]]
    times, sizes = np.array(found, np.float64).reshape(-1, 2).T
    return times, sizes


def processes(samples: Sequence[Sample]) -> list[str]:
    """Who was looked at."""
    return list(dict.fromkeys(process for sample in samples for process in sample.mb["rss"]))


def least_minutes(every_s: float) -> float:
    """How long a run must be to be judged."""
    return _LEAST_SAMPLES * every_s / 60


def judge(times: NDArray[np.float64], sizes: NDArray[np.float64]) -> Verdict:
    """Whether memory stayed flat after the warm-up."""
    whole_s = float(times[-1])
    warm_s, end_s = whole_s * WARM_UP_SHARE, whole_s * _END_SHARE
    warm_mb = float(np.median(sizes[(times >= warm_s) & (times <= warm_s + end_s)]))
    end_mb = float(np.median(sizes[times >= whole_s - end_s]))
    late = times >= whole_s / 2
    trend = _slope(times[late], sizes[late]) * whole_s / 2 / float(np.median(sizes[late]))
    growth = end_mb / warm_mb - 1
    flat = growth < MAX_GROWTH and trend < MAX_TREND
    return Verdict(round(warm_mb, 2), round(end_mb, 2), round(growth, 5), round(trend, 5), flat)


def _slope(times: NDArray[np.float64], sizes: NDArray[np.float64]) -> float:
    """Theil and Sen's: it does not follow a single sample that lies far off."""
    one, other = np.triu_indices(len(times), k=1)
    return float(np.median((sizes[other] - sizes[one]) / (times[other] - times[one])))


def draw(samples: Sequence[Sample], title: str, path: Path) -> None:
    """Write the curves as a PNG: resident memory on the left, proportional on the right."""
    # A figure of its own, not pyplot's: no display is asked for and no state is shared.
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    for axes, kind in zip(figure.subplots(1, 2, sharey=True), KINDS, strict=True):
        for number, process in enumerate(processes(samples)):
            times, sizes = series(samples, kind, process)
            # Ten colours, and more processes than that where each model has its own.
            style = "-" if number < 10 else "--"
            axes.plot(times / 60, sizes, style, label=process, linewidth=2 if process == ALL else 1)
        axes.axvspan(0, samples[-1].at_s * WARM_UP_SHARE / 60, color="grey", alpha=0.15, label="warm-up")
        axes.set(xlabel="minutes", title=kind.upper(), ylim=(0, None))
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("MB")
    figure.axes[-1].legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=100, metadata={"Software": None})
