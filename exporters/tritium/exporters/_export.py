"""From a fitted model to a published version: convert, compare on held-out data, publish; or nothing at all."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version as package_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tritium.client import InputError, MissingExtraError, TensorSpec, triton_dtype
from tritium.repository import (
    Candidate,
    GoldenCases,
    Manifest,
    Published,
    Repository,
    Tolerance,
    compare,
    model_config,
    open_artifact,
    publish,
)

from . import _convert
from ._errors import ExportError, ParityError

if TYPE_CHECKING:
    import torch

Array = NDArray[Any]
GOLDEN_CASES = 32
_FORMATS = ("onnx", "torchscript")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What the manifest says of a version beyond what the exporter sees itself.

    Attributes:
        source: the script or notebook that made the model.
        data: what it was trained on: a name, numbers of rows, a checksum.
        metrics: what it reached on held-out data.
        recipe: a checksum of all that went in, for whoever wants to know whether to build again.
    """

    source: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    recipe: str = ""


def export_sklearn(
    estimator: Any,
    held_out: Array,
    *,
    name: str,
    repository: str | Path | Repository,
    input_name: str = "features",
    labels: Sequence[str] = (),
    max_batch_size: int = 64,
    tolerance: Tolerance = Tolerance(atol=1e-4),
    provenance: Provenance = Provenance(),
) -> Published:
    """Publish a fitted scikit-learn estimator or Pipeline as an ONNX model.

    A classifier has the outputs ``label`` (the class) and ``probabilities`` (one a class), everything else has
    ``prediction``.

    Args:
        estimator: fitted on numbers.
        held_out: real rows that it was not fitted on, of shape (rows, features): the converted model is compared with
            the estimator on all of them, and the first 32 become golden cases.
        name: the model's name.
        repository: where to publish; made if it is not there.
        input_name: what the input is called.
        labels: names of the classes, in the order of ``probabilities``.
        max_batch_size: most rows that Triton puts into one batch.
        tolerance: what probabilities and predictions may differ; labels must agree in every row. ONNX computes in
            float32 and scikit-learn in float64, so a difference of 1e-5 is usual.
        provenance: for the manifest.

    Raises:
        ConversionError: skl2onnx does not support the estimator.
        ParityError: the ONNX model does not answer as the estimator does.
        PublishError: the version failed its verification, or the repository cannot be written.
    """
    _need("skl2onnx")
    from sklearn.base import is_classifier

    rows = np.ascontiguousarray(held_out, dtype=np.float32)
    if is_classifier(estimator):
        if not hasattr(estimator, "predict_proba"):
            raise InputError(
                f"This {type(estimator).__name__} has no probabilities; fit CalibratedClassifierCV around it "
                "(ensemble=False keeps it small)"
            )
        labels_of_rows = np.asarray(estimator.predict(rows))
        if labels_of_rows.dtype.kind in "biu":
            labels_of_rows = labels_of_rows.astype(np.int64)  # as the converter has every kind of whole number
        expected = {
            "label": labels_of_rows,
            "probabilities": np.asarray(estimator.predict_proba(rows), dtype=np.float32),
        }
    elif not hasattr(estimator, "predict"):
        raise InputError(
            f"This {type(estimator).__name__} has no predict; export the Pipeline that ends in what predicts"
        )
    else:
        values = np.asarray(estimator.predict(rows), dtype=np.float32)
        expected = {"prediction": values.reshape(len(rows), -1)}
    return _export(
        convert=lambda inputs, path: _convert.sklearn_to_onnx(estimator, inputs, list(expected), path),
        backend="onnxruntime",
        name=name,
        repository=repository,
        inputs={input_name: rows},
        expected=expected,
        labels={"probabilities": labels} if labels else {},
        max_batch_size=max_batch_size,
        tolerance=tolerance,
        provenance=provenance,
        packages=("numpy", "onnx", "scikit-learn", "skl2onnx"),
    )


