"""What a run came to: figures of each stage, of each model and of each second, from both sides."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritium.client import InputError

from ._figures import Figures, figures, knee, latency_curve
from ._objectives import Evidence, Verdict
from ._observer import Look, Work, nearest, together, work
from ._plan import Plan, Stage
from ._requests import Outcome, Requests

# What the files say of their form; another one is not read.
_FORMAT = 1
# What of the memory after the warm-up and at the end is compared: the middle of so much of the run.
_MEMORY_SHARE = 0.2
# Beyond this the load generator's own delay is worth a word.
_LATE_MS = 5.0


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """One stage.

    Attributes:
        stage: what was asked.
        figures: as the client saw it, without the stage's begin.
        work: what the server did meanwhile; None if nobody could ask it.
    """

    stage: Stage
    figures: Figures
    work: Work | None


@dataclass(frozen=True, kw_only=True)
class Second:
    """One second of a run.

    Attributes:
        at_s: its begin, in seconds from the run's.
        right: requests of it that were answered right.
        errors: those that were not.
        p50_ms: median latency of those that were due in it.
        p99_ms: 99th percentile.
        cpu_percent: of one processor that the server took; None where nobody could look.
        memory_mb: its resident memory; None where nobody could look.
        batch_sizes: how many times it ran with a batch of each size.
    """

    at_s: float
    right: int
    errors: int
    p50_ms: float
    p99_ms: float
    cpu_percent: float | None = None
    memory_mb: float | None = None
    batch_sizes: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LoadResult:
    """One run of a suite.

    Attributes:
        suite: its name.
        url: the server.
        began: when, in ISO 8601.
        stages: each with its figures.
        judged: the figures that objectives are about: of the stages that are judged, in a ramp of its knee.
        everywhere: the figures of all stages.
        models: those of each model in the judged stages.
        models_everywhere: those of each model in all stages.
        work: what the server did for each model in the whole run; empty if nobody could ask it.
        timeline: each second.
        curve: percentiles of the latency in the judged stages, and their milliseconds.
        errors: how often each error came, by its first line.
        knee: the stage from which on more load only brings more latency; None if the suite does not look for it.
        events: what was done to the server, and when, in seconds from the begin.
        memory_rise_percent: of the server's memory, from after the warm-up to the end; None where nobody could look.
        remarks: what one should know before believing the figures.
        machine: where it ran.
        interrupted: whether Ctrl-C ended it; then the last of its stages is as long as it was.
        lost_workers: processes that were to send and did not, or did not say what became of it.
    """

    suite: str
    url: str
    began: str
    stages: tuple[StageResult, ...]
    judged: Figures
    everywhere: Figures
    models: Mapping[str, Figures]
    work: Mapping[str, Work]
    timeline: tuple[Second, ...]
    curve: tuple[tuple[float, float], ...]
    errors: Mapping[str, int]
    knee: str | None = None
    events: tuple[tuple[float, str], ...] = ()
    memory_rise_percent: float | None = None
    remarks: tuple[str, ...] = ()
    machine: Mapping[str, Any] = field(default_factory=dict)
    interrupted: bool = False
    lost_workers: int = 0
    models_everywhere: Mapping[str, Figures] = field(default_factory=dict)

    @property
    def duration_s(self) -> float:
        """Of all stages."""
        return sum(item.stage.duration_s for item in self.stages)

    @property
    def evidence(self) -> Evidence:
        """What objectives look at."""
        return Evidence(self.judged, self.everywhere, self.models, self.models_everywhere, self.memory_rise_percent)

    @property
    def whole(self) -> bool:
        """Whether it came to its end, with all who were to send, and had an answer."""
        return bool(self.everywhere.requests) and not self.interrupted and not self.lost_workers


@dataclass(frozen=True, kw_only=True)
class Level:
    """All stages of one name in all runs, taken together.

    Attributes:
        name: the stages' name.
        load: what each asked, in words.
        rounds: the figures of each.
        work: what the server did in all of them; None if nobody could ask it.
    """

    name: str
    load: str
    rounds: tuple[Figures, ...]
    work: Work | None

    def median(self, measure: str) -> float:
        """The median over the rounds of one of the figures, such as ``p99_ms``; 0 if none has it.

        A round without a right answer has no latency.
        """
        rounds = [found for found in self.rounds if found.right or not measure.endswith("_ms")]
        return float(statistics.median(getattr(found, measure) for found in rounds)) if rounds else 0.0


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """A suite, run once or several times, and the verdict.

    Attributes:
        runs: one after the other.
        verdicts: one for each objective.
        interrupted: whether Ctrl-C ended the last of them, or kept more from being made.
    """

    runs: tuple[LoadResult, ...]
    verdicts: tuple[Verdict, ...]
    interrupted: bool = False

    @property
    def suite(self) -> str:
        """The suite's name."""
        return self.runs[0].suite

    @property
    def ok(self) -> bool:
        """Whether all runs were made and are whole, and every objective was reached."""
        whole = not self.interrupted and all(run.whole for run in self.runs)
        return whole and all(verdict.ok for verdict in self.verdicts)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The stages, those of one name together, in the order in which they came first."""
        stages: dict[str, list[StageResult]] = {}
        for run in self.runs:
            for item in run.stages:
                stages.setdefault(item.stage.name, []).append(item)
        return tuple(
            Level(
                name=name,
                load=items[0].stage.load,
                rounds=tuple(item.figures for item in items),
                work=together([item.work for item in items if item.work is not None]),
            )
            for name, items in stages.items()
        )

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON types; rates beside the counts that they are made of."""
        document = asdict(self) | {"format": _FORMAT, "suite": self.suite, "ok": self.ok}
        for item, run in zip(document["runs"], self.runs, strict=True):
            of_models = (*item["models"].values(), *item["models_everywhere"].values())
            for found in (item["judged"], item["everywhere"], *of_models):
                _with_rates(found)
            for stage in item["stages"]:
                _with_rates(stage["figures"])
            item["machine"] = dict(run.machine)
        return document

    def save(self, path: Path) -> None:
        """Write it as JSON, whole or not at all.

        Raises:
            InputError: the file cannot be written.
        """
        write_whole(path, json.dumps(self.to_json(), indent=1))

    @classmethod
    def load(cls, path: Path) -> LoadReport:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: there is no such file, or it is none of these.
        """
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["format"] != _FORMAT:
                raise InputError(f"{path} has the form {document['format']!r}; this version reads {_FORMAT}")
            verdicts = tuple(Verdict(**verdict) for verdict in document["verdicts"])
            runs = tuple(map(_run, document["runs"]))
            return cls(runs=runs, verdicts=verdicts, interrupted=document["interrupted"])
        except OSError as exc:
            raise InputError(f"{path} cannot be read: {exc.strerror}") from exc
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            if isinstance(exc, InputError):
                raise
            raise InputError(f"{path} is no result of `tritium load`: {type(exc).__name__}: {exc}") from exc


def write_whole(path: Path, text: str) -> None:
    """Write a file, whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    aside = path.with_name(f".{path.name}.partial")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError as exc:
        raise InputError(f"{path} cannot be written: {exc.strerror}") from exc


