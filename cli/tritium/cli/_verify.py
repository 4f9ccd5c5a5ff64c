"""`tritium verify`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from ._shared import connect, json_option, print_json, repository_option, say, url_option


@click.command("verify")
@click.argument("models", nargs=-1)
@url_option
@repository_option
@json_option
@click.pass_context
def command(ctx: click.Context, models: tuple[str, ...], url: str, repository: Path, as_json: bool) -> None:
    """Compare a server's answers with the golden cases.

    Those of MODELS are sent (all by default). The server may be the embedded one or the GPU container; it must run
    versions of this repository. Exits 1 if an answer is wrong.
    """
    from tritium.repository import Repository, has_golden, verify_server

    verdicts = []
    source = Repository(repository)
    for model in models:
        source.version_folder(model)  # a name that is not there is wrong usage, not a wrong answer
    with connect(url) as client:
        client.is_ready()  # no server is one error, not one for each model
        for verdict in verify_server(client, source, models):
            verdicts.append(verdict)
            if not as_json:
                click.echo(str(verdict))
    ok = bool(verdicts) and all(verdict.ok for verdict in verdicts)
    if as_json:
        print_json({"ok": ok, "url": url, "verdicts": [asdict(verdict) | {"ok": verdict.ok} for verdict in verdicts]})
    if not models:
        for name in source.models():
            if not has_golden(source, name):
                say(f"{name} was passed over: it has no golden cases. `tritium add` publishes a model file with some")
    if not verdicts and not as_json:
        say(f"There are no models in {repository}: nothing was verified")
    ctx.exit(0 if ok else 1)
