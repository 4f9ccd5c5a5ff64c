"""`tritium rollback`."""

from __future__ import annotations

from pathlib import Path

import click

from ._shared import json_option, print_json, reload_running, repository_place_option, say


@click.command("rollback")
@click.argument("model")
@click.option("--version", type=click.IntRange(min=1), help="The version to go back to; the one before by default.")
@repository_place_option
@json_option
def command(model: str, version: int | None, repository: Path | str, as_json: bool) -> None:
    """Serve an older version of MODEL, alone.

    The config in the repository says so from then on, and the running servers of that repository take it over without
    losing a request. No version is deleted.
    """
    from tritium.repository import S3Repository, roll_back

    if isinstance(repository, Path):
        chosen = roll_back(repository, model, version)
    else:
        chosen = S3Repository(repository).roll_back(model, version)
    if not as_json:
        say(f"{model} is back at version {chosen} in {repository}, until another one is published")
    reloaded = reload_running(repository, model)
    if as_json:
        print_json({"model": model, "version": chosen, "reloaded": reloaded})
        return
    for url in reloaded:
        say(f"{model} was reloaded at {url}")
