"""`tritium add`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from tritium.client import InputError, TensorSpec, triton_dtype

from ._shared import json_option, print_json, repository_option, say

if TYPE_CHECKING:
    from tritium.repository import Published


@click.command("add")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="The model's name.")
@repository_option
@click.option("--samples", type=click.Path(path_type=Path), help="Real inputs: an .npz file, one array for each input.")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME:DTYPE:DIMS",
    help="An input of TorchScript, as in features__0:FP32:-1,4; -1 for any length, first the batch.",
)
@click.option("--output", "outputs", multiple=True, metavar="NAME", help="What an output of TorchScript is called.")
@click.option("--max-batch-size", type=click.IntRange(min=0), help="Most rows in a batch; 0 for no batch axis.")
@click.option(
    "--target",
    type=click.Choice(["auto", "gpu"]),
    default="auto",
    show_default=True,
    help="gpu asks for TensorRT and CUDA by name, where there is a GPU.",
)
@json_option
def command(
    file: Path,
    name: str,
    repository: Path,
    samples: Path | None,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    max_batch_size: int | None,
    target: str,
    as_json: bool,
) -> None:
    """Publish FILE, an ONNX or TorchScript model that exists.

    An ONNX file says its inputs, outputs and batch axis itself; of TorchScript, pass --samples or --input. Its golden
    cases are what the runtime here answers to the samples, or to inputs that are made up: it is run, so add what you
    trust.

    \b
    tritium add model.onnx --name house --samples inputs.npz
    tritium add model.pt --name words --input tokens:INT64:-1,-1 --output scores
    """  # noqa: D301 — click's sign for lines that stay as they are
    from tritium.exporters import export_file
    from tritium.repository import Serving

    published = export_file(
        file,
        name=name,
        repository=repository,
        samples=samples,
        inputs=[_spec(item) for item in inputs],
        outputs=outputs,
        max_batch_size=max_batch_size,
        serving=Serving(target=target),
    )
    _tell(published, repository, made_up=samples is None, unbatched=max_batch_size == 0, as_json=as_json)


def _spec(text: str) -> TensorSpec:
    """`features:FP32:-1,4`; a name may itself have colons, as TensorFlow's do."""
    name, *rest = text.rsplit(":", 2)
    try:
        dtype, dims = rest
        shape = tuple(int(length) for length in dims.split(",") if length.strip())
    except ValueError:
        raise InputError(f"--input must be NAME:DTYPE:DIMS, as in features:FP32:-1,4, got {text!r} instead") from None
    if not name or any(length < 1 and length != -1 for length in shape):
        raise InputError(f"The dims of an --input must be -1 or from 1, as in features:FP32:-1,4, got {text!r} instead")
    try:
        return TensorSpec(name, triton_dtype(np.dtype(dtype)), shape)  # numpy's names are as good
    except TypeError:
        return TensorSpec(name, {"STRING": "BYTES"}.get(dtype.upper(), dtype.upper()), shape)


def _tell(published: Published, folder: Path, *, made_up: bool, unbatched: bool, as_json: bool) -> None:
    from tritium.repository import Manifest, Repository, input_specs, output_specs

    config = Repository(folder).config(published.model)
    inputs, outputs = ([str(spec) for spec in specs] for specs in (input_specs(config), output_specs(config)))
    if as_json:
        manifest = Manifest.load(published.folder)
        print_json(
            {
                "model": published.model,
                "version": published.version,
                "folder": str(published.folder),
                "backend": config.backend,
                "max_batch_size": config.max_batch_size,
                "inputs": inputs,
                "outputs": outputs,
                "data": dict(manifest.data),
                "files": sorted(manifest.files),
            }
        )
        return
    click.echo(f"{published.model} version {published.version} in {published.folder}")
    click.echo(f"  {', '.join(inputs)} → {', '.join(outputs)}")
    if not config.max_batch_size and not unbatched:
        say("  max_batch_size is 0: the first axes of its inputs and outputs are not all free, so it has no batch axis")
    if made_up:
        say("  Its golden cases have made-up inputs. With real ones (--samples inputs.npz) they prove more")