def result_of(
    suite: str,
    url: str,
    plan: Plan,
    requests: Requests,
    looks: Sequence[Look],
    *,
    events: Sequence[tuple[float, str]] = (),
    find_knee: bool = False,
) -> LoadResult:
    """The figures of a run.

    Args:
        suite: the suite's name.
        url: the server.
        plan: what was asked.
        requests: every request.
        looks: at the server, meanwhile.
        events: what was done to it, and when, in seconds from the run's begin.
        find_knee: whether the stages are levels of one load, and what is judged is the knee.
    """
    planned_s = plan.duration_s
    if requests.cut_s is not None:
        plan = plan.until(requests.cut_s)
        requests = requests.between(-np.inf, plan.duration_s)
    stages = tuple(_stage_result(plan, index, requests, looks) for index in range(len(plan.stages)))
    place = knee([item.figures for item in stages]) if find_knee else None
    judged = [index for index, stage in enumerate(plan.stages) if (stage.judged if place is None else index == place)]
    settled = requests.where(_settled(plan, requests, judged))
    judged_s = sum(plan.stages[index].duration_s - plan.stages[index].settling_s for index in judged)
    models = {name: figures(settled.of_model(name), judged_s) for name in settled.models}
    began_s, ended_s = requests.began_s, requests.began_s + plan.duration_s
    served = dict.fromkeys(name for look in looks for name in look.counts)
    done = {name: work(looks, began_s, ended_s, (name,)) for name in served}
    found = figures(settled, judged_s)
    return LoadResult(
        suite=suite,
        url=url,
        began=datetime.fromtimestamp(began_s, UTC).isoformat(timespec="seconds"),
        stages=stages,
        judged=found,
        everywhere=figures(requests, plan.duration_s),
        models={name: of_model for name, of_model in models.items() if name and of_model.requests},
        models_everywhere={name: figures(requests.of_model(name), plan.duration_s) for name in requests.models if name},
        work={name: item for name, item in done.items() if item is not None and item.requests},
        timeline=_timeline(plan, requests, looks),
        curve=tuple(latency_curve(settled)),
        errors=dict(requests.errors),
        knee=None if place is None else plan.stages[place].name,
        events=tuple(events),
        memory_rise_percent=_memory_rise(looks, began_s, ended_s),
        remarks=_remarks(found, requests, plan, planned_s),
        machine=_machine(),
        interrupted=requests.cut_s is not None,
        lost_workers=requests.lost_workers,
    )


