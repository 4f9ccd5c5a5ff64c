"""The way of every export: a converted file is compared with its framework on held-out rows, and then published."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritium.client import InputError, MissingExtraError, TensorSpec, triton_dtype
from tritium.repository import (
    Candidate,
    GoldenCases,
    Manifest,
    Serving,
    Tolerance,
    add_warm_up,
    compare,
    is_float,
    measure,
    model_config,
    open_artifact,
    rows_alike,
)

from ._errors import ExportError, ParityError
from ._precision import finite_rows

Array = NDArray[Any]
Run = Callable[[Mapping[str, Array], Sequence[str]], dict[str, Array]]
GOLDEN_CASES = 32


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What the manifest says of a version beyond what the exporter sees itself.

    Attributes:
        source: the script or notebook that made the model.
        data: what it was trained on: a name, numbers of rows, a checksum.
        metrics: what it reached on held-out data.
        baselines: what the simplest guess reaches by the same metrics, such as the majority class or the mean.
        training: how it was trained, such as `tritium.exporters.training.History` tells it.
        recipe: a checksum of all that went in, for whoever wants to know whether to build again.
    """

    source: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    baselines: Mapping[str, float] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    recipe: str = ""


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What a converter made of a model.

    Attributes:
        backend: ``onnxruntime`` or ``pytorch``.
        artifact: the model file.
        files: what belongs beside it in the version's folder, by name.
        opset: the ONNX opset, if it is ONNX.
        packages: what made it, whose versions the manifest keeps.
    """

    backend: str
    artifact: Path
    files: Mapping[str, Path] = field(default_factory=dict)
    opset: int | None = None
    packages: Sequence[str] = ()


def prepare(
    converted: Converted,
    *,
    name: str,
    inputs: Mapping[str, Array],
    expected: Mapping[str, Array],
    labels: Mapping[str, Sequence[str]],
    serving: Serving,
    tolerance: Tolerance,
    provenance: Provenance,
    axes: Mapping[str, Iterable[int]] | None = None,
) -> Candidate:
    """Compare a converted model with its framework; what may then be published.

    Args:
        converted: the model file and what belongs to it.
        name: the model's name.
        inputs: held-out rows by input name, the first axis counts them.
        expected: what the framework answers to them, by output name; likewise.
        labels: for each output that has them, the names of its classes.
        serving: how the model is to be served.
        tolerance: what may differ.
        provenance: for the manifest.
        axes: of inputs and outputs, beside the first, those that may have any length.

    Raises:
        InputError: the rows, labels or names cannot be used.
        ExportError: the framework itself answers with what is not finite.
        ParityError: the converted model does not answer as the framework does.
    """
    tolerance.check()
    expected = {key: array.astype(object) if array.dtype.kind == "U" else array for key, array in expected.items()}
    rows = _check_rows(name, inputs, expected)
    batched = serving.max_batch_size > 0
    _check_labels(labels, expected)
    label_files = {output: "labels.txt" if len(labels) == 1 else f"{output}_labels.txt" for output in labels}
    config = model_config(
        name,
        backend=converted.backend,
        inputs=_specs(inputs, axes or {}, batched),
        outputs=_specs(expected, axes or {}, batched),
        serving=serving,
        label_files=label_files,
    )
    run = open_artifact(converted.artifact, converted.backend)
    _check_telling(name, expected, tolerance)
    differences = measure(run, GoldenCases(inputs, expected), serving.max_batch_size, tolerance)
    if any(not difference.ok for difference in differences):
        raise ParityError(name, differences)
    kept = _alike(run, inputs, expected, tolerance) if tolerance.agreement < 1 else slice(GOLDEN_CASES)
    golden = GoldenCases(_golden(inputs, kept), _golden(expected, kept))
    manifest = Manifest(
        model=name,
        source=provenance.source,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        frameworks={"python": platform.python_version()} | {item: package_version(item) for item in converted.packages},
        data=provenance.data,
        metrics=provenance.metrics,
        baselines=provenance.baselines,
        training=provenance.training,
        parity={difference.output: difference.figures() for difference in differences},
        rows=rows,
        tolerance=tolerance,
        gpu_tolerance=_on_gpu(tolerance),
        recipe=provenance.recipe,
        opset=converted.opset,
    )
    return Candidate(
        config=config,
        artifact=converted.artifact,
        golden=golden,
        manifest=manifest,
        labels={label_files[output]: list(names) for output, names in labels.items()},
        files=converted.files,
        warm_up=add_warm_up(config, golden) if serving.warm_up else {},
    )


def need(package: str, extra: str = "exporters") -> None:
    """Refuse to go on without a package.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        __import__(package)
    except ImportError as exc:
        raise MissingExtraError(package, extra) from exc


