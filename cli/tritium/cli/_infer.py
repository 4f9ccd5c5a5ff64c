"""`tritium infer`."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from tritium.client import InputError, Model

from ._shared import connect, json_option, print_json, repository_option, url_option

# Values that are typed by hand.
_FEW = 16


@click.command("infer")
@click.argument("model")
@url_option
@click.option("--model-version", default=None, help="The version; the server chooses by default.")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=VALUE",
    help="An input: a JSON value, or @FILE.npy. Once for each input.",
)
@click.option("--case", type=click.IntRange(min=0), help="Send this golden case of the repository instead.")
@repository_option
@json_option
def command(
    model: str,
    url: str,
    model_version: str | None,
    inputs: tuple[str, ...],
    case: int | None,
    repository: Path,
    as_json: bool,
) -> None:
    """Run MODEL on a running server.

    \b
    tritium infer digits_cnn --case 0
    tritium infer digits_cnn --input image=@digit.npy
    tritium infer iris --input 'features=[[5.1, 3.5, 1.4, 0.2]]'
    """  # noqa: D301 — click's sign for lines that stay as they are
    if (case is None) == (not inputs):
        raise InputError("Give either --input, once for each input, or --case")
    with connect(url) as client:
        handle = client.model(model, model_version)
        values, expected = (_parsed(inputs, handle), {}) if case is None else _golden_case(handle, repository, case)
        answer = handle(values)
        names = [spec.name for spec in handle.metadata.outputs]
    outputs = dict(answer) if isinstance(answer, Mapping) else {names[0]: answer}
    if as_json:
        print_json(
            {name: {"shape": list(a.shape), "dtype": str(a.dtype), "data": _plain(a)} for name, a in outputs.items()}
        )
        return
    for name, array in outputs.items():
        click.echo(f"{name} {array.dtype}{array.shape}")
        click.echo(f"  {_text(array)}")
        if name in expected:
            click.echo(f"  golden: {_text(expected[name])}")


def _parsed(inputs: tuple[str, ...], handle: Model) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for item in inputs:
        name, found, value = item.partition("=")
        if not found:
            raise InputError(f"--input must be NAME=VALUE, got {item!r} instead")
        try:
            values[name] = _array(Path(value[1:])) if value.startswith("@") else json.loads(value)
        except (OSError, ValueError, EOFError) as exc:
            kind = "an .npy file" if value.startswith("@") else f"JSON, as in {_example(name, handle)}"
            raise InputError(f"The value of input {name!r} cannot be read as {kind}: {exc}") from exc
    return values


def _example(name: str, handle: Model) -> str:
    """An input with a value of the right shape; where the model has no such input, of any."""
    spec = next((spec for spec in handle.metadata.inputs if spec.name == name), None)
    shape = [max(size, 1) for size in spec.shape] if spec else [1]
    if math.prod(shape) > _FEW:
        return f"{name}=@FILE.npy"
    value: Any = {"BYTES": "good", "BOOL": True}.get(spec.dtype if spec else "", 0)
    return shlex.quote(f"{name}={json.dumps(np.full(shape, value).tolist())}")


def _array(path: Path) -> NDArray[Any]:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    loaded.close()
    raise ValueError("it is an archive of several arrays")


def _golden_case(handle: Model, folder: Path, case: int) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """A golden case of the version that the server serves."""
    from tritium.repository import Repository, golden_batches, load_golden

    repository, model = Repository(folder), handle.name
    config = repository.config(model)
    golden = load_golden(repository.version_folder(model, handle.metadata.versions[-1]), config)
    if case >= len(golden):
        raise InputError(f"{model!r} has golden cases 0 to {len(golden) - 1}, got {case} instead")
    chosen = next(islice(golden_batches(golden, config, rows=1), case, None))
    return dict(chosen.inputs), dict(chosen.outputs)


def _plain(array: NDArray[Any]) -> Any:
    """JSON types; bytes that are no UTF-8 keep their form with escapes."""
    if array.dtype == object:
        flat = [item if isinstance(item, str) else item.decode(errors="backslashreplace") for item in array.ravel()]
        return np.array(flat, dtype=object).reshape(array.shape).tolist()
    return array.tolist() if array.dtype.name != "bfloat16" else array.astype(np.float32).tolist()


def _text(array: NDArray[Any]) -> str:
    return np.array2string(array, precision=6, suppress_small=True, threshold=50, max_line_width=100, prefix="  ")
