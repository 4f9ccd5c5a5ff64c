"""Options and output that several subcommands share."""

from __future__ import annotations

import itertools
import json
import math
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tritium.client import TritiumError

if TYPE_CHECKING:
    from tritium.client import Client
    from tritium.server import RunningServer

Command = TypeVar("Command", bound=Callable[..., Any])
# Between two columns of a table.
_GAP = "  "

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
repository_option = click.option(
    "--repository",
    type=click.Path(path_type=Path),
    default=Path("model_repository"),
    show_default=True,
    help="The model repository's folder.",
)


def _place(text: str) -> Path | str:
    """A folder as a path, or a URL of S3 as it is: a path would lose one of its slashes."""
    from tritium.repository import is_s3

    return text.rstrip("/") if is_s3(text) else Path(text)


repository_place_option = click.option(
    "--repository",
    type=_place,
    default="model_repository",
    show_default=True,
    metavar="FOLDER|URL",
    help="The model repository: a folder, or s3://bucket/prefix, or s3://http://host:port/bucket/prefix.",
)
url_option = click.option(
    "--url",
    default="http://127.0.0.1:8000",
    show_default=True,
    help="The server: http://, https://, grpc:// or grpcs://, a host and a port.",
)


def file_option(name: str, *, suffixes: tuple[str, ...] = (), help: str) -> Callable[[Command], Command]:  # noqa: A002
    """A file to write when all is done; whether it can be is looked at before anything begins."""

    def checked(_: click.Context, __: click.Parameter, path: Path | None) -> Path | None:
        if path is not None and not path.parent.is_dir():
            raise click.BadParameter(f"There is no folder {path.parent}")
        if path is not None and suffixes and path.suffix.lower() not in suffixes:
            raise click.BadParameter(f"It must end in {' or '.join(suffixes)}, got {path.name!r} instead")
        return path

    kind = click.Path(path_type=Path, dir_okay=False, writable=True)
    return click.option(name, type=kind, callback=checked, help=help)


def port_options(command: Command) -> Command:
    """The three ports of a server, with Triton's own defaults."""
    for kind, port in (("metrics", 8002), ("grpc", 8001), ("http", 8000)):
        command = click.option(
            f"--{kind}-port",
            type=click.IntRange(0, 65535),
            default=port,
            show_default=True,
            help=f"The port for {kind}; 0 stands for any free one.",
        )(command)
    return command


def each_version(folders: Sequence[Path], act: Callable[[Path], object], *, done: str, as_json: bool) -> bool:
    """Do something with each version's folder and print how it went; whether there was one and all went well.

    Raises:
        TritiumError: it is wrong usage, and would be so for every version.
    """
    versions = []
    for folder in folders:
        model, version, error = folder.parent.name, int(folder.name), ""
        try:
            act(folder)
        except TritiumError as exc:
            if exc.exit_code != 1:
                raise
            error = str(exc)
        versions.append({"model": model, "version": version, "folder": str(folder), "ok": not error, "error": error})
        if not as_json:
            click.echo(f"{model} {version}: {error or done}")
    ok = bool(versions) and all(version["ok"] for version in versions)
    if as_json:
        print_json({"ok": ok, "versions": versions})
    return ok


def connect(url: str) -> Client:
    """A client of a server; of one that this user runs on this machine, with its secret."""
    from tritium.client import Client

    headers: dict[str, str] = {}
    for running in _running_at(url):
        from tritium.server import admin_headers

        headers = admin_headers(url, running.secret)
    return Client(url, headers=headers)


def why_not_ready(exc: TritiumError) -> str:
    """What the supervisor says of the model that an error is about, if it is one of this user's and not ready."""
    for running in _running_at(exc.url) if exc.model else ():
        from tritium.server import ModelState, model_report

        report = model_report(running, exc.model or "")
        if report and report.state is not ModelState.READY:
            chance = f"`tritium reload {exc.model}` gives it another chance"
            then = chance if report.state is ModelState.QUARANTINED else "Try again in some seconds"
            why = f": {report.reason}" if report.reason else ""
            return f"Its supervisor says that it is {report.state}{why}. {then}"
    return ""


def _running_at(url: str) -> list[RunningServer]:
    """The server that this user runs on this machine at a URL, if there is one."""
    try:
        from tritium.server import running_servers
    except ImportError:  # without the server's extra there is none
        return []
    return [running for running in running_servers() if url.rstrip("/") in (running.http_url, running.grpc_url)]


def supervised(repository: Path | str) -> list[RunningServer]:
    """The servers with a supervisor that this user runs over a repository: a folder, or a URL of S3."""
    from tritium.server import running_servers

    def resolved(place: Path | str) -> Path | str:
        return place.resolve() if isinstance(place, Path) else place

    return [
        running
        for running in running_servers()
        if running.supervisor_url and resolved(_place(running.repository)) == resolved(repository)
    ]


def tell_how_to_serve(repository: Path | str, models: Sequence[str]) -> None:
    """Say what is left to do where a server of this user serves a repository and does not watch it."""
    with suppress(ImportError):  # without the server's extra there is none on this machine
        if any(not server.watched for server in supervised(repository)):
            where = "" if repository == Path("model_repository") else f" --repository {shlex.quote(str(repository))}"
            for model in models:
                say(f"`tritium reload {model}{where}` serves it")


def reload_running(repository: Path | str, model: str) -> list[str]:
    """Have every server that this user runs over a repository load a model again; the URLs of those servers.

    Raises:
        ReloadError: some refuse, or do not answer; the others have loaded it by then.
    """
    from tritium.server import ReloadError, reload_model

    reloaded, refusals = [], []
    for running in supervised(repository):
        try:
            reload_model(running, model)
            reloaded.append(running.http_url)
        except ReloadError as exc:
            refusals.append(str(exc))
    if refusals:
        others = [f"{model} was reloaded at {url}" for url in reloaded]
        raise ReloadError("\n".join([*refusals, *others]))
    return reloaded


def say(text: str = "") -> None:
    """A line for people; standard output is for results."""
    click.echo(text, err=True)


def print_json(document: Any) -> None:
    """The one JSON document of a command; what JSON has no number for (infinity, NaN) is null."""
    if ctx := click.get_current_context(silent=True):
        ctx.meta["tritium.printed"] = True
    click.echo(json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False))


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as their widest cell; where that is too much for the terminal, wrapped between words."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    columns = list(zip(*cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    if sys.stdout.isatty():
        longest = [max((len(word) for cell in column for word in cell.split()), default=0) for column in columns]
        room = shutil.get_terminal_size().columns - len(_GAP) * (len(widths) - 1)
        while sum(widths) > room and widths != longest:
            _, widest = max((width, place) for place, width in enumerate(widths) if width > longest[place])
            widths[widest] -= 1
    for row in cells:
        wrapped = [
            textwrap.wrap(cell, width, break_long_words=False, break_on_hyphens=False) if len(cell) > width else [cell]
            for cell, width in zip(row, widths, strict=True)
        ]
        for line in itertools.zip_longest(*wrapped, fillvalue=""):
            click.echo(_GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def print_markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """The same as a Markdown table."""
    for row in (header, ["---"] * len(header), *rows):
        click.echo(f"| {' | '.join(str(cell) for cell in row)} |")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
