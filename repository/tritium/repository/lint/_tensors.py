"""Rules that hold a config against its model file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from tritonclient.grpc.model_config_pb2 import DataType

from .._errors import ArtifactError
from ._onnx_file import FileTensor, OnnxFile
from ._rules import Problem, Severity, rule, shown
from ._subjects import VersionFolder, leaves
from ._torchscript_file import TorchScriptFile

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
_PLACE = re.compile(r"__(\d+)$")
_TOO_NEW = re.compile(r"opset|ir_version|IR version", re.IGNORECASE)


@rule(VersionFolder, "model-file-missing", ERROR)
def _model_file_missing(version: VersionFolder) -> Iterator[Problem]:
    """The model file that the config or the backend asks for is not in the version's folder."""
    if version.files and version.model_file and version.artifact is None:
        there = ", ".join(sorted(version.files)[:8])
        message = f"it has no {shown(version.model_file)}; it has {there}"
        yield Problem(version.path, message, "name the file in default_model_filename, or publish the version again")


@rule(VersionFolder, "artifact-broken", ERROR)
def _artifact_broken(version: VersionFolder) -> Iterator[Problem]:
    """The model file is not of the kind that the backend reads, or damaged."""
    for read in (version.onnx, version.torchscript):
        if isinstance(read, ArtifactError) and version.artifact is not None:
            message = f"{read}, and the backend is {version.model.backend!r}"
            yield Problem(version.artifact, message, "name the backend that it is for, or export it again")


@rule(VersionFolder, "not-checked", NOTE)
def _not_checked(version: VersionFolder) -> Iterator[Problem]:
    """A package is missing without which the model file cannot be looked into."""
    if version.artifact is None or version.model.backend != "onnxruntime":
        return
    if version.onnx is None:
        yield Problem(version.artifact, "the package onnx is not here to look into it", "pip install onnx")
    elif version.opening is not None and version.opening.missing:
        yield Problem(version.artifact, "ONNX Runtime is not here to open it", "pip install onnxruntime")


@rule(VersionFolder, "external-data-outside", ERROR)
def _external_data_outside(version: VersionFolder) -> Iterator[Problem]:
    """Weights are said to lie outside the version's folder. Nothing here opens them."""
    for location in _external(version):
        if leaves(location):
            message = f"its weights lie in {shown(location)}, outside its folder"
            yield Problem(_artifact(version), message, "do not load it; export it again with the data beside it")


@rule(VersionFolder, "external-data-missing", ERROR)
def _external_data_missing(version: VersionFolder) -> Iterator[Problem]:
    """Weights are said to lie in a file that is not beside the model file."""
    for location in _external(version):
        if not leaves(location) and not any(
            path == _artifact(version).parent / location for path in version.files.values()
        ):
            message = f"its weights lie in {shown(location)}, which is not there, or no file of its own"
            yield Problem(_artifact(version), message, "put it beside the model file")


@rule(VersionFolder, "custom-operator", WARNING)
def _custom_operator(version: VersionFolder) -> Iterator[Problem]:
    """The model has operators that ONNX Runtime has not: it needs a library that brings them."""
    if isinstance(version.onnx, OnnxFile) and version.onnx.custom:
        message = f"it has the operators {', '.join(map(shown, version.onnx.custom[:4]))}"
        fix = "export it with ONNX's own operators, or name their library in model_operations"
        yield Problem(_artifact(version), message, fix)


@rule(VersionFolder, "onnx-too-new", ERROR)
def _onnx_too_new(version: VersionFolder) -> Iterator[Problem]:
    """The file is of a later ONNX than the ONNX Runtime here."""
    if version.opening is not None and _TOO_NEW.search(version.opening.error):
        yield Problem(_artifact(version), version.opening.error, "export it with an earlier opset")


@rule(VersionFolder, "onnx-refused", ERROR)
def _onnx_refused(version: VersionFolder) -> Iterator[Problem]:
    """ONNX Runtime does not open the file."""
    if version.opening is not None and version.opening.error and not _TOO_NEW.search(version.opening.error):
        if isinstance(version.onnx, OnnxFile) and version.onnx.custom:
            return  # a library of operators would be needed
        yield Problem(_artifact(version), version.opening.error, "export it again")


@rule(VersionFolder, "tensor-unknown", ERROR)
def _tensor_unknown(version: VersionFolder) -> Iterator[Problem]:
    """The config declares an input or an output that the model file has not."""
    for kind, tensors, there in _both(version):
        for tensor in tensors:
            if tensor.name not in there:
                message = f"the config's {kind} {shown(tensor.name)} is not in {version.model_file}"
                yield Problem(_artifact(version), message, f"it has {_names(there)}")
    for name in _sequence_names(version):
        message = f"the config's sequence tensor {shown(name)} is not in {version.model_file}"
        yield Problem(_artifact(version), message, "name tensors of the model file")
    yield from _torchscript_names(version)


