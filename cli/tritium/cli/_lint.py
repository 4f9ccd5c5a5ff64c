"""`tritium lint`."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path

import click

from ._shared import json_option, print_json, say

_COLOURS = {"error": "red", "warning": "yellow", "note": "blue"}


@click.command("lint")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@json_option
@click.pass_context
def command(ctx: click.Context, folder: Path, as_json: bool) -> None:
    """Look a model repository over, whoever wrote it.

    Nothing that lies in DIR is run. Exits 1 if there are errors or warnings; notes are for your information.
    docs/lint.md says what each code means.
    """
    from tritium.repository.lint import Severity, lint

    findings = lint(folder)
    counts = Counter(finding.severity for finding in findings)
    ok = not (counts[Severity.ERROR] or counts[Severity.WARNING])
    if as_json:
        found = [asdict(finding) | {"place": str(finding.place)} for finding in findings]
        print_json({"ok": ok, "repository": str(folder.absolute()), "findings": found})
    else:
        for finding in findings:
            click.secho(f"{finding.severity} {finding.code}", fg=_COLOURS[finding.severity], nl=False)
            click.echo(f": {finding.place}: {finding.message}\n    → {finding.fix}")
        found_text = ", ".join(f"{count} {severity}{'s' * (count > 1)}" for severity, count in sorted(counts.items()))
        say(f"{folder}: {found_text or 'nothing is wrong'}")
    ctx.exit(0 if ok else 1)
