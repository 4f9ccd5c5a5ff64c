"""The report's plots of levels, variants and distributions. Needs Bokeh."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, FixedTicker
from bokeh.models.annotations import Span

from ._drawing import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    Plot,
    by_name,
    finish,
    from_zero,
    latency_axis,
    line_label,
    new_figure,
    shades,
    short,
)
from ._result import Level, LoadReport

_LATENCIES = (
    ("p50_ms", "p50", GREEN, "circle"),
    ("p90_ms", "p90", ORANGE, "square"),
    ("p99_ms", "p99", RED, "diamond"),
)


def level_plots(report: LoadReport) -> list[Plot]:
    """Latency, throughput, and time in the queue and in the model, each against the load; none of a single level."""
    levels = report.levels
    if len(levels) < 2:
        return []
    knees = [run.knee for run in report.runs if run.knee is not None]
    names = [level.name for level in levels]
    # Runs may disagree; what most of them say is marked.
    place = names.index(max(knees, key=knees.count)) if knees else None
    spread = " The thin lines go from the least to the most of the runs." if len(report.runs) > 1 else ""
    marked = " From the dashed line on, more load only brings more latency." if place is not None else ""
    plots = []
    if any(found.right for level in levels for found in level.rounds):
        plots = [
            Plot(
                title="Latency against load",
                words=f"The time from when a request was due to its right answer.{marked}{spread}",
                model=_latency_by_level(levels, place),
            ),
            Plot(
                title="Throughput against load",
                words=f"Right answers a second.{_asked_words(report)}{spread}",
                model=_throughput_by_level(report, place),
            ),
            Plot(
                title="Latency against throughput",
                words="Each point is a level of load, joined in their order: where the line turns upwards, requests "
                "begin to wait for each other.",
                model=_latency_by_throughput(levels, place),
            ),
        ]
    return [*plots, *work_plots(levels)]


def work_plots(levels: Sequence[Level]) -> list[Plot]:
    """How long requests waited and were worked on inside the server; none where nobody could ask it."""
    done = [(level.name, level.work) for level in levels if level.work is not None and level.work.requests]
    if not done:
        return []
    names = [short(name) for name, _ in done]
    queue_ms, compute_ms = [item.queue_ms for _, item in done], [item.compute_ms for _, item in done]
    most_ms = max(item.queue_ms + item.compute_ms for _, item in done)
    columns = {"x": list(range(len(done))), "name": names, "queue": queue_ms, "compute": compute_ms}
    plot = by_name(names, "mean time in the server (ms)", y_range=from_zero(most_ms))
    plot.vbar_stack(
        ["queue", "compute"],
        x="x",
        width=0.55 if len(done) > 1 else 0.25,
        source=ColumnDataSource(columns),
        fill_color=[ORANGE, BLUE],
        line_color=None,
        hatch_pattern=["right_diagonal_line", None],
        hatch_alpha=0.35,
        legend_label=["in the queue", "in the model"],
    )
    finish(plot, [("", "@name"), ("queue", "@queue{0.00} ms"), ("compute", "@compute{0.00} ms")])
    words = "What the server says of itself: a request's mean time in its queue, and in the run of its batch."
    return [Plot(title="Queue and compute", words=words, model=plot)]


def variant_plots(report: LoadReport) -> list[Plot]:
    """The variants of the suite that compares dynamic batching with itself, side by side."""
    levels = report.levels
    if not any(found.right for level in levels for found in level.rounds):
        return []
    names = [short(level.name) for level in levels]
    spread = "The thin lines go from the least to the most of the rounds."
    rates = by_name(names, "right answers a second", y_range=from_zero(_most(levels, "requests_per_s")))
    _bars(rates, levels, names, "requests_per_s", color=BLUE)
    finish(rates, [("", "@name"), ("requests/s", "@middle{0,0}")])
    latencies = by_name(names, "latency (ms)", y_range=from_zero(_most(levels, "p99_ms")))
    for shift, (measure, word, color, _) in zip((-0.2, 0.2), (_LATENCIES[0], _LATENCIES[2]), strict=True):
        hatch = "right_diagonal_line" if measure == "p99_ms" else None
        _bars(latencies, levels, names, measure, color=color, shift=shift, width=0.36, word=word, hatch=hatch)
    finish(latencies, [("", "@name"), ("", "@word @middle{0.00} ms")])
    plots = [
        Plot(title="Throughput of the variants", words=f"More is better. {spread}", model=rates),
        Plot(title="Latency of the variants", words=f"Less is better. {spread}", model=latencies),
    ]
    batches = [level.work.mean_batch_size if level.work else 0.0 for level in levels]
    if any(batches):
        sizes = by_name(names, "rows in a batch", y_range=from_zero(max(batches)))
        source = ColumnDataSource({"x": list(range(len(names))), "name": names, "size": batches})
        sizes.vbar(x="x", top="size", width=0.55, source=source, fill_color=GREEN, line_color=None)
        finish(sizes, [("", "@name"), ("mean batch", "@size{0.00}")])
        words = "How many rows the server put together in a run of the model, on average."
        plots.append(Plot(title="Mean batch of the variants", words=words, model=sizes))
    return [*plots, *work_plots(levels)]


def distribution_plots(report: LoadReport) -> list[Plot]:
    """The latency's distribution, a line for each run; none where nothing was answered right."""
    curves = [np.array(run.curve) for run in report.runs if run.curve]
    if not curves:
        return []
    nines = {0: "0 %", 50: "50 %", 90: "90 %", 99: "99 %", 99.9: "99.9 %", 99.99: "99.99 %"}
    plot = new_figure(
        "share of the requests that were as fast or faster",
        "latency (ms)",
        x_axis_type="log",
        **latency_axis(*(curve[:, 1] for curve in curves)),
    )
    ticks = {_beyond(percent): text for percent, text in nines.items()}
    plot.xaxis.ticker = FixedTicker(ticks=list(ticks))
    plot.xgrid.ticker = plot.xaxis.ticker
    plot.xaxis.major_label_overrides = ticks
    colors = [BLUE] if len(curves) == 1 else shades(len(curves))
    for number, (curve, color) in enumerate(zip(curves, colors, strict=True), 1):
        columns = {"x": _beyond(curve[:, 0]), "percent": curve[:, 0], "ms": curve[:, 1]}
        legend: dict[str, Any] = {"legend_label": f"run {number}"} if len(curves) > 1 else {}
        plot.line("x", "ms", source=ColumnDataSource(columns), line_width=2.5, color=color, **legend)
    finish(plot, [("", "@percent{0.00} % within @ms{0.00} ms")])
    words = (
        "The tail is stretched: from 90 to 99 % is as far as from 0 to 90 %. The line ends where fewer than ten "
        "requests were slower."
    )
    return [Plot(title="Distribution of the latency", words=words, model=plot)]