@rule(VersionFolder, "tensor-undeclared", ERROR)
def _tensor_undeclared(version: VersionFolder) -> Iterator[Problem]:
    """The model file needs an input that the config does not declare."""
    config = version.model.config
    if not config.input:
        return
    declared = {tensor.name for tensor in config.input} | {
        name
        for batching in [config.sequence_batching]
        for name in [*(c.name for c in batching.control_input), *(s.input_name for s in batching.state)]
    }
    if isinstance(version.onnx, OnnxFile):
        for tensor in version.onnx.inputs:
            if tensor.name not in declared and tensor.name not in version.onnx.defaults:
                message = f"{version.model_file} needs the input {shown(tensor.name)}, which the config has not"
                yield Problem(_artifact(version), message, "declare it")
    forward = version.torchscript
    if isinstance(forward, TorchScriptFile) and forward.arguments is not None:
        taken = {_argument(tensor.name, forward.arguments) for tensor in config.input}
        for argument in forward.arguments[: forward.required]:
            if argument not in taken:
                message = f"forward takes {shown(argument)}, which the config does not declare"
                yield Problem(_artifact(version), message, f"declare an input {argument} or <name>__<index>")


@rule(VersionFolder, "input-not-optional", ERROR)
def _input_not_optional(version: VersionFolder) -> Iterator[Problem]:
    """An input is optional in the config, and the model file has no default for it."""
    if not isinstance(version.onnx, OnnxFile):
        return
    for tensor in version.model.config.input:
        known = any(tensor.name == theirs.name for theirs in version.onnx.inputs)
        if tensor.optional and known and tensor.name not in version.onnx.defaults:
            message = f"the input {shown(tensor.name)} is optional, and {version.model_file} has no default for it"
            yield Problem(_artifact(version), message, "leave optional out")


@rule(VersionFolder, "output-undeclared", NOTE)
def _output_undeclared(version: VersionFolder) -> Iterator[Problem]:
    """The model file has an output that the config does not declare: no client can ask for it."""
    declared = {tensor.name for tensor in version.model.config.output}
    states = {state.output_name for state in version.model.config.sequence_batching.state}
    if isinstance(version.onnx, OnnxFile) and declared:
        for tensor in version.onnx.outputs:
            if tensor.name not in declared | states:
                message = f"{version.model_file} has the output {shown(tensor.name)}, which the config has not"
                yield Problem(_artifact(version), message, "declare it, if somebody is to have it")


@rule(VersionFolder, "tensor-dtype-differs", ERROR)
def _tensor_dtype_differs(version: VersionFolder) -> Iterator[Problem]:
    """An input or an output has another data type in the config than in the model file."""
    for kind, tensors, there in _both(version):
        for tensor in tensors:
            theirs = there.get(tensor.name)
            ours = (
                DataType.Name(tensor.data_type).removeprefix("TYPE_") if tensor.data_type in DataType.values() else ""
            )
            if theirs is not None and theirs.dtype != ours:
                message = f"the {kind} {shown(tensor.name)} is {theirs.dtype or 'of a type that Triton has not'} "
                message += f"in {version.model_file} and {ours} in the config"
                yield Problem(_artifact(version), message, "write what the model file has")


@rule(VersionFolder, "tensor-shape-differs", ERROR)
def _tensor_shape_differs(version: VersionFolder) -> Iterator[Problem]:
    """An input or an output has other axes in the config than in the model file."""
    for kind, tensors, there in _both(version):
        for tensor in tensors:
            theirs = there.get(tensor.name)
            if theirs is None or theirs.dims is None or _batch_axis_fixed(theirs, version):
                continue
            declared = _declared(tensor, version)
            if not _shape_fits(declared, theirs.dims, output=kind == "output", batched=version.model.batched):
                message = f"the {kind} {shown(tensor.name)} has shape {list(theirs.dims)} in {version.model_file} "
                message += f"and {declared} in the config"
                yield Problem(_artifact(version), message, "write what the model file has, -1 where it is open")


@rule(VersionFolder, "batch-axis-fixed", ERROR)
def _batch_axis_is_fixed(version: VersionFolder) -> Iterator[Problem]:
    """``max_batch_size`` is above 0, and the first axis is fixed in the model file, or there is none."""
    for kind, tensors, there in _both(version):
        for tensor in tensors:
            theirs = there.get(tensor.name)
            if theirs is not None and _batch_axis_fixed(theirs, version):
                message = f"max_batch_size is {version.model.config.max_batch_size}, and the {kind} "
                message += f"{shown(tensor.name)} has shape {list(theirs.dims or ())} in {version.model_file}"
                fix = "export it with a dynamic batch axis, or write max_batch_size: 0 and whole shapes"
                yield Problem(_artifact(version), message, fix)


