"""`tritium reload`."""

from __future__ import annotations

from pathlib import Path

import click

from tritium.client import InputError

from ._shared import json_option, print_json, reload_running, repository_place_option, say


@click.command("reload")
@click.argument("model")
@repository_place_option
@json_option
def command(model: str, repository: Path | str, as_json: bool) -> None:
    """Have the running servers of a repository load MODEL again.

    They take over what the repository has now, without losing a request: a new version, a version policy, a config. If
    it does not load, or a file is not the one that was published, they go on with what they have, and this exits 1.
    From a repository in S3 they fetch it first.
    """
    from tritium.repository import Repository

    if isinstance(repository, Path):
        Repository(repository).version_folder(model)  # says what there is instead
        repository = repository.absolute()
    reloaded = reload_running(repository, model)
    if not reloaded:
        raise InputError(f"No `tritium serve` of yours runs over {repository}: there is nothing to reload")
    if as_json:
        print_json({"model": model, "reloaded": reloaded})
    else:
        for url in reloaded:
            say(f"{model} was reloaded at {url}")
