"""Service-level objectives: what a run must reach, written as in ``p99<25ms, errors<0.1%, rps>500, wrong=0``."""

from __future__ import annotations

import difflib
import math
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
# Of what the server has; a rise in percent.
MEMORY = "memory"
METRICS = (*_LATENCIES, *_RATES, *_COUNTS, MEMORY)


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

    def check(self, models: Sequence[str], *, memory: bool) -> None:
        """See whether it can be judged, before anything is measured.

        Args:
            models: what is sent to.
            memory: whether the server's memory can be looked at.

        Raises:
            InputError: it is about another model, or about memory that nobody sees.
        """
        if self.model and self.model not in models:
            close = difflib.get_close_matches(self.model, models, 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise InputError(
                f"The objective {self.text!r} is about {self.model!r}, which is not sent to; "
                f"there are {', '.join(models)}.{hint}"
            )
        if self.metric == MEMORY and not memory:
            raise InputError(
                f"The objective {self.text!r} needs a server on this machine, whose memory can be looked at"
            )

    def judge(self, runs: Sequence[Evidence]) -> Verdict:
        """Whether runs reach it: by their median; of counts, by all together. What was not measured is not reached."""
        if self.metric == MEMORY:
            rises = [run.memory_rise_percent for run in runs if run.memory_rise_percent is not None]
            if not rises:
                return Verdict(self.text, False, 0.0, "it was not measured")
            found = statistics.median(rises)
        elif not any(figures.requests for figures in self._figures(runs)):
            return Verdict(self.text, False, 0.0, "there were no requests")
        else:
            found = self._found(runs)
            if math.isinf(found):
                return Verdict(self.text, False, 0.0, "there was no right answer")
        return Verdict(self.text, _SIGNS[self.sign](found, self.value), found, self._shown(found))

    def _figures(self, runs: Sequence[Evidence]) -> list[Figures]:
        everywhere = self.metric == "wrong"
        if not self.model:
            return [run.everywhere if everywhere else run.judged for run in runs]
        models = [run.models_everywhere if everywhere else run.models for run in runs]
        return [of_run.get(self.model, Figures(duration_s=0.0)) for of_run in models]

    def _found(self, runs: Sequence[Evidence]) -> float:
        mine = self._figures(runs)
        if self.metric in _LATENCIES:
            # A run without one right answer has no latency, and keeps no promise about it.
            return statistics.median(_LATENCIES[self.metric](found) if found.right else math.inf for found in mine)
        if self.metric in _COUNTS:
            count = sum(map(_COUNTS[self.metric], mine))
            requests = sum(figures.requests for figures in mine)
            return 100.0 * count / requests if self.percent and requests else float(count)
        return statistics.median(map(_RATES[self.metric], mine))

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
        models_everywhere: those of each model in all stages.
        memory_rise_percent: how much more memory the server's processes held at the end than after the warm-up; None
            where nobody could look.
    """

    judged: Figures
    everywhere: Figures
    models: Mapping[str, Figures]
    models_everywhere: Mapping[str, Figures]
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
        InputError: there is none, or one says nothing that can be measured.
    """
    if found := [_parsed(part.strip()) for part in text.split(",") if part.strip()]:
        return found
    raise InputError(f"There is no objective in {text!r}; one is written as in 'p99<25ms' or 'errors<0.1%'")


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
    if metric == MEMORY:
        if unit != "%" or match["model"]:
            raise InputError(f"{text!r} must be a rise of the whole server's memory in percent, as in 'memory<5%'")
        return Objective(text, metric, match["sign"], value, percent=True)
    allowed = ("", "/s") if metric in _RATES else ("", "%")
    if unit not in allowed:
        raise InputError(f"{text!r} has the unit {unit!r}; {metric} takes {' or '.join(map(repr, allowed))}")
    return Objective(text, metric, match["sign"], value, percent=unit == "%", model=match["model"] or "")
