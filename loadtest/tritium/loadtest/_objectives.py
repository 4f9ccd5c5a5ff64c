"""Service-level objectives: what a run must reach, written as in ``p99<25ms, errors<0.1%, rps>500, wrong=0``."""

from __future__ import annotations

import difflib
import operator
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tritium.client import InputError

from ._figures import Figures

_OBJECTIVE = re.compile(
    r"(?:(?P<model>[\w.-]+):)?(?P<metric>[a-z][\w.]*)\s*(?P<sign><=|>=|<|>|=|≤|≥)\s*(?P<value>\d+(?:\.\d+)?)\s*(?P<unit>\S*)",
    re.ASCII | re.IGNORECASE,
)
_SIGNS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    "≤": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "≥": operator.ge,
    "=": operator.eq,
}
_MS: Mapping[str, float] = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
_LATENCIES: Mapping[str, Callable[[Figures], float]] = {
    "p50": lambda found: found.p50_ms,
    "p90": lambda found: found.p90_ms,
    "p95": lambda found: found.p95_ms,
    "p99": lambda found: found.p99_ms,
    "p99.9": lambda found: found.p999_ms,
    "mean": lambda found: found.mean_ms,
    "max": lambda found: found.max_ms,
}
_RATES: Mapping[str, Callable[[Figures], float]] = {
    "rps": lambda found: found.requests_per_s,
    "rows": lambda found: found.rows_per_s,
}
_COUNTS: Mapping[str, Callable[[Figures], int]] = {
    "errors": lambda found: found.errors,
    "wrong": lambda found: found.wrong,
    "rejected": lambda found: found.rejected,
    "timeouts": lambda found: found.timed_out,
    "failed": lambda found: found.failed,
}
_MEASURES: Mapping[str, Callable[[Figures], float]] = {**_LATENCIES, **_RATES}
# Of what the server has; a rise in percent.
_MEMORY = "memory"
METRICS = (*_LATENCIES, *_RATES, *_COUNTS, _MEMORY)


@dataclass(frozen=True)
class Objective:
    """One thing that a run must reach.

    Attributes:
        text: as it was written.
        metric: what is looked at.
        sign: how it is compared.
        value: with what: milliseconds, a second's number, a count or, where `percent` is set, percent.
        percent: whether it is a share of all requests, or of the memory at the begin.
        model: which model's requests it is about; all if empty.
    """

    text: str
    metric: str
    sign: str
    value: float
    percent: bool = False
    model: str = ""

    def judge(self, runs: Sequence[Evidence]) -> Verdict:
        """Whether runs reach it: by their median; of counts, by all together.

        Raises:
            InputError: it is about a model or a server that these runs know nothing of.
        """
        found = self._found(runs)
        if self.metric != _MEMORY and not any(figures.requests for figures in self._figures(runs)):
            return Verdict(self.text, False, found, "there were no requests")
        # Without one right answer there is no latency, and no promise about it is kept.
        if self.metric in _LATENCIES and not any(figures.right for figures in self._figures(runs)):
            return Verdict(self.text, False, found, "there was no right answer")
        return Verdict(self.text, _SIGNS[self.sign](found, self.value), found, self._shown(found))

    def _figures(self, runs: Sequence[Evidence]) -> list[Figures]:
        missing = [run for run in runs if self.model and self.model not in run.models]
        if missing:
            known = list(missing[0].models)
            close = difflib.get_close_matches(self.model, known, 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise InputError(
                f"The objective {self.text!r} is about {self.model!r}, which was not sent to; "
                f"there are {', '.join(known)}.{hint}"
            )
        if self.model:
            return [run.models[self.model] for run in runs]
        return [run.everywhere if self.metric == "wrong" else run.judged for run in runs]

    def _found(self, runs: Sequence[Evidence]) -> float:
        if self.metric == _MEMORY:
            rises = [run.memory_rise_percent for run in runs if run.memory_rise_percent is not None]
            if not rises:
                raise InputError(
                    f"The objective {self.text!r} needs a server on this machine, whose memory can be looked at"
                )
            return statistics.median(rises)
        mine = self._figures(runs)
        if self.metric in _COUNTS:
            count = sum(map(_COUNTS[self.metric], mine))
            requests = sum(figures.requests for figures in mine)
            return 100.0 * count / requests if self.percent and requests else float(count)
        return statistics.median(map(_MEASURES[self.metric], mine))

    def _shown(self, found: float) -> str:
        if self.metric in _LATENCIES:
            return f"{found:.3g} ms" if found < 100 else f"{found:.0f} ms"
        if self.metric in _RATES:
            return f"{found:.0f}/s"
        return f"{found:.3g} %" if self.percent else f"{found:.0f}"


@dataclass(frozen=True)
class Evidence:
    """What objectives look at in one run.

    Attributes:
        judged: the figures of the stages that are judged.
        everywhere: those of all stages.
        models: those of each model in the judged stages.
        memory_rise_percent: how much more memory the server's processes held at the end than after the warm-up; None
            where nobody could look.
    """

    judged: Figures
    everywhere: Figures
    models: Mapping[str, Figures]
    memory_rise_percent: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What came of an objective.

    Attributes:
        objective: as it was written.
        ok: whether it was reached.
        found: what was measured, in the objective's unit.
        shown: the same for people.
    """

    objective: str
    ok: bool
    found: float
    shown: str

    def __str__(self) -> str:
        """As in ``p99<25ms: NOT met, 31.2 ms``."""
        return f"{self.objective}: {'met' if self.ok else 'NOT met'}, {self.shown}"


def parse_objectives(text: str) -> list[Objective]:
    """Read objectives, separated by commas.

    Raises:
        InputError: one of them says nothing that can be measured.
    """
    return [_parsed(part.strip()) for part in text.split(",") if part.strip()]


def _parsed(text: str) -> Objective:
    match = _OBJECTIVE.fullmatch(text)
    if match is None:
        raise InputError(
            f"{text!r} is no objective; one is written as in 'p99<25ms', 'errors<0.1%', 'rps>500', 'wrong=0' or "
            "'digits_cnn:p99<25ms'"
        )
    metric, unit = match["metric"].lower(), match["unit"]
    if metric not in METRICS:
        close = difflib.get_close_matches(metric, METRICS, 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise InputError(f"{text!r} is about {metric!r}, which is not measured; there are {', '.join(METRICS)}.{hint}")
    value = float(match["value"])
    if metric in _LATENCIES:
        if unit not in _MS:
            raise InputError(f"{text!r} needs a unit of time: us, ms or s")
        return Objective(text, metric, match["sign"], value * _MS[unit], model=match["model"] or "")
    if metric == _MEMORY:
        if unit != "%" or match["model"]:
            raise InputError(f"{text!r} must be a rise of the whole server's memory in percent, as in 'memory<5%'")
        return Objective(text, metric, match["sign"], value, percent=True)
    allowed = ("", "/s") if metric in _RATES else ("", "%")
    if unit not in allowed:
        raise InputError(f"{text!r} has the unit {unit!r}; {metric} takes {' or '.join(map(repr, allowed))}")
    return Objective(text, metric, match["sign"], value, percent=unit == "%", model=match["model"] or "")
