"""`tritium runtime`."""

from __future__ import annotations

from pathlib import Path

import click

from ._shared import json_option, print_json, say


@click.group("runtime")
def command() -> None:
    """Install, show or remove the embedded Triton server.

    `tritium serve` installs it by itself at its first start.
    """


@command.command()
@click.option(
    "--from",
    "source",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder with the two wheels, for machines without a network; and with ziglang's, if there is no C++ "
    "compiler.",
)
@json_option
def install(source: Path | None, as_json: bool) -> None:
    """Fetch Triton by pip and compile the native backend.

    Triton is checked and unpacked into the cache. The native ONNX Runtime backend is compiled with the system's C++
    compiler, else with ziglang's, which is removed afterwards. If neither can, the Python-based backend serves; once
    there is a compiler, run this again.
    """
    from tritium.server import install_native_backend, install_runtime, runtime_info

    runtime = install_runtime(source=source, progress=say)
    native = install_native_backend(source=source, progress=say)
    if as_json:
        print_json(runtime_info())
        return
    say(f"Installed: {runtime.root}")
    if native.library:
        say(f"Compiled:  {native.library}")
    if native.fix:
        say(f"{native.fix} for the native backend")


@command.command()
@json_option
def info(as_json: bool) -> None:
    """Show what is installed, where, and how big the cache is."""
    from tritium.server import runtime_info

    about = runtime_info()
    if as_json:
        print_json(about)
        return
    click.echo(f"Triton    {about['triton_version']}, {'installed' if about['installed'] else 'not installed'}")
    click.echo(f"Path      {about['path'] or '-'}")
    click.echo(f"Cache     {about['cache']} ({about['cache_bytes'] / 1e6:.0f} MB)")
    for wheel in about["wheels"]:
        click.echo(f"Wheel     {wheel['project']} {wheel['version']}, sha256 {wheel['sha256']}")
    for backend, kind in about["backends"].items():
        click.echo(f"Backend   {backend}: {'native' if kind == 'native' else 'Python-based'}")
    native = about["native"]
    if native["library"]:
        click.echo(f"Native    {native['library']}, compiled by {native['compiler']}")
    if native["reason"]:
        click.echo(f"Native    not used: {native['reason']}")


@command.command()
@json_option
def remove(as_json: bool) -> None:
    """Remove the server and everything else in the cache."""
    from tritium.server import remove_runtime

    freed_bytes = remove_runtime()
    if as_json:
        print_json({"freed_bytes": freed_bytes})
    else:
        say(f"Freed {freed_bytes / 1e6:.0f} MB")