def export_torch(
    module: torch.nn.Module,
    held_out: Mapping[str, Array],
    *,
    outputs: Sequence[str],
    name: str,
    repository: str | Path | Repository,
    format: str = "onnx",  # noqa: A002 — the field's word
    labels: Mapping[str, Sequence[str]] | None = None,
    max_batch_size: int = 64,
    tolerance: Tolerance = Tolerance(atol=1e-5),
    provenance: Provenance = Provenance(),
) -> Published:
    """Publish a PyTorch module as an ONNX or a TorchScript model with a dynamic batch axis.

    Args:
        module: in the state in which it is to be served; it is put into eval mode.
        held_out: real rows that it was not trained on, by input name in the order of ``forward``, each with the batch
            as first axis: the converted model is compared with the module on all of them, and the first 32 become
            golden cases.
        outputs: what the tensors that ``forward`` returns are called. Triton numbers those of TorchScript, so there
            ``probabilities`` becomes ``probabilities__0``, and likewise the inputs.
        name: the model's name.
        repository: where to publish; made if it is not there.
        format: ``onnx`` or ``torchscript``.
        labels: for each output that has them, the names of its classes.
        max_batch_size: most rows that Triton puts into one batch.
        tolerance: what floats may differ.
        provenance: for the manifest.

    Raises:
        InputError: the format is unknown, or the outputs are not as many as ``forward`` returns.
        ConversionError: torch's exporter does not take the module.
        ParityError: the converted model does not answer as the module does.
        PublishError: the version failed its verification, or the repository cannot be written.
    """
    if format not in _FORMATS:
        raise InputError(f"The 'format' parameter of export_torch must be one of {_FORMATS}, got {format!r} instead")
    _need("torch")
    import torch

    elsewhere = {str(parameter.device) for parameter in module.parameters()} - {"cpu"}
    if elsewhere:
        raise InputError(f"The module is on {min(elsewhere)}; call module.cpu() before export_torch")
    if not isinstance(held_out, Mapping):
        raise InputError("The 'held_out' parameter must map input names to arrays, as in {'features': x}")
    arrays = {key: np.ascontiguousarray(array) for key, array in held_out.items()}
    try:
        with torch.inference_mode():
            results = module.eval()(*(torch.from_numpy(array) for array in arrays.values()))
    except Exception as exc:
        given = ", ".join(f"{key} {array.dtype}{array.shape}" for key, array in arrays.items())
        raise InputError(
            f"{type(module).__name__} does not take the 'held_out' parameter of export_torch ({given}): {exc}"
        ) from exc
    results = [results] if isinstance(results, torch.Tensor) else results
    if not isinstance(results, tuple | list) or not all(isinstance(item, torch.Tensor) for item in results):
        raise InputError(
            f"{type(module).__name__} must return a tensor or a tuple of tensors, got {type(results).__name__} instead"
        )
    if len(results) != len(outputs) or len(set(outputs)) != len(outputs):
        raise InputError(
            f"The 'outputs' parameter must name {len(results)} tensors, each once, got {list(outputs)} instead"
        )
    expected = {key: value.numpy() for key, value in zip(outputs, results, strict=True)}
    label_lines = dict(labels or {})
    if unknown := sorted(label_lines.keys() - expected.keys()):
        raise InputError(f"The 'labels' parameter must be for {list(expected)}, got {unknown[0]!r} instead")
    convert: Callable[[Mapping[str, Array], Path], int | None]
    if format == "onnx":
        convert = lambda inputs, path: _convert.torch_to_onnx(module, inputs, list(expected), path)  # noqa: E731
    else:
        convert = lambda inputs, path: _convert.torch_to_torchscript(module, inputs, path)  # noqa: E731
        numbered = {key: f"{key}__{place}" for place, key in enumerate(outputs)}
        arrays = {f"{key}__{place}": array for place, (key, array) in enumerate(arrays.items())}
        expected = {numbered[key]: array for key, array in expected.items()}
        label_lines = {numbered[key]: lines for key, lines in label_lines.items()}
    return _export(
        convert=convert,
        backend="onnxruntime" if format == "onnx" else "pytorch",
        name=name,
        repository=repository,
        inputs=arrays,
        expected=expected,
        labels=label_lines,
        max_batch_size=max_batch_size,
        tolerance=tolerance,
        provenance=provenance,
        packages=("numpy", "torch", *(("onnx", "onnxscript") if format == "onnx" else ())),
    )


