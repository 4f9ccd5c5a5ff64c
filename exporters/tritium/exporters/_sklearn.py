"""scikit-learn: estimators and Pipelines as ONNX."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tritium.client import InputError
from tritium.repository import (
    ArtifactError,
    Published,
    Repository,
    Serving,
    Tolerance,
    open_artifact,
    opened,
    publish,
)

from ._errors import ConversionError, ParityError
from ._export import Array, Converted, Provenance, need, prepare
from ._onnx import OPSET, opset_of
from ._sklearn_convert import convert
from ._sklearn_gate import NEIGHBOURS, by_tolerance, check_missing, check_rounding, near_thresholds
from ._sklearn_graph import lead_inputs
from ._sklearn_outputs import answers
from ._sklearn_rows import Rows, parts, read_rows

if TYPE_CHECKING:
    from onnx import ModelProto

# The first in which a reduction takes its axes as an input, as the converters write it.
_OLDEST_OPSET = 18
# What decides by thresholds: a value that lies next to one can fall on its other side in float32.
_THRESHOLDS = (
    "lightgbm.",
    "sklearn.ensemble._bagging",
    "sklearn.ensemble._forest",
    "sklearn.ensemble._gb",
    "sklearn.ensemble._hist_gradient_boosting",
    "sklearn.ensemble._iforest",
    *NEIGHBOURS,
    "sklearn.preprocessing._discretization",
    "sklearn.tree",
    "xgboost.",
)


def export_sklearn(
    estimator: Any,
    held_out: Any,
    *,
    name: str,
    repository: str | Path | Repository,
    input_name: str = "features",
    column_groups: Mapping[str, Sequence[str]] | None = None,
    labels: Sequence[str] = (),
    serving: Serving = Serving(),
    tolerance: Tolerance | None = None,
    provenance: Provenance = Provenance(),
    opset: int | None = None,
) -> Published:
    """Publish a fitted scikit-learn estimator or Pipeline as an ONNX model.

    What it answers depends on its kind:

    - a classifier: ``label`` and ``probabilities``, or ``scores`` if it has only a decision function;
    - a regressor: ``prediction`` (rows, targets);
    - a clusterer: ``label``, and ``distances`` if it has a transform;
    - an outlier detector: ``label`` (1 or -1) and ``score``;
    - a mixture: ``label`` and ``probabilities``;
    - a transformer: ``transformed``.

    Labels are int64 or text, as fitted (booleans become 0 and 1); all other floats are float32.

    Where the estimator takes rows with a value missing (NaN), the model is also compared on copies of held-out rows
    that lack one. An encoder that raises for a category it never saw (``handle_unknown="error"``, the default) makes
    the model fail for the whole batch that such a row is in: fit it with ``"ignore"`` or a value of its own.

    Args:
        estimator: fitted.
        held_out: real rows that it was not fitted on, of shape (rows, features), or as many texts for a vectorizer: the
            converted model is compared with the estimator on all of them, and the first 32 become golden cases.
            Floats become FP32, whole numbers INT64, booleans BOOL, text and categories STRING. A DataFrame whose
            columns are of one kind of number is one input; otherwise, and where a ColumnTransformer picks columns by
            name, every column is an input of its own, with its name.
        name: the model's name.
        repository: where to publish; made if it is not there.
        input_name: what the input is called, if there is one.
        column_groups: columns of one dtype that are one input, by the input's name.
        labels: names of the classes, in the order of ``probabilities``.
        serving: how the model is to be served.
        tolerance: what floats may differ, and in which share of rows. ONNX computes in float32 and scikit-learn in
            float64, so a difference of 1e-5 is usual. By default 1e-4 and as much of the value itself, in all rows; in
            99 % of them if trees, neighbours or bins decide anywhere in the estimator, because a value that lies next
            to a threshold can fall on its other side. By default such a row must also lie next to one: the estimator
            answers as the model does when the row is moved a little.
        provenance: for the manifest.
        opset: of ONNX's own operators; by default the newest that the converters and the runtimes know.

    Raises:
        InputError: the rows cannot be the input of a model, or the estimator does not take them, or is not fitted, or
            float32 loses what it needs of them.
        ConversionError: neither skl2onnx nor a registered converter takes the estimator.
        ParityError: the ONNX model does not answer as the estimator does.
        PublishError: the version failed its verification, or the repository cannot be written.
    """
    need("skl2onnx")
    rows = read_rows(estimator, held_out, input_name, column_groups)
    expected = answers(estimator, rows.given)
    if not serving.max_batch_size:
        raise InputError("The 'serving' parameter must have a max_batch_size of 1 or more: scikit-learn takes rows")
    if both := sorted(set(rows.inputs) & set(expected)):
        raise InputError(f"The input {both[0]!r} has the name of an output; rename that column, or set 'input_name'")
    if labels and "probabilities" not in expected:
        raise InputError(f"The 'labels' parameter is for classifiers with probabilities; this model has {[*expected]}")
    allowed = tolerance or default_tolerance(estimator)
    model = convert(estimator, rows.variables, expected, _checked(opset))
    lead_inputs(model, rows)
    check_rounding(estimator, rows, expected, allowed)
    with tempfile.TemporaryDirectory(prefix="tritium-export-") as folder:
        artifact = Path(folder) / "model.onnx"
        artifact.write_bytes(model.SerializeToString())
        try:
            candidate = prepare(
                Converted(
                    backend="onnxruntime",
                    artifact=artifact,
                    opset=opset_of(model),
                    packages=_packages(estimator),
                ),
                name=name,
                inputs=rows.inputs,
                expected=expected,
                labels={"probabilities": labels} if labels else {},
                serving=serving,
                tolerance=allowed,
                provenance=_with_columns(provenance, rows),
            )
            run = open_artifact(artifact, "onnxruntime")
            judge = by_tolerance(tolerance) if tolerance else near_thresholds(estimator, allowed)
            differences = judge(rows.given, expected, run(rows.inputs, list(expected)))
            if any(not difference.ok for difference in differences):
                raise ParityError(name, differences)
            read = partial(read_rows, estimator, input_name=input_name, column_groups=column_groups)
            check_missing(name, estimator, held_out, read, run, judge)
        except ArtifactError as exc:
            raise ConversionError(
                f"The converter of this {type(estimator).__name__} writes a model that does not run: {exc}. Write a "
                "converter of your own for it (tritium.exporters.converters), or try other parameters"
            ) from exc
        return publish(opened(repository, create=True), candidate)


def sklearn_to_onnx(
    estimator: Any, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None, *, opset: int | None = None
) -> ModelProto:
    """Convert a fitted estimator or Pipeline to ONNX, such as for `join_onnx`. Nothing is compared.

    Args:
        estimator: fitted.
        inputs: rows by input name; one input that is all that it takes, or one for each column that it picks by name.
        outputs: what the outputs are called, in the order of `export_sklearn`'s, which are the default.
        opset: of ONNX's own operators.

    Returns:
        The ONNX model.

    Raises:
        InputError: the estimator is not fitted, or does not take the rows, or there are not as many outputs.
        ConversionError: neither skl2onnx nor a registered converter takes the estimator.
    """
    need("skl2onnx")
    if len(inputs) == 1:
        (input_name, held_out), *_ = inputs.items()
        rows = read_rows(estimator, held_out, input_name)
    else:
        import pandas as pd

        rows = read_rows(estimator, pd.DataFrame({key: np.ravel(array) for key, array in inputs.items()}), "features")
    expected = answers(estimator, rows.given)
    names = list(outputs or expected)
    if len(names) != len(expected):
        raise InputError(f"The 'outputs' parameter must name all of {list(expected)}, got {names} instead")
    renamed = dict(zip(names, expected.values(), strict=True))
    model = convert(estimator, rows.variables, renamed, _checked(opset))
    lead_inputs(model, rows)
    return model


def default_tolerance(estimator: Any) -> Tolerance:
    """What an estimator's model may differ, unless its owner says otherwise."""
    decides = any(type(part).__module__.startswith(_THRESHOLDS) for part in parts(estimator))
    return Tolerance(atol=1e-4, rtol=1e-4, agreement=0.99 if decides else 1.0)


def _checked(opset: int | None) -> int:
    from skl2onnx import __max_supported_opset__ as newest

    if opset is not None and not _OLDEST_OPSET <= opset <= newest:
        raise InputError(f"The 'opset' parameter must be from {_OLDEST_OPSET} to {newest}, got {opset} instead")
    return opset or OPSET


def _packages(estimator: Any) -> list[str]:
    """The distributions that made the model."""
    modules = {type(part).__module__.partition(".")[0] for part in parts(estimator)}
    boosting = sorted(modules & {"lightgbm", "xgboost"})
    # xgboost comes in several distributions.
    of_module = packages_distributions() if boosting else {}
    named = [of_module[module][0] for module in (*boosting, *(["onnxmltools"] if boosting else []))]
    return ["numpy", "onnx", "scikit-learn", "skl2onnx", *named]


def _with_columns(provenance: Provenance, rows: Rows) -> Provenance:
    if not rows.columns:
        return provenance
    columns = {name: list(members) for name, members in rows.columns.items()}
    return replace(provenance, data={**provenance.data, "columns": columns})
