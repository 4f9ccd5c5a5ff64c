"""`tritium load`."""

from __future__ import annotations

from pathlib import Path

import click

from ._shared import json_option, print_json, repository_option, say, url_option


@click.command("load")
@click.argument("suite")
@url_option
@repository_option
@click.option(
    "--model", "models", multiple=True, help="Send to this model; may be given several times. All by default."
)
@click.option("--users", default=16, show_default=True, help="Requests under way at once.")
@click.option("--duration", default=10.0, show_default=True, help="Seconds to send for.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    suite: str,
    url: str,
    repository: Path,
    models: tuple[str, ...],
    users: int,
    duration: float,
    as_json: bool,
) -> None:
    """Load a running server, with every answer checked.

    There is one SUITE: smoke. Exits 1 if a request failed or an answer was wrong.
    """
    from tritium.loadtest import run_suite

    what = ", ".join(models) or "every model"
    say(f"{suite}: {users} users for {duration:g} s on {url}, sending to {what} in turn")
    result = run_suite(suite, url=url, repository=repository, models=models, users=users, duration_s=duration)
    if as_json:
        print_json(result.to_json())
    else:
        click.echo(f"requests    {result.requests} in {result.duration_s:.1f} s")
        click.echo(f"throughput  {result.requests_per_s:.0f} right answers a second")
        if result.requests > result.failures:
            click.echo(f"latency     p50 {result.p50_ms:.2f} ms, p99 {result.p99_ms:.2f} ms")
        click.echo(f"failures    {result.failures}, of them wrong answers {result.wrong}")
        for error, count in result.errors.items():
            click.echo(f"  {count} × {error}")
    ctx.exit(0 if result.ok else 1)
