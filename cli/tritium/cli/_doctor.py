"""`tritium doctor`."""

from __future__ import annotations

from dataclasses import asdict

import click

from ._shared import json_option, port_options, print_json

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "problem": ("✗", "red")}


@click.command("doctor")
@port_options
@json_option
@click.pass_context
def command(ctx: click.Context, http_port: int, grpc_port: int, metrics_port: int, as_json: bool) -> None:
    """Say what is missing or at odds here, and how to mend it.

    Nothing is fetched. A warning (!) concerns a part of the work, or a port. Exits 1 if something keeps the server from
    running at all.
    """
    from tritium.server import diagnose

    findings = []
    for finding in diagnose({"http": http_port, "grpc": grpc_port, "metrics": metrics_port}):
        findings.append(finding)
        if not as_json:
            mark, colour = _MARKS[finding.status]
            click.echo(f"{click.style(mark, fg=colour)} {finding.check}: {finding.detail}")
            if finding.fix:
                click.echo(f"    → {finding.fix}")
    ok = all(finding.status != "problem" for finding in findings)
    if as_json:
        print_json({"ok": ok, "findings": [asdict(finding) for finding in findings]})
    ctx.exit(0 if ok else 1)