def _artifact(version: VersionFolder) -> Any:
    return version.artifact or version.path


def _external(version: VersionFolder) -> Sequence[str]:
    return version.onnx.external if isinstance(version.onnx, OnnxFile) else ()


def _both(version: VersionFolder) -> Iterator[tuple[str, Sequence[Any], dict[str, FileTensor]]]:
    """The config's inputs and outputs beside those of an ONNX file that says what it has."""
    file, opened = version.onnx, version.opening
    if not isinstance(file, OnnxFile):
        return
    inferred = {tensor.name: tensor for tensor in opened.outputs} if opened and not opened.error else {}
    outputs = {tensor.name: _merged(tensor, inferred.get(tensor.name)) for tensor in file.outputs}
    yield "input", version.model.config.input, {tensor.name: tensor for tensor in file.inputs}
    yield "output", version.model.config.output, outputs


def _merged(said: FileTensor, inferred: FileTensor | None) -> FileTensor:
    """An output by the file and by ONNX Runtime, which is what the server has."""
    if inferred is None:
        return said
    # Of no axes it says no more than of an unknown number of them.
    dims = inferred.dims if inferred.dims or said.dims == () else None
    return FileTensor(said.name, inferred.dtype or said.dtype, dims)


def _sequence_names(version: VersionFolder) -> Iterator[str]:
    if not isinstance(version.onnx, OnnxFile):
        return
    inputs, outputs = ({tensor.name for tensor in found} for found in (version.onnx.inputs, version.onnx.outputs))
    batching = version.model.config.sequence_batching
    yield from (control.name for control in batching.control_input if control.name not in inputs)
    yield from (state.input_name for state in batching.state if state.input_name not in inputs)
    yield from (state.output_name for state in batching.state if state.output_name not in outputs)


def _torchscript_names(version: VersionFolder) -> Iterator[Problem]:
    forward = version.torchscript
    if not isinstance(forward, TorchScriptFile) or forward.arguments is None:
        return
    config = version.model.config
    for tensor in config.input:
        if _argument(tensor.name, forward.arguments) is None:
            message = f"the config's input {shown(tensor.name)} is no argument of forward"
            fix = (
                f"write {', '.join(forward.arguments)}, or <name>__<index> with an index below {len(forward.arguments)}"
            )
            yield Problem(_artifact(version), message, fix)
    if forward.returns.startswith("Dict"):
        return
    for tensor in config.output:
        place = _PLACE.search(tensor.name)
        if place is None or int(place[1][:9]) >= _results(forward.returns):
            message = f"the config's output {shown(tensor.name)} is none of the {_results(forward.returns)} that "
            message += "forward returns"
            yield Problem(_artifact(version), message, "write <name>__<index>, which counts from 0")


def _argument(name: str, arguments: Sequence[str]) -> str | None:
    """Which argument of `forward` an input is: by its name, else by the number at its end."""
    if name in arguments:
        return name
    place = _PLACE.search(name)
    return arguments[int(place[1])] if place and int(place[1][:9]) < len(arguments) else None


def _results(returns: str) -> int:
    """How many tensors a `forward` of that type returns; many where it does not say."""
    if returns == "Tensor":
        return 1
    match = re.fullmatch(r"Tuple\[(Tensor(?:, Tensor)*)\]", returns)
    return len(match[1].split(",")) if match else 2**31


def _declared(tensor: Any, version: VersionFolder) -> list[int]:
    dims = tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims
    return [*([-1] if version.model.batched else []), *dims]


def _batch_axis_fixed(theirs: FileTensor, version: VersionFolder) -> bool:
    return version.model.batched and theirs.dims is not None and (not theirs.dims or theirs.dims[0] != -1)


def _shape_fits(declared: Sequence[int], theirs: Sequence[int], *, output: bool, batched: bool) -> bool:
    """An input must not be more open than the model; an output may be, save in its first axis."""
    if not batched and not theirs:
        return all(dim == 1 for dim in declared)
    # A config cannot say 0, so -1 stands for it.
    return len(declared) == len(theirs) and all(
        have in (-1, want) or (want == -1 and (have == 0 or (output and axis > 0)))
        for axis, (want, have) in enumerate(zip(declared, theirs, strict=True))
    )


def _names(there: dict[str, FileTensor]) -> str:
    return ", ".join(map(shown, sorted(there)[:12])) or "none"
