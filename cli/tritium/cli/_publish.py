"""`tritium publish`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from ._shared import json_option, print_json, repository_option, tell_how_to_serve


@click.command("publish")
@click.argument("folder", type=click.Path(path_type=Path))
@repository_option
@json_option
def command(folder: Path, repository: Path, as_json: bool) -> None:
    """Publish a prepared version in a repository.

    FOLDER is a version as another repository has it, such as staging/digits_cnn/3, with its config beside it. It gets
    the next number here if it passes the gate, and keeps its files, golden cases and provenance. Exits 1 if it does
    not pass; nothing has changed then.
    """
    from tritium.repository import promote

    published = promote(folder, repository)
    if as_json:
        print_json(
            {
                "model": published.model,
                "version": published.version,
                "folder": str(published.folder),
                "differences": [asdict(difference) for difference in published.differences],
            }
        )
    else:
        click.echo(str(published))
    tell_how_to_serve(repository, [published.model])