def _stage_result(plan: Plan, index: int, requests: Requests, looks: Sequence[Look]) -> StageResult:
    stage, begin_s = plan.stages[index], plan.begin_s(index)
    settled_s, end_s = begin_s + stage.settling_s, begin_s + stage.duration_s
    found = figures(requests.between(settled_s, end_s), end_s - settled_s)
    done = work(looks, requests.began_s + begin_s, requests.began_s + end_s, stage.models)
    return StageResult(stage=stage, figures=found, work=done)


def _settled(plan: Plan, requests: Requests, judged: Sequence[int]) -> NDArray[np.bool_]:
    """Which requests were due in a stage that is judged, when it had settled."""
    places = np.searchsorted(plan.ends_s, requests.due_s, side="right")
    begins = np.array([plan.begin_s(index) + stage.settling_s for index, stage in enumerate(plan.stages)] + [np.inf])
    return np.isin(places, judged) & (requests.due_s >= begins[places])


def _timeline(plan: Plan, requests: Requests, looks: Sequence[Look]) -> tuple[Second, ...]:
    seconds = []
    for at_s in range(int(np.ceil(plan.duration_s))):
        here = requests.between(at_s, at_s + 1)
        right = here.latency_ms[here.outcome == Outcome.RIGHT]
        p50_ms, p99_ms = map(float, np.percentile(right, (50, 99))) if len(right) else (0.0, 0.0)
        server = _server_second(looks, requests.began_s + at_s)
        errors = len(here) - len(right)
        seconds.append(
            Second(at_s=float(at_s), right=len(right), errors=errors, p50_ms=p50_ms, p99_ms=p99_ms, **server)
        )
    return tuple(seconds)


