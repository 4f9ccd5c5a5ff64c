"""`tritium zoo`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ._shared import json_option, print_json, print_markdown, print_table, repository_option, say

_HEADER = ("name", "model", "data", "export", "version", "held-out", "baseline")


@click.group("zoo")
def command() -> None:
    """Train and publish the reference models, on real data."""


@command.command("list")
@repository_option
@click.option("--markdown", is_flag=True, help="Print the table as Markdown, as in docs/models.md.")
@json_option
def list_models(repository: Path, markdown: bool, as_json: bool) -> None:
    """List the reference models, with their metrics on held-out data."""
    from tritium.exporters.zoo import MODELS

    rows = [_row(name, repository) for name in MODELS]
    if as_json:
        print_json(rows)
    elif markdown:
        header = [column for column in _HEADER if column != "version"]
        print_markdown(header, [[_cells(row)[column] for column in header] for row in rows])
    else:
        print_table(_HEADER, [list(_cells(row).values()) for row in rows])


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
        built = build(name, target, force=force, progress=_told)
        state = "published" if built.fresh else "up to date:"
        manifest = built.manifest
        say(f"  {state} version {built.version}; held-out {_figures(manifest.metrics)}; {manifest.parity_text()}")
        rows.append(_row(name, repository) | {"fresh": built.fresh, "parity": dict(manifest.parity)})
    if as_json:
        print_json(rows)
    else:
        say()
        print_table(_HEADER, [list(_cells(row).values()) for row in rows])


def _told(line: str) -> None:
    say(f"  {line}")


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
        "metrics": dict(found.manifest.metrics) if found else {},
        "baselines": dict(found.manifest.baselines) if found else {},
    }


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    """A row of the table, by column."""
    told = {"version": str(row["version"] or "-"), "held-out": _figures(row["metrics"])}
    told["baseline"] = _figures(row["baselines"], named=False)
    return {column: told.get(column) or row[column] for column in _HEADER}


def _figures(figures: Mapping[str, float], *, named: bool = True) -> str:
    """As in ``accuracy 97.3%, rmse 0.871``; shares of rows are percentages."""
    texts = {name: f"{value:.1%}" if _is_share(name) else f"{value:z.3f}" for name, value in figures.items()}
    return ", ".join(f"{name} {text}" if named or len(texts) > 1 else text for name, text in texts.items()) or "-"


def _is_share(metric: str) -> bool:
    return any(word in metric for word in ("accuracy", "hit_rate", "precision", "recall"))
