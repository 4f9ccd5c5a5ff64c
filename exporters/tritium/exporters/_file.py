"""Model files that exist: an ONNX or TorchScript file becomes a version in a repository."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import numpy as np

from tritium.client import InputError, TensorSpec, numpy_dtype, triton_dtype
from tritium.repository import (
    ArtifactError,
    Published,
    Repository,
    Serving,
    Tolerance,
    file_sha256,
    is_float,
    open_artifact,
    opened,
    publish,
)

from ._errors import ConversionError, ExportError, ParityError
from ._export import Array, Converted, Provenance, Run, prepare
from ._model_file import Declared, ModelFile, read_model_file, script_inputs, script_outputs
from ._precision import default_tolerance, finite_rows

# Inputs that are made up: how many, by which seed, and how long an axis is that may have any length.
_CASES, _SEED, _LENGTH = 8, 0, 8
# As Triton has one value without an axis; the backends take it away again.
_SCALAR = (1,)
_WORDS = ("triton", "nucleus", "of", "tritium")


def export_file(
    path: str | Path,
    *,
    name: str,
    repository: str | Path | Repository,
    samples: Mapping[str, Array] | str | Path | None = None,
    inputs: Sequence[TensorSpec] = (),
    outputs: Sequence[str] = (),
    labels: Mapping[str, Sequence[str]] | None = None,
    files: Mapping[str, Path] | None = None,
    max_batch_size: int | None = None,
    serving: Serving = Serving(),
    tolerance: Tolerance | None = None,
    provenance: Provenance | None = None,
) -> Published:
    """Publish an ONNX or TorchScript file that exists.

    What the file is, its content says, and an ONNX file its inputs and outputs too. It has a batch axis if the first
    axis of every input and output is free; then its rows must answer alone as they do in batches of any size. There is
    nothing else to compare it with: its golden cases are what the runtime here answers, so that `tritium verify` tells
    whether another server, such as one with a GPU, answers the same. To know them it is run: publish what you trust.

    Args:
        path: the file. Weights that an ONNX file has outside of itself must be in the same folder, and come along.
        name: the model's name.
        repository: where to publish; made if it is not there.
        samples: real inputs by name, as arrays or as an ``.npz`` file of them, with the rows as first axis; the first
            32 become golden cases. Without a batch axis the first axis counts the cases. If there are none, inputs
            are made up from dtypes and shapes, always the same ones, and the manifest says so.
        inputs: of TorchScript, which does not say them, unless there are `samples`: for each input its dtype and
            shape, -1 where any length is accepted; a first axis of -1 is the batch.
        outputs: of TorchScript, what its results are called, in their order; ``output`` by default. Triton numbers
            them: ``scores`` becomes ``scores__0``. A forward that returns a dict says the names itself; of these,
            this chooses.
        labels: for each output that has them, the names of its classes.
        files: what belongs beside the model file in the version's folder, by name.
        max_batch_size: as in `Serving`. By default that of `serving` if the file has a batch axis, else 0.
        serving: how it is to be served otherwise.
        tolerance: what answers may differ in batches of another size, and from server to server; by default as in
            `export_torch`.
        provenance: for the manifest; by default the names and checksums of the files.

    Raises:
        InputError: the file is neither ONNX nor TorchScript, or names, samples or shapes do not fit it.
        ConversionError: Triton does not have a type of its inputs or outputs, its weights are not beside it, or the
            runtime here does not run it.
        ExportError: its answers are not finite, or its first axis is no batch axis.
        PublishError: the version failed its verification, or the repository cannot be written.
    """
    path = Path(path)
    file = read_model_file(path)
    given = _read_samples(samples)
    if file.backend == "pytorch":
        file = script_inputs(file, inputs or _specs_of(given, batched=max_batch_size != 0))
    elif inputs or outputs:
        raise InputError(f"{path} is ONNX and says its inputs and outputs itself; leave `inputs` and `outputs` out")
    batch = _batch_size(file, serving, max_batch_size)
    arrays = _fitted(file.inputs, given, batch > 0) if given else _made_up(file.inputs, batch > 0)
    try:
        run = open_artifact(path, file.backend)
        if file.backend == "pytorch":
            first = {key: _rows(array, 0, batch > 0) for key, array in arrays.items()}
            file = script_outputs(file, outputs, run.list_outputs(first))
        expected = _one_by_one(run, file, arrays, batched=batch > 0)
        axes = _free(run, file, arrays, expected, batched=batch > 0)
    except ArtifactError as exc:
        raise ConversionError(
            f"The runtime here does not run {path} on {'the samples' if given else 'made-up inputs'}, so that its "
            f"answers cannot be known: {exc}"
            + ("" if given else "\nIf it needs other values or lengths, pass real inputs as `samples` (--samples)")
        ) from exc
    odd = [key for key, array in expected.items() if not finite_rows(array).all()]
    if odd and not given:
        raise ExportError(
            f"{path} answers made-up inputs with a {odd[0]} that is not finite; nothing was published. Pass real "
            "inputs as `samples`, on the command line --samples inputs.npz"
        )
    rows = len(next(iter(arrays.values())))
    try:
        candidate = prepare(
            Converted(
                backend=file.backend,
                artifact=path,
                files={**file.files, **(files or {})},
                opset=file.opset,
                packages=("numpy", *_runtime(file.backend)),
            ),
            name=name,
            inputs=arrays,
            expected=expected,
            labels=labels or {},
            serving=replace(serving, max_batch_size=batch),
            tolerance=tolerance or default_tolerance(a.dtype.name for a in [*arrays.values(), *expected.values()]),
            provenance=provenance or Provenance(source=path.name, data=_data(samples, rows)),
            axes=axes,
        )
    except ParityError as exc:
        raise ExportError(
            f"The first axis of {path} is no batch axis: rows answer otherwise together than alone "
            f"({'; '.join(map(str, exc.differences))}). Nothing was published. If that is as it should be, publish it "
            "with max_batch_size=0 (--max-batch-size 0)"
        ) from exc
    return publish(opened(repository, create=True), candidate)


def _read_samples(samples: Mapping[str, Array] | str | Path | None) -> dict[str, Array]:
    if samples is None:
        return {}
    if isinstance(samples, Mapping):
        return {key: np.asarray(array) for key, array in samples.items()}
    try:
        with np.load(samples, allow_pickle=False) as archive:
            return dict(archive)
    except (OSError, ValueError, TypeError, EOFError, AttributeError, zipfile.BadZipFile) as exc:
        raise InputError(
            f"The samples in {samples} cannot be read: {exc}. They must be an .npz file with one array for each input, "
            "as numpy.savez(path, features=rows) writes it; no objects"
        ) from exc


def _specs_of(given: Mapping[str, Array], *, batched: bool) -> list[TensorSpec]:
    first = (-1,) if batched else ()
    return [TensorSpec(key, triton_dtype(array.dtype), (*first, *array.shape[1:])) for key, array in given.items()]


def _batch_size(file: ModelFile, serving: Serving, max_batch_size: int | None) -> int:
    """The largest batch; 0 for a file that has no batch axis."""
    wanted = serving.max_batch_size if max_batch_size is None else max_batch_size
    fixed = [
        f"{item.name} has the shape {list(item.shape)}"
        for item in [*file.inputs, *file.outputs]
        if item.shape is not None and (not item.shape or item.shape[0] != -1)
    ]
    if not fixed and len(set(file.symbols)) > 1:
        fixed = [f"the first axes of its inputs are {', '.join(file.symbols)}"]
    if fixed and max_batch_size:
        raise InputError(
            f"The 'max_batch_size' parameter must be 0 for {file.path}, which has no batch axis ({fixed[0]}, and the "
            f"first axis of all must be free), got {max_batch_size} instead. Export it again with a dynamic batch axis"
        )
    return 0 if fixed else wanted


def _fitted(specs: Sequence[Declared], given: Mapping[str, Array], batched: bool) -> dict[str, Array]:
    """Samples in the dtypes of the inputs, if they fit them."""
    if given.keys() != {spec.name for spec in specs}:
        raise InputError(
            f"The 'samples' parameter must have arrays for {[spec.name for spec in specs]}, got {sorted(given)} instead"
        )
    fitted = {}
    for spec in specs:
        array = _cast(given[spec.name], spec)
        shape = spec.shape if spec.shape is None or batched else (-1, *(spec.shape or _SCALAR))
        if shape is not None and array.ndim == len(shape) - 1 and not batched:
            array = array[np.newaxis]  # one case without the axis that counts them
        if shape is not None and (
            array.ndim != len(shape)
            or any(want not in (-1, have) for want, have in zip(shape, array.shape, strict=True))
        ):
            raise InputError(
                f"The samples of {spec.name!r} must have the shape {list(shape)}, where the first axis counts the "
                f"{'rows' if batched else 'cases'}, got {list(array.shape)} instead"
            )
        fitted[spec.name] = array
    if len({len(array) for array in fitted.values()}) > 1 or not len(next(iter(fitted.values()))):
        raise InputError(
            "The samples must have the same number of rows in every input, at least one, got "
            + ", ".join(f"{key}: {len(array)}" for key, array in fitted.items())
        )
    return fitted


def _cast(array: Array, spec: Declared) -> Array:
    """An array in the dtype of an input, where that loses nothing but precision."""
    wanted = numpy_dtype(spec.dtype)
    if spec.dtype == "BF16" and array.dtype == np.dtype("V2"):
        return array.view(wanted)  # as numpy's files keep what numpy does not know
    kinds = {"BYTES": "OSU", "BF16": "fV"}.get(spec.dtype, wanted.kind)
    whole = wanted.kind not in "iu" or np.can_cast(array.dtype, wanted, "safe")
    if array.dtype.kind not in kinds or not whole:
        raise InputError(f"The samples of {spec.name!r} must be {spec.dtype} ({wanted}), got {array.dtype} instead")
    with np.errstate(over="ignore"):
        cast = array.astype(wanted)
    if is_float(cast) and (lost := np.isfinite(array.astype(np.float64)) & ~np.isfinite(cast.astype(np.float64))).any():
        raise InputError(
            f"The samples of {spec.name!r} must be {spec.dtype} ({wanted}), which has no room for "
            f"{array[lost].flat[0]:g} in row {np.argwhere(lost)[0][0]}. Leave such rows out, or scale them as the "
            "model expects"
        )
    return cast


def _made_up(specs: Sequence[Declared], batched: bool) -> dict[str, Array]:
    """Inputs of the right dtypes and shapes, the same ones every time."""
    draw = np.random.default_rng(_SEED)
    made = {}
    for spec in specs:
        if spec.shape is None:
            raise InputError(
                f"The file does not say how many axes the input {spec.name!r} has; pass real inputs as `samples`, on "
                "the command line --samples inputs.npz"
            )
        axes = spec.shape[1:] if batched else spec.shape or _SCALAR
        shape = [_CASES, *(_LENGTH if length == -1 else length for length in axes)]
        made[spec.name] = _drawn(draw, numpy_dtype(spec.dtype), shape)
    return made


def _drawn(draw: np.random.Generator, dtype: np.dtype[Any], shape: Sequence[int]) -> Array:
    if dtype.kind == "O":
        return draw.choice(_WORDS, shape).astype(object)
    if dtype == np.uint8:  # pixels, as a rule
        return draw.integers(0, 256, shape).astype(dtype)
    if dtype.kind in "biu":  # what counts or indexes is 0 or 1 in most models
        return draw.integers(0, 2, shape).astype(dtype)
    return draw.normal(size=shape).astype(dtype)


def _one_by_one(run: Run, file: ModelFile, arrays: Mapping[str, Array], *, batched: bool) -> dict[str, Array]:
    """The answers to each row or case alone."""
    names = [item.name for item in file.outputs]
    parts = [
        run({key: _rows(array, row, batched) for key, array in arrays.items()}, names)
        for row in range(len(next(iter(arrays.values()))))
    ]
    for key in names:
        shapes = {part[key].shape for part in parts}
        if len(shapes) > 1 or shapes == {()} or (batched and next(iter(shapes))[0] != 1):
            wanted = "one entry, for one row," if batched else "the same number of entries, in every case,"
            raise ExportError(
                f"The output {key!r} of {file.path} must have {wanted} along its axes, got the shapes "
                f"{', '.join(map(str, sorted(shapes)))} instead. Nothing was published"
                + (
                    "; if the first axis is no batch axis, pass max_batch_size=0 (--max-batch-size 0)"
                    if batched
                    else ""
                )
            )
    return {key: (np.concatenate if batched else np.stack)([part[key] for part in parts]) for key in names}


def _rows(array: Array, row: int, batched: bool) -> Array:
    """One row as a batch, or one case; a slice, because an item of an array of strings is no array."""
    one = array[row : row + 1]
    return one if batched else one.reshape(array.shape[1:])


def _free(
    run: Run, file: ModelFile, arrays: Mapping[str, Array], expected: Mapping[str, Array], *, batched: bool
) -> dict[str, set[int]]:
    """The axes of any length beside that of the rows, as the arrays count them."""
    shift = 0 if batched else 1
    axes = {
        item.name: {place + shift for place, length in enumerate(item.shape or ()) if length == -1} - {0}
        for item in [*file.inputs, *file.outputs]
    }
    unknown = [item.name for item in file.outputs if item.shape is None]
    if unknown and any(axes.values()):
        # The file does not say which axes of its outputs follow those of its inputs: another length shows it.
        longer = {}
        for key, array in arrays.items():
            first = array[:1]
            for axis in axes[key]:
                first = np.take(first, np.arange(array.shape[axis] + 1) % array.shape[axis], axis)
            longer[key] = _rows(first, 0, batched)
        for key, array in run(longer, unknown).items():
            there = expected[key].shape[1:]
            here = array.shape[1:] if batched else array.shape
            axes[key] |= {place for place, pair in enumerate(zip(here, there, strict=False), 1) if pair[0] != pair[1]}
    return axes


def _runtime(backend: str) -> tuple[str, ...]:
    if backend == "pytorch":
        return ("torch",)
    return ("onnx", packages_distributions()["onnxruntime"][0])


def _data(samples: Mapping[str, Array] | str | Path | None, rows: int) -> dict[str, Any]:
    if samples is None:
        return {"name": "made up inputs", "rows": rows, "seed": _SEED}
    if isinstance(samples, Mapping):
        return {"name": "samples", "rows": rows}
    return {"name": Path(samples).name, "rows": rows, "sha256": file_sha256(Path(samples))}
