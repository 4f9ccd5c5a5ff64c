"""The group of subcommands. Each is a module of this package, imported when it is asked for."""

from __future__ import annotations

import difflib
import json
from importlib import import_module
from importlib.metadata import version as package_version
from typing import Any

import click

from tritium.client import TritiumError

from ._shared import why_not_ready

COMMANDS = (
    "doctor",
    "runtime",
    "zoo",
    "add",
    "publish",
    "lint",
    "sign",
    "verify-signature",
    "push",
    "serve",
    "reload",
    "rollback",
    "models",
    "infer",
    "verify",
    "load",
    "compare",
    "tune",
)


class _Subcommands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f"tritium.cli._{name.replace('-', '_')}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"There are {', '.join(COMMANDS)}."
            raise click.UsageError(f"There is no command {args[0]!r}. {hint}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as exc:
            if "--json" in ctx.meta.get("tritium.arguments", ()):
                click.echo(json.dumps({"error": exc.format_message(), "kind": type(exc).__name__}))
            raise
        except TritiumError as exc:
            if "--json" in ctx.meta.get("tritium.arguments", ()) and not ctx.meta.get("tritium.printed"):
                click.echo(json.dumps({"error": str(exc), "kind": type(exc).__name__}))
            click.secho(f"Error: {exc}", fg="red", err=True)
            if hint := why_not_ready(exc):
                click.echo(hint, err=True)
            ctx.exit(exc.exit_code)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["tritium.arguments"] = list(args)
        return super().parse_args(ctx, args)


@click.group(cls=_Subcommands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_version("tritium"), prog_name="tritium")
def tritium() -> None:
    """From a fitted PyTorch or scikit-learn model to a Triton endpoint.

    Start with `tritium doctor`, then `tritium zoo train`, then `tritium serve`.
    """
