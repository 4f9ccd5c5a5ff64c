"""A report for people: one HTML file that needs no network."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritium.client import MissingExtraError

from ._figures import Figures
from ._observer import Work, together
from ._result import LoadReport, LoadResult, write_whole
from ._suites import SUITES

if TYPE_CHECKING:
    from ._drawing import Plot

_TEMPLATE = "report.html.j2"
_NONE = "–"


@dataclass(frozen=True, kw_only=True)
class _Table:
    """A table of the page; the first column is of words, the others of numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: int | None = None


def write_report(report: LoadReport, path: str | Path) -> None:
    """Write a report that a browser shows without a network: the verdict, the figures, and their plots.

    Args:
        report: what :func:`run_suite` returned, or :meth:`LoadReport.load` read.
        path: the HTML file; it is written whole or not at all.

    Raises:
        MissingExtraError: Bokeh or Jinja2 is not installed.
        InputError: the file cannot be written.
    """
    page = _page(report)
    write_whole(Path(path), page)


def _page(report: LoadReport) -> str:
    try:
        from bokeh import __version__ as bokeh_version
        from bokeh.document import Document
        from bokeh.resources import Resources
    except ImportError as exc:
        raise MissingExtraError("bokeh", "loadtest") from exc
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as exc:
        raise MissingExtraError("jinja2", "loadtest") from exc
    sections = _sections(report)
    plots = [plot for section in sections for plot in section["plots"]]
    document = Document()
    for plot in plots:
        document.add_root(plot.model)
    places = {plot.model.id: plot.place for plot in plots}
    # Its widgets, tables and WebGL are not needed, and would make the file twice as large.
    script = "\n".join(Resources(mode="inline", components=["bokeh"]).js_raw) if plots else ""
    template = resources.files(__package__).joinpath("templates", _TEMPLATE).read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    # What a model of Bokeh's refers to comes before it.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    return environment.from_string(template).render(
        report=report,
        summary=SUITES[report.suite].summary if report.suite in SUITES else "",
        verdict=_verdict(report),
        cards=_cards(report),
        sections=sections,
        models=_models(report),
        errors=_errors(report),
        remarks=list(dict.fromkeys(remark for run in report.runs for remark in run.remarks)),
        facts=_facts(report, bokeh_version),
        script=script,
        documents={"report": document.to_json(deferred=False)},
        items=[{"docid": "report", "roots": places, "root_ids": list(places)}],
    )


def _sections(report: LoadReport) -> list[dict[str, Any]]:
    from . import _plots, _timeline

    sections: list[dict[str, Any]] = []

    def add(title: str, plots: Sequence[Plot], table: _Table | None = None, **more: Any) -> None:
        if plots or table:
            sections.append(
                {"title": title, "plots": list(plots), "table": table, "run": None, "folded": False, **more}
            )

    if report.suite == "batching":
        # A distribution of all of them together would be of none.
        title, plots = "The variants", _plots.variant_plots(report)
    elif len(report.levels) > 1:
        title, plots = "The levels of load", [*_plots.level_plots(report), *_plots.distribution_plots(report)]
    else:
        title, plots = "The load", [*_plots.work_plots(report.levels), *_plots.distribution_plots(report)]
    add(title, plots, _levels(report))
    for number, run in enumerate(report.runs, 1):
        title = "Over time" if len(report.runs) == 1 else f"Over time, run {number}"
        add(title, _timeline.time_plots(run, len(report.runs)), run=run, folded=number > 1)
    return sections


def _verdict(report: LoadReport) -> dict[str, Any]:
    missed = sum(not verdict.ok for verdict in report.verdicts)
    if report.interrupted:
        words = "It was interrupted."
    elif any(run.lost_workers for run in report.runs):
        words = "Processes that were to send were lost."
    elif not all(run.everywhere.requests for run in report.runs):
        words = "There was a run in which no request was answered."
    elif missed:
        words = f"{missed} of {len(report.verdicts)} objectives not met."
    elif report.verdicts:
        words = "Every objective is met." if len(report.verdicts) > 1 else "The objective is met."
    else:
        words = "No objective was set."
    return {"ok": report.ok, "words": words}


def _cards(report: LoadReport) -> list[tuple[str, str, str]]:
    """The figures to see first: a name, the value and its unit; medians over the runs."""
    judged = [run.judged for run in report.runs]
    works = [item for run in report.runs for item in run.work.values()]
    everywhere = [run.everywhere for run in report.runs]
    errors, requests = sum(found.errors for found in everywhere), sum(found.requests for found in everywhere)
    cards = [
        ("right answers", _count(_median(judged, "requests_per_s")), "/s"),
        ("rows", _count(_median(judged, "rows_per_s")), "/s"),
        ("p50 latency", _ms(judged, "p50_ms"), "ms"),
        ("p99 latency", _ms(judged, "p99_ms"), "ms"),
        ("errors", f"{errors:,}", f"of {requests:,}"),
    ]
    done = together(works)
    if done is not None and done.executions:
        cards.append(("mean batch", f"{done.mean_batch_size:.2f}", "rows"))
    rises = [run.memory_rise_percent for run in report.runs if run.memory_rise_percent is not None]
    if rises:
        cards.append(("memory's rise", f"{statistics.median(rises):+.1f}", "%"))
    return cards


