"""ONNX models: publishing one that was converted elsewhere, and joining two into one graph."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritium.client import InputError
from tritium.repository import Published, Repository, Serving, Tolerance, opened, publish

from ._errors import ConversionError
from ._export import Array, Converted, Provenance, need, prepare

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

# What both converters write unless they are told otherwise, so that their graphs can be joined.
OPSET = 20


def export_onnx(
    model: ModelProto | Path | str,
    held_out: Mapping[str, Array],
    expected: Mapping[str, Array],
    *,
    name: str,
    repository: str | Path | Repository,
    labels: Mapping[str, Sequence[str]] | None = None,
    files: Mapping[str, Path] | None = None,
    serving: Serving = Serving(),
    tolerance: Tolerance = Tolerance(atol=1e-5),
    provenance: Provenance = Provenance(),
    frameworks: Sequence[str] = (),
) -> Published:
    """Publish an ONNX model that its caller converted, after comparing it with what its framework answers.

    Args:
        model: the model, or its file.
        held_out: real rows that it was not trained on, by input name, each with the batch as first axis.
        expected: what the framework answers to them, by output name; likewise. The model is compared with it on all
            rows, in batches of 1, 2, 7 and ``max_batch_size``; the first 32 rows become golden cases.
        name: the model's name.
        repository: where to publish; made if it is not there.
        labels: for each output that has them, the names of its classes.
        files: what belongs beside the model file in the version's folder, by name, such as a vocabulary.
        serving: how it is to be served.
        tolerance: what may differ.
        provenance: for the manifest.
        frameworks: the distributions that made the model, whose versions the manifest keeps.

    Raises:
        InputError: the rows do not fit together, or the labels do not fit the outputs.
        ParityError: the model does not answer as expected; nothing was published.
        PublishError: the version failed its verification, or the repository cannot be written.
    """
    need("onnx")
    import onnx

    from ._model_file import read_model_file

    with tempfile.TemporaryDirectory(prefix="tritium-export-") as folder:
        if isinstance(model, onnx.ModelProto):
            artifact = Path(folder) / "model.onnx"
            onnx.save(model, artifact)
        else:
            artifact = Path(model)
        file = read_model_file(artifact)
        if file.backend != "onnxruntime":
            raise InputError(f"The 'model' parameter of export_onnx must be an ONNX model, and {artifact} is none")
        converted = Converted(
            backend="onnxruntime",
            artifact=artifact,
            files={**file.files, **(files or {})},
            opset=file.opset,
            packages=("numpy", "onnx", *frameworks),
        )
        candidate = prepare(
            converted,
            name=name,
            inputs=held_out,
            expected=expected,
            labels=labels or {},
            serving=serving,
            tolerance=tolerance,
            provenance=provenance,
        )
        return publish(opened(repository, create=True), candidate)


def join_onnx(first: ModelProto, second: ModelProto, names: Mapping[str, str]) -> ModelProto:
    """Put two converted models into one graph, so that one request runs both.

    Args:
        first: such as a scikit-learn pipeline.
        second: such as a torch module.
        names: which output of the first is which input of the second.

    Returns:
        A model with the inputs of both that are not joined, and the outputs of the second, followed by those of the
        first that are not joined.

    Raises:
        InputError: there is no such output or input.
        ConversionError: the two do not go together.
    """
    need("onnx")
    import onnx
    from onnx import compose, version_converter

    for which, wanted, tensors in (
        ("output of the first", names.keys(), first.graph.output),
        ("input of the second", names.values(), second.graph.input),
    ):
        there = [tensor.name for tensor in tensors]
        if missing := sorted(set(wanted) - set(there)):
            raise InputError(f"There is no {which} model {missing[0]!r}; it has {', '.join(there)}")
    for output, name in names.items():
        gives, takes = _tensor(first.graph.output, output), _tensor(second.graph.input, name)
        if not _fits(gives, takes):
            raise ConversionError(
                f"The output {output!r} of the first model is {_shown(*gives)}, and the input {name!r} of the second "
                f"{_shown(*takes)}"
            )
    try:
        one, two = (
            compose.add_prefix(part, prefix, rename_inputs=False, rename_outputs=False)
            for part, prefix in zip(_at_one_opset(first, second, version_converter), ("first_", "second_"), strict=True)
        )
        one.ir_version = two.ir_version = max(one.ir_version, two.ir_version)
        joined: ModelProto = compose.merge_models(one, two, io_map=list(names.items()))
        onnx.checker.check_model(joined)
    except Exception as exc:
        raise ConversionError(f"The two ONNX models cannot be joined by {dict(names)}: {exc}") from exc
    return joined


def opset_of(model: ModelProto) -> int:
    """The opset of ONNX's own operators."""
    return next((int(opset.version) for opset in model.opset_import if opset.domain in ("", "ai.onnx")), 1)


def _tensor(tensors: Iterable[ValueInfoProto], name: str) -> tuple[str, list[int | str] | None]:
    """A tensor's dtype and, where it is known, its shape."""
    from onnx import TensorProto

    kind = next(tensor for tensor in tensors if tensor.name == name).type.tensor_type
    shape = [axis.dim_value or axis.dim_param or "?" for axis in kind.shape.dim] if kind.HasField("shape") else None
    return TensorProto.DataType.Name(kind.elem_type), shape


def _shown(dtype: str, shape: list[int | str] | None) -> str:
    return f"{dtype}[{', '.join(map(str, shape))}]" if shape is not None else dtype


def _fits(gives: tuple[str, list[int | str] | None], takes: tuple[str, list[int | str] | None]) -> bool:
    (dtype, have), (wanted_dtype, want) = gives, takes
    if dtype != wanted_dtype or have is None or want is None:
        return dtype == wanted_dtype
    return len(have) == len(want) and all(
        one == other or isinstance(one, str) or isinstance(other, str) for one, other in zip(have, want, strict=True)
    )


def _at_one_opset(first: ModelProto, second: ModelProto, converter: Any) -> list[ModelProto]:
    newest = max(opset_of(first), opset_of(second))
    return [part if opset_of(part) == newest else converter.convert_version(part, newest) for part in (first, second)]
