"""What the report's plots share: their look, their axes and their legends. Needs Bokeh."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from bokeh.models import FixedTicker, HoverTool, LogScale, NumeralTickFormatter, Range1d
from bokeh.models.annotations import Label
from bokeh.palettes import Viridis256, linear_palette
from bokeh.plotting import figure

# Colours that can be told apart by colour-blind people (after Okabe and Ito), and read on white as on black.
BLUE, ORANGE, GREEN, RED = "#3a8fc7", "#e69f00", "#009e73", "#d9601a"
_HEIGHT_PX = 280
# Latencies further apart than this are drawn on a logarithmic axis.
_FAR = 20.0
# Names together longer than this are written aslant below an axis.
_WIDE_CHARACTERS = 36


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One plot.

    Attributes:
        title: what it shows.
        words: how to read it; empty if that is plain.
        model: Bokeh's.
    """

    title: str
    words: str = ""
    model: Any

    @property
    def place(self) -> str:
        """The id of the element that it is drawn in."""
        return f"plot-{self.model.id}"


def new_figure(x_label: str, y_label: str, **options: Any) -> Any:
    """An empty plot with names on its axes, which has its page's background."""
    plot = figure(
        height=_HEIGHT_PX,
        sizing_mode="stretch_width",
        x_axis_label=x_label,
        y_axis_label=y_label,
        tools="box_zoom,reset,save",
        # A finger that scrolls the page must not zoom a plot.
        active_drag=None,
        toolbar_location="above",
        toolbar_inner=True,
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        min_border_right=16,
        **options,
    )
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    plot.axis.axis_label_text_font_style = "normal"
    plot.axis.minor_tick_line_color = None
    plot.yaxis.formatter = NumeralTickFormatter(format="0,0.[000]")
    if isinstance(plot.y_scale, LogScale):
        plot.yaxis.ticker = FixedTicker(ticks=_log_ticks(options["y_range"]))
        plot.ygrid.ticker = plot.yaxis.ticker
    if not isinstance(plot.x_scale, LogScale):
        plot.xaxis.formatter = NumeralTickFormatter(format="0,0.[0]")
    return plot


def by_name(names: Sequence[str], y_label: str, **options: Any) -> Any:
    """An empty plot with a place on its x axis for each name."""
    plot = new_figure("", y_label, x_range=span_of(-0.6, len(names) - 0.4), **options)
    plot.xaxis.ticker = FixedTicker(ticks=list(range(len(names))))
    plot.xaxis.major_label_overrides = dict(enumerate(names))
    plot.xgrid.grid_line_color = None
    if sum(map(len, names)) > _WIDE_CHARACTERS:
        plot.xaxis.major_label_orientation = math.pi / 5
    return plot


def finish(plot: Any, tooltips: Sequence[tuple[str, str]], *, line: bool = False) -> None:
    """What is under the pointer, and the legend, above the plot, where it covers nothing."""
    hover = HoverTool(tooltips=list(tooltips), mode="vline" if line else "mouse")
    if line:  # one of them is enough, for they share their columns
        hover.renderers = plot.renderers[:1]
    plot.add_tools(hover)
    if plot.legend:
        (legend,) = plot.legend
        legend.orientation = "horizontal"
        legend.ncols = 5
        legend.border_line_color = None
        legend.background_fill_color = None
        legend.padding = 2
        plot.add_layout(legend, "above")


def latency_axis(*values: Any) -> dict[str, Any]:
    """A linear axis from zero; a logarithmic one where latencies are far apart."""
    found = np.concatenate(values)
    found = found[np.isfinite(found) & (found > 0)]
    least, most = (float(found.min()), float(found.max())) if len(found) else (1.0, 1.0)
    if most / least > _FAR:
        return {"y_axis_type": "log", "y_range": span_of(least / 1.3, most * 1.3)}
    return {"y_range": from_zero(most)}


def _log_ticks(axis: Any) -> list[float]:
    """1, 2, 5, 10 and so on, a little beyond both ends; without 2 and 5 where that would be crowded."""
    powers = range(math.floor(math.log10(axis.start)) - 1, math.ceil(math.log10(axis.end)) + 1)
    return [mantissa * 10.0**power for power in powers for mantissa in ((1, 2, 5) if len(powers) < 7 else (1,))]


def shades(count: int) -> list[str]:
    """Colours in an order, none of which is lost on a dark page."""
    return list(linear_palette(Viridis256[70:235], count)) if count > 1 else [BLUE]


def from_zero(most: float) -> Range1d:
    """An axis from 0 to a little more than the most that is shown."""
    return span_of(0.0, 1.08 * most or 1.0)


def span_of(least: float, most: float) -> Range1d:
    """An axis from here to there."""
    return Range1d(start=float(least), end=float(most))


def line_label(plot: Any, text: str, *, x: float, align: Literal["left", "right"]) -> Label:
    """A word at the top of a plot, beside a vertical line."""
    return Label(
        x=x,
        y=plot.y_range.end,
        text=text,
        text_align=align,
        text_baseline="top",
        text_font_size="12px",
        x_offset=5 if align == "left" else -5,
    )


def short(name: str) -> str:
    """A variant by what is particular to it: ``off``, or its delay."""
    _, dot, last = name.rpartition(".")
    if dot and last == "off":
        return last
    return (
        f"{last.removesuffix('us')} µs" if dot and last.removesuffix("us").isdigit() and last.endswith("us") else name
    )