def _check_rows(name: str, inputs: Mapping[str, Array], expected: Mapping[str, Array]) -> int:
    counts = {key: len(array) if array.ndim else 0 for key, array in {**inputs, **expected}.items()}
    rows = next(iter(counts.values()), 0)
    if not rows or set(counts.values()) != {rows}:
        raise InputError(
            f"All held-out inputs and expected outputs of {name!r} must have the same number of rows, at least one, "
            f"got {counts} instead"
        )
    for key, array in expected.items():
        if not (finite := finite_rows(array)).all():
            row = int(np.argmin(finite))
            raise ExportError(
                f"{name!r} itself answers held-out row {row} with a {key} that is not finite; nothing was published. "
                "Look at that row and at how the model was trained"
            )
    return rows


def _check_labels(labels: Mapping[str, Sequence[str]], expected: Mapping[str, Array]) -> None:
    for key, names in labels.items():
        if key not in expected:
            raise InputError(f"The 'labels' parameter must be for {list(expected)}, got {key!r} instead")
        classes = expected[key].shape[-1] if expected[key].ndim > 1 else 1
        if len(names) != classes:
            raise InputError(f"The 'labels' parameter must name {classes} classes of {key!r}, got {len(names)} instead")
        if odd := [label for label in names if label.splitlines() != [label] or names.count(label) > 1]:
            raise InputError(f"The 'labels' parameter must name each class once, in one line, got {odd[0]!r}")


def _check_telling(name: str, expected: Mapping[str, Array], tolerance: Tolerance) -> None:
    """A tolerance by which a model that answers nothing but zeros would pass proves nothing."""
    for key, array in expected.items():
        if is_float(array) and array.any() and compare({key: array}, {key: np.zeros_like(array)}, tolerance)[0].ok:
            largest = float(np.abs(array.astype(np.float64)).max())
            raise InputError(
                f"The {key} of {name!r} is at most {largest:.1e} on the held-out rows, so that zeros would pass by "
                f"{tolerance}; pass a `tolerance` with an atol that is small beside it"
            )


def _specs(arrays: Mapping[str, Array], axes: Mapping[str, Iterable[int]], batched: bool) -> list[TensorSpec]:
    specs = []
    for name, array in arrays.items():
        free = set(axes.get(name, ()))
        lengths = [-1 if axis in free else length for axis, length in enumerate(array.shape[1:], 1)]
        specs.append(TensorSpec(name, triton_dtype(array.dtype), (*([-1] if batched else []), *lengths)))
    return specs


def _on_gpu(tolerance: Tolerance) -> Tolerance:
    """TF32 keeps ten bits of the mantissa; and no less may differ on a GPU than on a CPU."""
    return replace(tolerance, atol=max(tolerance.atol, 1e-3))


def _alike(run: Run, inputs: Mapping[str, Array], expected: Mapping[str, Array], tolerance: Tolerance) -> Array:
    """The first rows in which model and framework agree: what flips next to a threshold is no golden case."""
    return np.flatnonzero(rows_alike(expected, run(inputs, list(expected)), tolerance))[:GOLDEN_CASES]


def _golden(arrays: Mapping[str, Array], rows: slice | Array) -> dict[str, Array]:
    """Rows as a client sees them: Triton has no scalars, so one value a row is an axis of length 1."""
    kept = {name: array[rows] for name, array in arrays.items()}
    return {name: array[:, np.newaxis] if array.ndim == 1 else array for name, array in kept.items()}
