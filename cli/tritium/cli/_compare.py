"""`tritium compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tritium.client import InputError

from ._shared import json_option, print_json, print_table, say

if TYPE_CHECKING:
    from tritium.loadtest import Comparison, Difference, LoadReport


def _percent(_: click.Context, __: click.Parameter, text: str) -> float:
    try:
        return float(text.strip().removesuffix("%"))
    except ValueError:
        raise InputError(f"The option --tolerance takes a percentage, as in 5%, got {text!r} instead") from None


@click.command("compare")
@click.argument("first", metavar="A.json", type=click.Path(path_type=Path))
@click.argument("second", metavar="B.json", type=click.Path(path_type=Path))
@click.option(
    "--tolerance",
    default="5%",
    show_default=True,
    callback=_percent,
    metavar="PERCENT",
    help="By how much a figure may be worse.",
)
@click.option(
    "--confidence",
    default=95.0,
    show_default=True,
    metavar="PERCENT",
    help="How sure it is that all intervals hold.",
)
@json_option
@click.pass_context
def command(ctx: click.Context, first: Path, second: Path, tolerance: float, confidence: float, as_json: bool) -> None:
    """Say whether B is worse than A, beyond the noise of both.

    A.json and B.json are what `tritium load SUITE --output FILE` wrote, of the same suite; with --repeats, so that
    something is known of the noise.

    Exits 1 if a figure of B is worse than that of A by more than the noise and the tolerance.
    """
    from tritium.loadtest import LoadReport, compare_reports

    a, b = LoadReport.load(first), LoadReport.load(second)
    found = compare_reports(a, b, tolerance_percent=tolerance, confidence_percent=confidence)
    if as_json:
        print_json({"a": str(first), "b": str(second)} | found.to_json())
    else:
        say(f"A: {_which(first, a)}")
        say(f"B: {_which(second, b)}")
        _print(found)
    ctx.exit(0 if found.ok else 1)


def _which(path: Path, report: LoadReport) -> str:
    runs = "1 run" if len(report.runs) == 1 else f"{len(report.runs)} runs"
    return f"{path}, {report.suite}, {runs}, begun {report.runs[0].began}"


def _print(found: Comparison) -> None:
    rows = [
        (item.level, item.metric, _number(item.a), _number(item.b), _change(item), _interval(item), _verdict(item))
        for item in found.differences
    ]
    print_table(("level", "figure", "A", "B", "B ÷ A", "interval", ""), rows)
    what = "blocks of seconds within a run" if found.blocks else "rounds"
    judged = [item for item in found.differences if item.judged]
    samples = sorted({count for item in judged for count in (item.samples_a, item.samples_b)})
    many = "–".join(dict.fromkeys((str(samples[0]), str(samples[-1]))))
    click.echo(
        f"noise: {many} {what} of each level; A and B are medians, their ratio is of geometric means, and all judged "
        f"intervals hold together with {found.confidence_percent:g} %; tolerated: {found.tolerance_percent:g} %"
    )
    for remark in found.remarks:
        click.echo(f"note: {remark}")
    for item in found.worse:
        click.echo(f"WORSE: {item.level}, {item.metric}: {_change(item)} ({_interval(item)})")
    if found.ok:
        unclear = sum(item.verdict == "unclear" for item in judged)
        told = f"; of {unclear} figures the noise is too large to tell: use more --repeats" if unclear else ""
        click.echo(f"B is not worse than A beyond the noise{told}")


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"


def _change(item: Difference) -> str:
    return "–" if item.ratio is None else _one(item, item.ratio)


def _interval(item: Difference) -> str:
    return "–" if item.low is None or item.high is None else f"{_one(item, item.low)} to {_one(item, item.high)}"


def _one(item: Difference, value: float) -> str:
    return f"{value:+.2f}" if item.metric.endswith("%") else f"×{value:.3g}"


def _verdict(item: Difference) -> str:
    words = {"unclear": "within the noise", "unknown": "noise not known"}
    text = words.get(item.verdict, item.verdict)
    return text if item.judged or item.verdict == "unknown" else f"{text}, not judged"