def _server_second(looks: Sequence[Look], begin_s: float) -> dict[str, Any]:
    """What the server did in a second."""
    if len(looks) < 2:
        return {}
    first, last = nearest(looks, begin_s), nearest(looks, begin_s + 1)
    done = work(looks, begin_s, begin_s + 1)
    server: dict[str, Any] = {"batch_sizes": done.batch_sizes if done else {}}
    if last.memory_bytes is not None:
        server["memory_mb"] = last.memory_bytes / 1e6
    # A process that ended takes what it had spent with it.
    if last.cpu_s is not None and first.cpu_s is not None and last.at_s > first.at_s:
        server["cpu_percent"] = max(0.0, 100 * (last.cpu_s - first.cpu_s) / (last.at_s - first.at_s))
    return server


def _memory_rise(looks: Sequence[Look], began_s: float, ended_s: float) -> float | None:
    """By how much the server's memory rose, in percent: the median of the last fifth over that of the second one."""
    seen = [(look.at_s, look.memory_bytes) for look in looks if look.memory_bytes and began_s <= look.at_s <= ended_s]
    share_s = (ended_s - began_s) * _MEMORY_SHARE
    early = [size for at_s, size in seen if began_s + share_s <= at_s < began_s + 2 * share_s]
    late = [size for at_s, size in seen if at_s >= ended_s - share_s]
    return 100 * (float(np.median(late)) / float(np.median(early)) - 1) if early and late else None


def _remarks(found: Figures, requests: Requests, plan: Plan, planned_s: float) -> tuple[str, ...]:
    remarks = []
    if requests.cut_s is not None:
        remarks.append(f"the run was interrupted after {plan.duration_s:.1f} of {planned_s:g} s")
    if requests.lost_workers:
        remarks.append(
            f"{requests.lost_workers} of the processes that were to send did not, or did not say what became of it: "
            "the load was not the one that was asked for"
        )
    if not len(requests):
        remarks.append("no request was answered, or failed, in the whole run")
    if found.late_p99_ms > _LATE_MS:
        remarks.append(
            f"one request in a hundred was sent {found.late_p99_ms:.0f} ms late or later: the server was slower than "
            "the rate asked for, or the load generator was; the delay is part of the latencies"
        )
    return tuple(remarks)


def _machine() -> dict[str, Any]:
    return {
        "cpus": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "tritium": metadata.version("tritium"),
        "locust": metadata.version("locust"),
    }


def _with_rates(found: dict[str, Any]) -> None:
    whole = Figures(**found)
    found |= {"errors": whole.errors, "requests_per_s": whole.requests_per_s, "rows_per_s": whole.rows_per_s}


def _figures(document: Mapping[str, Any]) -> Figures:
    return Figures(**{k: v for k, v in document.items() if k not in ("errors", "requests_per_s", "rows_per_s")})


def _work(document: Mapping[str, Any] | None) -> Work | None:
    return None if document is None else Work(**{**document, "batch_sizes": _sizes(document["batch_sizes"])})


def _sizes(document: Mapping[str, int]) -> dict[int, int]:
    return {int(size): count for size, count in document.items()}


def _run(document: Mapping[str, Any]) -> LoadResult:
    stages = tuple(
        StageResult(
            stage=Stage(**{**item["stage"], "models": tuple(item["stage"]["models"])}),
            figures=_figures(item["figures"]),
            work=_work(item["work"]),
        )
        for item in document["stages"]
    )
    return LoadResult(
        **{
            **document,
            "stages": stages,
            "judged": _figures(document["judged"]),
            "everywhere": _figures(document["everywhere"]),
            "models": {name: _figures(item) for name, item in document["models"].items()},
            "models_everywhere": {name: _figures(item) for name, item in document["models_everywhere"].items()},
            "work": {name: _work(item) for name, item in document["work"].items()},
            "timeline": tuple(
                Second(**{**item, "batch_sizes": _sizes(item["batch_sizes"])}) for item in document["timeline"]
            ),
            "curve": tuple((percent, value_ms) for percent, value_ms in document["curve"]),
            "events": tuple((at_s, text) for at_s, text in document["events"]),
            "remarks": tuple(document["remarks"]),
        }
    )