def _latency_by_level(levels: Sequence[Level], knee: int | None) -> Any:
    values = [getattr(found, measure) for level in levels for found in level.rounds for measure, *_ in _LATENCIES]
    plot = by_name([level.name for level in levels], "latency (ms)", **latency_axis(np.array(values)))
    for measure, word, color, marker in _LATENCIES:
        _line(plot, levels, measure, word=word, color=color, marker=marker)
    _mark_knee(plot, knee)
    finish(plot, [("", "@name"), ("", "@word @middle{0.00} ms")])
    return plot


def _throughput_by_level(report: LoadReport, knee: int | None) -> Any:
    levels = report.levels
    asked = _asked(report)
    most = max([_most(levels, "requests_per_s"), *(rate for rate in asked if rate is not None)])
    plot = by_name([level.name for level in levels], "requests a second", y_range=from_zero(most))
    _line(plot, levels, "requests_per_s", word="answered right", color=BLUE, marker="circle")
    if None not in asked:
        plot.line(
            list(range(len(levels))), asked, line_dash="dotted", line_width=2, color=ORANGE, legend_label="asked for"
        )
    _mark_knee(plot, knee)
    finish(plot, [("", "@name"), ("requests/s", "@middle{0,0.[0]}")])
    return plot


def _latency_by_throughput(levels: Sequence[Level], knee: int | None) -> Any:
    values = [level.median(measure) for level in levels for measure, *_ in _LATENCIES]
    rates = [level.median("requests_per_s") for level in levels]
    plot = new_figure(
        "right answers a second", "latency (ms)", x_range=from_zero(max(rates)), **latency_axis(np.array(values))
    )
    for measure, word, color, marker in (_LATENCIES[0], _LATENCIES[2]):
        source = _level_source(levels, measure, word, x=rates)
        plot.line("x", "middle", source=source, line_width=2, color=color, legend_label=word)
        plot.scatter("x", "middle", source=source, size=9, marker=marker, color=color, legend_label=word)
    if knee is not None:
        plot.add_layout(Span(location=rates[knee], dimension="height", line_dash="dashed", line_color="#888"))
        plot.add_layout(line_label(plot, "knee", x=rates[knee], align="right"))
    finish(plot, [("", "@name: @x{0,0.[0]}/s"), ("", "@word @middle{0.00} ms")])
    return plot


