"""`tritium tune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._shared import file_option, json_option, print_json, print_table, repository_option, say, tell_how_to_serve

if TYPE_CHECKING:
    from tritium.loadtest import TuneResult


@click.command("tune")
@click.argument("model")
@repository_option
@click.option("--slo", default="", help='What must be reached, as in "p99<25ms". Without it, throughput is all.')
@click.option("--budget", metavar="TIME", help='How long it may take, as in "90s" or "10m". Five minutes by default.')
@click.option("--trials", type=int, help="Most configs to try, the current one included; no limit by default.")
@click.option("--users", default=16, show_default=True, help="Requests under way at once.")
@click.option(
    "--onnx-backend",
    type=click.Choice(["auto", "native", "python"]),
    default="auto",
    show_default=True,
    help="What runs ONNX models.",
)
@click.option("--seed", default=0, show_default=True, help="Of the sampler that chooses what to try.")
@click.option("--apply", "apply_it", is_flag=True, help="Write the winner into config.pbtxt; the old one is kept.")
@file_option("--plot", suffixes=(".png", ".svg"), help="Draw all trials here, as PNG or SVG.")
@file_option("--output", help="Write all that was found, as JSON.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    model: str,
    repository: Path,
    slo: str,
    budget: str | None,
    trials: int | None,
    users: int,
    onnx_backend: str,
    seed: int,
    apply_it: bool,
    plot: Path | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Find the config that serves MODEL best on this machine.

    Instances, threads, batch size and queue delay are tried under load, each answer checked, and the best are measured
    again beside the current config. Nothing is written without --apply; Ctrl-C shows the best so far.

    Exits 1 if no config meets the objectives, or it was interrupted.
    """
    from tritium.loadtest import apply, parse_budget, tune

    found = tune(
        model,
        repository=repository,
        objectives=slo,
        budget_s=None if budget is None else parse_budget(budget),
        trials=trials,
        users=users,
        onnx_backend=onnx_backend,
        seed=seed,
        progress=say,
    )
    if not as_json:
        _print(found)
    if output is not None:
        found.save(output)
        say(f"wrote {output}")
    if plot is not None:
        found.plot(plot)
        say(f"wrote {plot}")
    kept = apply(found, repository) if apply_it and found.verdict == "better" else None
    if as_json:
        print_json(found.to_json() | {"applied": kept is not None, "kept": kept and str(kept)})
    if kept is not None:
        say(f"wrote {repository / model / 'config.pbtxt'}; the old one is {kept}")
        tell_how_to_serve(repository, [model])
    elif found.verdict == "better":
        say("nothing was written; --apply does that")
    ctx.exit(0 if found.ok else 1)


def _print(result: TuneResult) -> None:
    """The trials by what they are worth, the finals, and the verdict."""
    front = {trial.number for trial in result.front}
    ranked = sorted(result.trials, key=lambda trial: trial.rank, reverse=True)
    print_table(
        ["", "throughput", "requests/s", "p50 ms", "p99 ms", "config", ""],
        [
            [
                f"{trial.number}{'*' if trial.number in front else ''}",
                f"{trial.gain:.2f} ×",
                f"{trial.requests_per_s:.0f}",
                f"{trial.p50_ms:.2f}",
                f"{trial.p99_ms:.2f}",
                trial.knobs,
                "misses an objective" if trial.state == "measured" and not trial.feasible else _state(trial.state),
            ]
            for trial in ranked
        ],
    )
    click.echo(f"* Pareto front; {len(result.trials)} of {result.space} configs tried in {result.duration_s:.0f} s")
    if len(result.finals) > 1:
        click.echo("finals, in turns:")
        print_table(
            ["throughput", "requests/s", "p99 ms", "config", ""],
            [
                [
                    f"{trial.gain:.2f} ×",
                    f"{trial.requests_per_s:.0f}",
                    f"{trial.p99_ms:.2f}",
                    trial.knobs,
                    _state(trial.state),
                ]
                for trial in sorted(result.finals, key=lambda trial: trial.rank, reverse=True)
            ],
        )
    for verdict in result.verdicts:
        if result.objectives:
            click.echo(str(verdict))
    click.echo(f"{result.winner}: {result.reason}" if result.verdict == "better" else result.reason)


def _state(state: str) -> str:
    return "" if state == "measured" else state
