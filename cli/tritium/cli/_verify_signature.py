"""`tritium verify-signature`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from ._shared import each_version, json_option


@click.command("verify-signature")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--key", type=click.Path(path_type=Path), required=True, help="The public key, a PEM file.")
@json_option
@click.pass_context
def command(ctx: click.Context, folder: Path, key: Path, as_json: bool) -> None:
    """Verify that versions are as they were signed.

    FOLDER is a version such as model_repository/digits_cnn/3, a model's folder or a repository: every version in it
    must be signed by the key, with the files that it has now. Exits 1 if one is not.

    The public key belongs to the private one that `tritium sign` was given:

    \b
      openssl ec -in key.pem -pubout -out key.pub
    """  # noqa: D301 — click wants the character
    from tritium.repository import verify_signature, version_folders

    verify = partial(verify_signature, public_key=key)
    ok = each_version(version_folders(folder), verify, done="ok", as_json=as_json)
    ctx.exit(0 if ok else 1)
