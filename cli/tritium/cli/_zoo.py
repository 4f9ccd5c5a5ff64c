"""`tritium zoo`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ._shared import json_option, print_json, print_table, repository_option, say


@click.group("zoo")
def command() -> None:
    """Train and publish the reference models, on real data."""


@command.command("list")
@repository_option
@json_option
def list_models(repository: Path, as_json: bool) -> None:
    """List the reference models and their accuracy on held-out data."""
    from tritium.exporters.zoo import MODELS

    rows = [_row(name, repository) for name in MODELS]
    if as_json:
        print_json(rows)
    else:
        header = ("name", "model", "data", "export", "version", "held-out accuracy")
        print_table(header, [[_shown(row[key]) for key in row] for row in rows])


@command.command()
@click.argument("names", nargs=-1)
@repository_option
@click.option("--force", is_flag=True, help="Build anew what is up to date, too.")
@json_option
def train(names: tuple[str, ...], repository: Path, force: bool, as_json: bool) -> None:
    """Train reference models, verify them and publish them.

    All of them, or those NAMED.

    A model whose script, data and packages have not changed since its latest version is left as it is.
    """
    from tritium.exporters.zoo import MODELS, build, check_names
    from tritium.repository import Repository

    check_names(names)
    target = Repository(repository, create=True)
    rows = []
    for name in names or MODELS:
        say(f"{name}: {MODELS[name].summary}, {MODELS[name].data}")
        built = build(name, target, force=force, progress=lambda line: say(f"  {line}"))
        parity = ", ".join(
            f"{output} {f'agrees in {value:.1%}' if output == 'label' else f'max |Δ| {value:.1e}'}"
            for output, value in built.manifest.parity.items()
        )
        metrics = ", ".join(f"{metric} {value:.1%}" for metric, value in built.manifest.metrics.items())
        state = "published" if built.fresh else "up to date:"
        say(f"  {state} version {built.version}; held-out {metrics}; parity {parity}")
        rows.append(_row(name, repository) | {"fresh": built.fresh, "parity": dict(built.manifest.parity)})
    if as_json:
        print_json(rows)


def _row(name: str, folder: Path) -> dict[str, Any]:
    from tritium.exporters.zoo import MODELS, built
    from tritium.repository import Repository

    model = MODELS[name]
    found = built(name, Repository(folder)) if folder.is_dir() else None
    return {
        "name": name,
        "model": model.summary,
        "data": model.data,
        "export": model.path,
        "version": found.version if found else None,
        "accuracy": found.manifest.metrics["accuracy"] if found else None,
    }


def _shown(value: Any) -> str:
    return "-" if value is None else f"{value:.1%}" if isinstance(value, float) else str(value)