def _asked(report: LoadReport) -> list[float | None]:
    """The rate that each level asked for; None where users waited for their answers."""
    rates: dict[str, list[float | None]] = {}
    for run in report.runs:
        for item in run.stages:
            rates.setdefault(item.stage.name, []).append(item.stage.rate)
    return [None if None in found else float(np.median([rate for rate in found if rate])) for found in rates.values()]


def _asked_words(report: LoadReport) -> str:
    return "" if None in _asked(report) else " The dotted line is what was asked for."


def _level_source(levels: Sequence[Level], measure: str, word: str, x: Sequence[float]) -> ColumnDataSource:
    # Where nothing was answered right, a rate is 0, and there is no latency.
    rounds = [
        [getattr(found, measure) for found in level.rounds if found.right or measure == "requests_per_s"] or [np.nan]
        for level in levels
    ]
    return ColumnDataSource(
        {
            "x": list(x),
            "name": [short(level.name) for level in levels],
            "word": [word] * len(levels),
            "middle": [float(np.median(values)) for values in rounds],
            "low": [min(values) for values in rounds],
            "high": [max(values) for values in rounds],
        }
    )


def _line(plot: Any, levels: Sequence[Level], measure: str, *, word: str, color: str, marker: str) -> None:
    source = _level_source(levels, measure, word, x=range(len(levels)))
    if any(len(level.rounds) > 1 for level in levels):
        plot.segment("x", "low", "x", "high", source=source, line_width=1.5, color=color)
    plot.line("x", "middle", source=source, line_width=2, color=color, legend_label=word)
    plot.scatter("x", "middle", source=source, size=9, marker=marker, color=color, legend_label=word)


def _bars(
    plot: Any,
    levels: Sequence[Level],
    names: Sequence[str],
    measure: str,
    *,
    color: str,
    shift: float = 0.0,
    width: float = 0.55,
    word: str = "",
    hatch: str | None = None,
) -> None:
    source = _level_source(levels, measure, word, x=[place + shift for place in range(len(names))])
    legend: dict[str, Any] = {"legend_label": word} if word else {}
    plot.vbar(
        "x",
        width,
        "middle",
        source=source,
        fill_color=color,
        line_color=None,
        hatch_pattern=hatch,
        hatch_alpha=0.35,
        **legend,
    )
    plot.segment("x", "low", "x", "high", source=source, line_width=2, color="#888")


def _most(levels: Sequence[Level], measure: str) -> float:
    return float(max(getattr(found, measure) for level in levels for found in level.rounds))


def _beyond(percent: Any) -> Any:
    """Where a percentile lies on the axis: one in so many requests is slower."""
    return 1 / (1 - percent / 100)


def _mark_knee(plot: Any, knee: int | None) -> None:
    if knee is not None:
        plot.add_layout(Span(location=knee, dimension="height", line_dash="dashed", line_color="#888"))
        plot.add_layout(line_label(plot, "knee", x=knee, align="right"))
