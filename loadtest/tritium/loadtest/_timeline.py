"""The report's plots of a run over time. Needs Bokeh."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, FixedTicker
from bokeh.models.annotations import Label, Span

from ._drawing import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    Plot,
    finish,
    from_zero,
    latency_axis,
    line_label,
    new_figure,
    shades,
    short,
    span_of,
)
from ._result import LoadResult, Second

# How many moments the timelines of a report have in all, so that one of a day is no larger than one of an hour.
_MOMENTS = 3_600
_FEWEST_MOMENTS = 60


def time_plots(run: LoadResult, runs: int) -> list[Plot]:
    """A run over time: answers, latencies, batches, and the server's processor and memory.

    Args:
        run: the run.
        runs: how many a report has; the more, the fewer moments of each.
    """
    columns, bin_s = _moments(run.timeline, max(_FEWEST_MOMENTS, _MOMENTS // runs))
    if not len(columns["at_s"]):
        return []
    source = ColumnDataSource({name: column for name, column in columns.items() if name != "batches"})
    x_range = span_of(0.0, columns["at_s"][-1] + bin_s)
    each = "" if bin_s == 1 else f" Each point is {bin_s} seconds."
    stages = " Dotted lines part the stages." if len(run.stages) > 1 else ""
    numbers = " The numbers are the events that are listed above." if run.events else ""

    def over_time(y_label: str, y_range: Any, **options: Any) -> Any:
        plot = new_figure("seconds from the begin", y_label, x_range=x_range, y_range=y_range, **options)
        _mark(plot, run)
        return plot

    answers = over_time("a second", from_zero(max(columns["right"].max(), columns["errors"].max())))
    answers.line("middle_s", "right", source=source, line_width=2, color=BLUE, legend_label="right answers")
    answers.vbar(
        "middle_s", bin_s * 0.8, "errors", source=source, fill_color=RED, line_color=None, legend_label="errors"
    )
    _name_stages(answers, run)
    finish(answers, [("second", "@at_s{0}"), ("right", "@right{0,0}"), ("errors", "@errors{0,0.[0]}")], line=True)
    words = f"Right answers as a line, errors as bars.{each}{stages}{numbers}"
    plots = [Plot(title="Answers a second", words=words, model=answers)]

    if np.isfinite(columns["p99_ms"]).any():
        axis = latency_axis(columns["p50_ms"], columns["p99_ms"])
        latency = over_time("latency (ms)", **axis)
        latency.line("middle_s", "p50_ms", source=source, line_width=2, color=GREEN, legend_label="p50")
        latency.line("middle_s", "p99_ms", source=source, line_width=2, color=RED, line_dash=[6, 3], legend_label="p99")
        finish(latency, [("second", "@at_s{0}"), ("p50", "@p50_ms{0.00} ms"), ("p99", "@p99_ms{0.00} ms")], line=True)
        words = "Of the requests that were due in each second" + (
            "." if bin_s == 1 else f", the slowest of each {bin_s}."
        )
        plots.append(Plot(title="Latency over time", words=words, model=latency))

    plots += _batch_plots(columns, bin_s, over_time)

    if np.isfinite(columns["cpu_percent"]).any():
        cpu = over_time("processor (%)", from_zero(float(np.nanmax(columns["cpu_percent"]))))
        cpu.line("middle_s", "cpu_percent", source=source, line_width=2, color=BLUE)
        finish(cpu, [("second", "@at_s{0}"), ("processor", "@cpu_percent{0} %")], line=True)
        words = f"Of all processes of the server. 100 % is one processor{_of_cpus(run)}."
        plots.append(Plot(title="The server's processor time", words=words, model=cpu))
    if np.isfinite(columns["memory_mb"]).any():
        least, most = float(np.nanmin(columns["memory_mb"])), float(np.nanmax(columns["memory_mb"]))
        # Room for a rise to be seen, and not so much that noise looks like one.
        memory = over_time("memory (MB)", span_of(max(0.0, least - 0.05 * most), most * 1.05))
        memory.line("middle_s", "memory_mb", source=source, line_width=2, color=GREEN)
        finish(memory, [("second", "@at_s{0}"), ("memory", "@memory_mb{0,0} MB")], line=True)
        words = "Resident memory of all processes of the server. The axis does not begin at 0."
        plots.append(Plot(title="The server's memory", words=words, model=memory))
    return plots


def _batch_plots(columns: dict[str, Any], bin_s: int, over_time: Any) -> list[Plot]:
    batches: list[dict[int, int]] = columns["batches"]
    sizes = sorted({size for batch in batches for size in batch})
    if not sizes:
        return []
    buckets = _buckets(sizes[-1])
    counts = np.array(
        [[sum(n for size, n in batch.items() if low <= size <= high) for low, high in buckets] for batch in batches]
    )
    used = [place for place in range(len(buckets)) if counts[:, place].any()]
    totals = np.maximum(counts.sum(axis=1), 1)
    names = [_bucket_name(*buckets[place]) for place in used]
    keys = [f"size {name}" for name in names]
    shares = {key: 100 * counts[:, place] / totals for key, place in zip(keys, used, strict=True)}
    source = ColumnDataSource({"middle_s": columns["middle_s"], "at_s": columns["at_s"], **shares})
    plot = over_time("share of the runs (%)", span_of(0, 110))
    plot.yaxis.ticker = FixedTicker(ticks=list(range(0, 101, 20)))
    plot.vbar_stack(
        keys,
        x="middle_s",
        width=bin_s,
        source=source,
        fill_color=shades(len(keys)),
        line_color=None,
        legend_label=names,
    )
    finish(
        plot,
        [
            ("second", "@at_s{0}"),
            *((f"{name} rows", f"@{{{key}}}{{0}} %") for name, key in zip(names, keys, strict=True)),
        ],
    )
    words = "How many rows the server put together in a run of a model: the share of each size."
    return [Plot(title="Batch sizes over time", words=words, model=plot)]


def _mark(plot: Any, run: LoadResult) -> None:
    """Lines where a stage ends, and where something was done to the server, with its number."""
    ends_s = np.cumsum([item.stage.duration_s for item in run.stages])
    for end_s in ends_s[:-1]:
        plot.add_layout(Span(location=float(end_s), dimension="height", line_dash="dotted", line_color="#999"))
    for number, (at_s, _) in enumerate(run.events, 1):
        plot.add_layout(Span(location=at_s, dimension="height", line_dash="dashed", line_color=ORANGE))
        plot.add_layout(line_label(plot, str(number), x=at_s, align="left"))


def _name_stages(plot: Any, run: LoadResult) -> None:
    begin_s = 0.0
    for item in run.stages if len(run.stages) > 1 else ():
        # Upright, so that the names of short stages do not run into each other.
        plot.add_layout(
            Label(
                x=begin_s,
                y=4,
                y_units="screen",
                x_offset=4,
                text=short(item.stage.name),
                angle=math.pi / 2,
                text_baseline="top",
                text_font_size="11px",
            )
        )
        begin_s += item.stage.duration_s


def _moments(timeline: Sequence[Second], most: int) -> tuple[dict[str, Any], int]:
    """The timeline's columns, in no more rows than that, and how many seconds are in each row."""
    bin_s = max(1, math.ceil(len(timeline) / most))
    bins = [timeline[place : place + bin_s] for place in range(0, len(timeline), bin_s)]

    def column(measure: str, take: Any) -> Any:
        return np.array(
            [take([value for item in items if (value := getattr(item, measure)) is not None]) for items in bins]
        )

    def highest(values: Sequence[float]) -> float:
        return max(values, default=math.nan) or math.nan  # a second without right answers has no latency

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values) if values else math.nan

    at_s = np.array([items[0].at_s for items in bins])
    return {
        "at_s": at_s,
        "middle_s": at_s + bin_s / 2,
        "right": column("right", mean),
        "errors": column("errors", mean),
        "p50_ms": column("p50_ms", highest),
        "p99_ms": column("p99_ms", highest),
        "cpu_percent": column("cpu_percent", mean),
        "memory_mb": column("memory_mb", mean),
        "batches": [_sum(items) for items in bins],
    }, bin_s


def _sum(items: Sequence[Second]) -> dict[int, int]:
    total: dict[int, int] = {}
    for item in items:
        for size, count in item.batch_sizes.items():
            total[size] = total.get(size, 0) + count
    return total


def _buckets(largest: int) -> list[tuple[int, int]]:
    """1, 2, 3 to 4, 5 to 8, and so on."""
    buckets = [(1, 1)]
    while buckets[-1][1] < largest:
        high = buckets[-1][1]
        buckets.append((high + 1, 2 * high))
    return buckets


def _bucket_name(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}–{high}"


def _of_cpus(run: LoadResult) -> str:
    cpus = run.machine.get("cpus")
    return f"; the machine has {cpus}" if cpus else ""