# One thread an instance: Triton runs instances side by side, and more threads than cores slow each other down.
_ONE_THREAD = {
    "onnxruntime": {"intra_op_thread_count": "1", "inter_op_thread_count": "1"},
    "pytorch": {"INTRA_OP_THREAD_COUNT": "1", "INTER_OP_THREAD_COUNT": "1"},
}


def _export(
    *,
    convert: Callable[[Mapping[str, Array], Path], int | None],
    backend: str,
    name: str,
    repository: str | Path | Repository,
    inputs: Mapping[str, Array],
    expected: Mapping[str, Array],
    labels: Mapping[str, Sequence[str]],
    max_batch_size: int,
    tolerance: Tolerance,
    provenance: Provenance,
    packages: Sequence[str],
) -> Published:
    if max_batch_size < 1:
        raise InputError(f"The 'max_batch_size' parameter must be 1 or more, got {max_batch_size} instead")
    expected = {key: array.astype(object) if array.dtype.kind == "U" else array for key, array in expected.items()}
    for key, array in expected.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            row = int(np.argwhere(~np.isfinite(array))[0][0])
            raise ExportError(
                f"{name!r} itself answers held-out row {row} with a {key} that is not finite; nothing was published. "
                "Look at that row and at how the model was trained"
            )
    for key, names in labels.items():
        classes = expected[key].shape[-1]
        if len(names) != classes:
            raise InputError(f"The 'labels' parameter must name {classes} classes of {key!r}, got {len(names)} instead")
    label_files = {output: "labels.txt" if len(labels) == 1 else f"{output}_labels.txt" for output in labels}
    config = model_config(
        name,
        backend=backend,
        inputs=_specs(inputs),
        outputs=_specs(expected),
        max_batch_size=max_batch_size,
        parameters=_ONE_THREAD[backend],
        label_files=label_files,
    )
    with tempfile.TemporaryDirectory(prefix="tritium-export-") as folder:
        artifact = Path(folder) / "artifact"
        opset = convert(inputs, artifact)
        answers = open_artifact(artifact, backend)(inputs, list(expected))
        differences = compare(expected, answers, tolerance)
        wrong = [difference for difference in differences if not difference.ok]
        if wrong:
            raise ParityError(name, wrong)
        golden = GoldenCases(_first(inputs), _first(expected))
        manifest = Manifest(
            model=name,
            source=provenance.source,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            frameworks={"python": platform.python_version(), **{item: package_version(item) for item in packages}},
            data=provenance.data,
            metrics=provenance.metrics,
            parity={difference.output: difference.value for difference in differences},
            tolerance=tolerance,
            recipe=provenance.recipe,
            opset=opset,
        )
        target = repository if isinstance(repository, Repository) else Repository(repository, create=True)
        lines = {label_files[output]: list(names) for output, names in labels.items()}
        return publish(target, Candidate(config, artifact, golden, manifest, lines))


def _specs(arrays: Mapping[str, Array]) -> list[TensorSpec]:
    return [TensorSpec(name, triton_dtype(array.dtype), (-1, *array.shape[1:])) for name, array in arrays.items()]


def _first(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The golden rows, as a client sees them: Triton has no scalars, so one value a row is an axis of length 1."""
    rows = {name: array[:GOLDEN_CASES] for name, array in arrays.items()}
    return {name: array[:, np.newaxis] if array.ndim == 1 else array for name, array in rows.items()}


def _need(package: str) -> None:
    try:
        __import__(package)
    except ImportError as exc:
        raise MissingExtraError(package, "exporters") from exc
