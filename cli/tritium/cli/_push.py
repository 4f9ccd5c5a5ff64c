"""`tritium push`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from ._shared import json_option, print_json, repository_option, say, tell_how_to_serve


@click.command("push")
@click.argument("to")
@repository_option
@click.option("--model", "models", multiple=True, help="Only this model; can be given more than once.")
@json_option
def command(to: str, repository: Path, models: tuple[str, ...], as_json: bool) -> None:
    """Copy models to a repository in S3.

    TO is s3://bucket/prefix, or s3://http://host:port/bucket/prefix for an endpoint of your own, from where the GPU
    container's Triton reads it. What is there already is not sent again, and everything is verified as it lies there.
    Exits 1 if a version is there with other content; nothing was sent then.
    """
    from tritium.repository import Repository, S3Repository

    pushed = S3Repository(to).push(Repository(repository), models, progress=say)
    if as_json:
        print_json({"url": pushed[0].url, "models": [asdict(model) for model in pushed]})
    else:
        for model in pushed:
            click.echo(str(model))
    tell_how_to_serve(pushed[0].url, [model.model for model in pushed if model.sent])
