"""`tritium sign`."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import click

from ._shared import each_version, json_option, say


@click.command("sign")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--key", type=click.Path(path_type=Path), required=True, help="The private key, a PEM file.")
@json_option
@click.pass_context
def command(ctx: click.Context, folder: Path, key: Path, as_json: bool) -> None:
    """Sign published versions.

    FOLDER is a version such as model_repository/digits_cnn/3, a model's folder or a repository: every version in it
    that has a manifest gets a file signature.json. Exits 1 if one is not what its manifest says, which is not signed.

    A pair of keys, of which key.pub is for those who verify:

    \b
      openssl ecparam -name prime256v1 -genkey -noout -out key.pem
      openssl ec -in key.pem -pubout -out key.pub

    If the key is encrypted, its password is taken from the environment variable TRITIUM_KEY_PASSWORD.
    """  # noqa: D301 — click wants the character
    from tritium.repository import sign, version_folders

    folders = version_folders(folder)
    prepared = [version for version in folders if (version / "manifest.json").is_file()]
    for version in folders:
        if version not in prepared:
            say(f"{version} was passed over: it has no manifest. `tritium add` publishes a model file with one")
    password = os.environ.get("TRITIUM_KEY_PASSWORD") or None
    ok = each_version(prepared, partial(sign, private_key=key, password=password), done="signed", as_json=as_json)
    ctx.exit(0 if ok else 1)
