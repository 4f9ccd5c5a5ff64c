"""`tritium load`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tritium.client import InputError

from ._shared import file_option, json_option, print_json, repository_option, say

if TYPE_CHECKING:
    from tritium.loadtest import LoadReport


def _weights(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, float]:
    weights = {}
    for text in given:
        model, equals, weight = text.partition("=")
        try:
            weights[model] = float(weight)
        except ValueError:
            equals = ""
        if not equals or not 0 <= weights[model] < float("inf"):
            raise InputError(f"The option --weight takes MODEL=NUMBER, as in digits_cnn=5, got {text!r} instead")
    return weights


_HELP = """Load a server, check every answer, judge.

SUITE is one of:

\b
  smoke     every model's golden cases in turn
  ramp      more and more load, to find the knee
  batching  dynamic batching off and on, with several delays
  spike     eight times the load for a while
  soak      the same load for a long time
  mixed     all models at random, weighted
  bulk      whole batches in each request
  overload  up to twice of what the server can take
  chaos     processes are killed and versions reloaded

Exits 1 if an objective is not met. What must be met without --slo depends on the suite; for most of them it is that
every answer is right. Where --slo is not about errors, no answer may be wrong all the same. Ctrl-C ends a run early:
what was measured until then is printed and written, and it exits 1.
"""


@click.command("load", help=_HELP)
@click.argument("suite")
@click.option(
    "--url",
    help="The server: http://, https://, grpc:// or grpcs://, host and port. By default one is started for the run.",
)
@click.option(
    "--protocol",
    type=click.Choice(["http", "grpc"]),
    default="http",
    show_default=True,
    help="How a server that is started for the run is spoken to.",
)
@repository_option
@click.option(
    "--model", "models", multiple=True, help="Send to this model; may be given several times. All by default."
)
@click.option(
    "--weight",
    "weights",
    multiple=True,
    callback=_weights,
    metavar="MODEL=NUMBER",
    help="How often a model comes beside the others; may be given several times. Without any they come in turn.",
)
@click.option("--users", type=int, help="Requests under way at once. By default as the suite says.")
@click.option("--rate", type=float, help="Requests a second that come by themselves, instead of users who wait.")
@click.option("--duration", type=float, help="Seconds to send for, all stages together. By default as the suite says.")
@click.option("--slo", help='What must be reached, as in "p99<25ms, errors<0.1%, rps>500, wrong=0".')
@click.option("--repeats", default=1, show_default=True, help="How often to do it all; objectives go by medians.")
@click.option("--workers", default=0, show_default=True, help="Processes that send, beside one that conducts them.")
@click.option("--remote-workers", default=0, show_default=True, help="More of them, which others start with --join.")
@click.option(
    "--bind",
    default="127.0.0.1:0",
    show_default=True,
    metavar="HOST:PORT",
    help="Where workers that join find this one.",
)
@click.option("--join", metavar="HOST:PORT", help="Be a worker of a run of the same suite that is conducted there.")
@click.option("--timeout", default=30.0, show_default=True, help="Seconds that a request may take.")
@file_option("--output", help="Write the result here, as JSON.")
@file_option("--report", help="Write a report for people here, as HTML.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    suite: str,
    url: str | None,
    protocol: str,
    repository: Path,
    models: tuple[str, ...],
    weights: dict[str, float],
    users: int | None,
    rate: float | None,
    duration: float | None,
    slo: str | None,
    repeats: int,
    workers: int,
    remote_workers: int,
    bind: str,
    join: str | None,
    timeout: float,
    output: Path | None,
    report: Path | None,
    as_json: bool,
) -> None:
    """Run a suite; see `_HELP`."""
    from tritium.loadtest import LoadInterrupted, join_run, run_suite

    if join is not None:
        ctx.exit(join_run(suite, join, repository=repository, protocol=protocol))
    try:
        found = run_suite(
            suite,
            repository=repository,
            url=url,
            protocol=protocol,
            models=models,
            weights=weights,
            users=users,
            duration_s=duration,
            rate=rate,
            objectives=slo,
            repeats=repeats,
            workers=workers,
            remote_workers=remote_workers,
            bind=bind,
            timeout_s=timeout,
            progress=say,
        )
    except LoadInterrupted as exc:
        found = exc.report
    if as_json:
        print_json(found.to_json())
    else:
        _print(found)
    if output is not None:
        found.save(output)
        say(f"wrote {output}")
    if report is not None:
        from tritium.loadtest import write_report

        write_report(found, report)
        say(f"wrote {report}")
    ctx.exit(0 if found.ok else 1)


def _print(report: LoadReport) -> None:
    """A line for each level of load, then what was wrong, then the verdicts."""
    rows = [["", "requests/s", "p50 ms", "p99 ms", "errors", "mean batch", "queue ms", "compute ms"]]
    for level in report.levels:
        errors = sum(found.errors for found in level.rounds)
        right = any(found.right for found in level.rounds)
        latencies = [f"{level.median(name):.2f}" if right else "–" for name in ("p50_ms", "p99_ms")]
        row = [level.name, f"{level.median('requests_per_s'):.0f}", *latencies, str(errors)]
        work = level.work
        if work is not None and work.requests:
            row += [f"{work.mean_batch_size:.2f}", f"{work.queue_ms:.2f}", f"{work.compute_ms:.2f}"]
        rows.append(row)
    widths = [max(len(row[place]) for row in rows if place < len(row)) for place in range(len(rows[0]))]
    for row in rows:
        first, *others = row
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=False))]
        click.echo("  ".join(cells).rstrip())
    last = report.runs[-1]
    if last.knee is not None:
        click.echo(f"knee: {', '.join(str(run.knee) for run in report.runs)}")
    for at_s, what in last.events:
        click.echo(f"{at_s:6.1f} s  {what}")
    if any(run.errors for run in report.runs):
        click.echo("all errors, those of each stage's begin among them:")
    for run in report.runs:
        for error, count in run.errors.items():
            click.echo(f"  {count} × {error}")
        for remark in run.remarks:
            click.echo(f"note: {remark}")
    for verdict in report.verdicts:
        click.echo(str(verdict))