def _levels(report: LoadReport) -> _Table:
    levels = report.levels
    loads = any(level.load != level.name for level in levels)
    served = any(level.work is not None for level in levels)
    header = ["", *(["load"] if loads else []), "requests/s", "rows/s", "p50 ms", "p90 ms", "p99 ms", "errors"]
    header += ["mean batch", "queue ms", "compute ms"] if served else []
    off = levels[0].median("requests_per_s") if report.suite == "batching" else 0.0
    header += ["requests/s ÷ off"] if off else []
    knees = [run.knee for run in report.runs if run.knee is not None]
    knee = max(knees, key=knees.count) if knees else None
    rows, marked = [], None
    for place, level in enumerate(levels):
        if level.name == knee:
            marked = place
        rows.append(
            [
                f"{level.name} (knee)" if level.name == knee else level.name,
                *([level.load] if loads else []),
                *_seen(level.rounds),
                *(_done(level.work) if served else []),
                *([f"× {level.median('requests_per_s') / off:.2f}"] if off else []),
            ]
        )
    return _Table(header=header, rows=rows, marked=marked)


def _models(report: LoadReport) -> _Table | None:
    """Each model that was sent to, or that the server ran in an ensemble, over all runs."""
    names = dict.fromkeys(name for run in report.runs for name in (*run.models, *run.work))
    if not names:
        return None
    served = any(run.work for run in report.runs)
    header = ["", "requests/s", "rows/s", "p50 ms", "p90 ms", "p99 ms", "errors"]
    header += ["mean batch", "queue ms", "compute ms"] if served else []
    rows = []
    for name in names:
        works = [run.work[name] for run in report.runs if name in run.work]
        seen = _seen([run.models[name] for run in report.runs if name in run.models])
        rows.append([name, *seen, *(_done(together(works)) if served else [])])
    return _Table(header=header, rows=rows)


def _seen(rounds: Sequence[Figures]) -> list[str]:
    """What the client saw, in the order of the tables' columns."""
    if not rounds:
        return [_NONE] * 6
    errors, requests = sum(found.errors for found in rounds), sum(found.requests for found in rounds)
    share = f" ({_percent(errors, requests)})" if errors else ""
    rates = [_count(_median(rounds, measure)) for measure in ("requests_per_s", "rows_per_s")]
    return [*rates, *(_ms(rounds, measure) for measure in ("p50_ms", "p90_ms", "p99_ms")), f"{errors:,}{share}"]


def _done(work: Work | None) -> list[str]:
    """What the server did, likewise."""
    if work is None or not work.requests:
        return [_NONE] * 3
    return [f"{work.mean_batch_size:.2f}", f"{work.queue_ms:.2f}", f"{work.compute_ms:.2f}"]


def _errors(report: LoadReport) -> list[tuple[int, str]]:
    counts: dict[str, int] = {}
    for run in report.runs:
        for error, count in run.errors.items():
            counts[error] = counts.get(error, 0) + count
    return sorted(((count, error) for error, count in counts.items()), reverse=True)


def _facts(report: LoadReport, bokeh_version: str) -> list[tuple[str, str]]:
    """How it was run."""
    run = report.runs[-1]
    words = {"cpus": "processors", "system": "system", "python": "Python", "tritium": "Tritium", "locust": "Locust"}
    runs = len(report.runs)
    times = (
        f"{run.duration_s:g} s" if runs == 1 else f"{runs} runs of {run.duration_s:g} s each; figures are their medians"
    )
    return [
        ("suite", report.suite),
        ("server", run.url),
        ("begun", _moment(report.runs[0])),
        ("took", times),
        ("load", ", ".join(dict.fromkeys(item.stage.load for item in run.stages))),
        ("judged", _judged(run)),
        *_named(run.machine, words),
        ("plots", f"Bokeh {bokeh_version}"),
    ]


def _judged(run: LoadResult) -> str:
    if run.knee is not None:
        return f"the knee, {run.knee}"
    names = dict.fromkeys(item.stage.name for item in run.stages if item.stage.judged)
    return "everything" if all(item.stage.judged for item in run.stages) else ", ".join(names)


def _named(machine: Mapping[str, Any], words: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(words.get(key, key), str(value)) for key, value in machine.items()]


def _moment(run: LoadResult) -> str:
    return run.began.replace("T", " ").replace("+00:00", " UTC")


def _median(rounds: Sequence[Figures], measure: str) -> float:
    return float(statistics.median(getattr(found, measure) for found in rounds))


def _ms(rounds: Sequence[Figures], measure: str) -> str:
    """A latency; without one right answer there is none."""
    right = [found for found in rounds if found.right]
    if not right:
        return _NONE
    value_ms = _median(right, measure)
    return f"{value_ms:.2f}" if value_ms < 100 else f"{value_ms:,.0f}"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or not value else f"{value:.1f}"


def _percent(count: int, requests: int) -> str:
    return f"{100 * count / requests:,.3g} %" if requests else _NONE
