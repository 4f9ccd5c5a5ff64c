"""Rules about a config by itself: backend, tensors, labels, and what should stand in no config."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInput

from .._config import MOST_TEXT, UNSAFE
from ._rules import Problem, Severity, rule, shown
from ._subjects import MODEL_FILES, PLATFORMS, ModelFolder, leaves

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
EMBEDDED = ("onnxruntime", "pytorch", "python", "ensemble")
# Those that come with NVIDIA's containers.
_BACKENDS = (
    *EMBEDDED,
    *("tensorrt", "tensorflow", "openvino", "dali", "fil", "vllm", "tensorrtllm", "identity", "repeat", "square"),
)
# Fields that came after Triton 2.51: it refuses a config that has them.
_NEWER_FIELDS = ("model_metrics", "max_inflight_requests")
# What no editor shows, in a text that may have several lines.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_MOST_VALUE = 2**16
# A parameter may say anything; of these Triton or a backend makes a path or a command.
_PLACES = re.compile(r"TRITON_.*|(.*[_.-])?(PATH|DIR|DIRECTORY|FILE|FOLDER|LIBRARY|COMMAND|PLUGIN|EXTENSION)S?", re.I)
# Parameters of the backends python and openvino that name what the server unpacks or loads, and runs.
_RUN = ("EXECUTION_ENV_PATH", "CPU_EXTENSION_PATH")
# The batch has rows of memory that somebody must have; a number like 2^31 is a slip or an attack.
_MOST_ROWS = 2**20


@rule(ModelFolder, "backend-missing", WARNING)
def _backend_missing(model: ModelFolder) -> Iterator[Problem]:
    """The config names no backend, so that Triton guesses it from the model file's name, or gives up."""
    if model.has_config and not (model.config.backend or model.config.platform):
        guess = f"by the model file it would be {model.backend!r}" if model.backend else "no model file says it either"
        yield Problem(model.config_path, f"it names no backend; {guess}", 'write backend: "…"')


@rule(ModelFolder, "backend-unknown", WARNING)
def _backend_unknown(model: ModelFolder) -> Iterator[Problem]:
    """The config names a backend that does not come with Triton, and the model does not bring it."""
    if model.backend and model.backend not in _BACKENDS and not model.config.runtime and not model.brings_backend:
        message = f"Triton has no backend {shown(model.backend)}, unless somebody added it to the server"
        fix = f"name one of {', '.join(_BACKENDS)}, or put the backend's libtriton_<name>.so into the model's folder"
        yield Problem(model.config_path, message, fix)


@rule(ModelFolder, "backend-elsewhere", NOTE)
def _backend_elsewhere(model: ModelFolder) -> Iterator[Problem]:
    """The backend is one that the embedded server has not."""
    if model.backend in _BACKENDS and model.backend not in EMBEDDED:
        message = f"the embedded server has no backend {model.backend!r}"
        yield Problem(model.config_path, message, "serve it in the container")


@rule(ModelFolder, "backend-conflict", ERROR)
def _backend_conflict(model: ModelFolder) -> Iterator[Problem]:
    """``platform`` and ``backend`` contradict each other, or the platform is none."""
    backend, platform = model.config.backend, model.config.platform
    if platform and (platform not in PLATFORMS or (backend and (PLATFORMS[platform] != backend))):
        message = f"platform is {shown(platform)} and backend {shown(backend)}"
        yield Problem(model.config_path, message, "leave the platform out; an ensemble has the platform alone")


@rule(ModelFolder, "ensemble-platform", ERROR)
def _backend_ensemble(model: ModelFolder) -> Iterator[Problem]:
    """An ensemble has ``platform: "ensemble"`` and steps; whatever has only one of the two is refused."""
    config = model.config
    steps = config.HasField("ensemble_scheduling")
    if steps != (config.platform == "ensemble") or config.backend == "ensemble":
        message = f"platform is {shown(config.platform)}, backend {shown(config.backend)}, and it has "
        message += "ensemble_scheduling" if steps else "no ensemble_scheduling"
        yield Problem(model.config_path, message, 'write platform: "ensemble" and ensemble_scheduling, or neither')


@rule(ModelFolder, "config-newer", ERROR)
def _config_newer(model: ModelFolder) -> Iterator[Problem]:
    """The config has a field that Triton 2.51 does not know, and refuses."""
    for path, name, _ in _walk(model.config):
        if name in _NEWER_FIELDS:
            yield Problem(model.config_path, f"{path} is newer than the embedded Triton 2.51", "leave it out")


@rule(ModelFolder, "config-incomplete", WARNING)
def _config_incomplete(model: ModelFolder) -> Iterator[Problem]:
    """The config declares no inputs or no outputs."""
    if not model.has_config:
        return
    for kind in ("input", "output"):
        if not getattr(model.config, kind):
            message = f"it declares no {kind}s; a Triton that may not complete configs serves the model without any"
            yield Problem(model.config_path, message, "declare them, as the model file has them")


@rule(ModelFolder, "batch-size", ERROR)
def _batch_size(model: ModelFolder) -> Iterator[Problem]:
    """``max_batch_size`` is negative or absurd."""
    rows = model.config.max_batch_size
    if not 0 <= rows <= _MOST_ROWS:
        message = f"max_batch_size is {rows}"
        yield Problem(model.config_path, message, f"0 for a model without a batch axis, else up to {_MOST_ROWS}")


@rule(ModelFolder, "tensor-name", ERROR)
def _tensor_name(model: ModelFolder) -> Iterator[Problem]:
    """An input or an output has no name, or that of another."""
    for kind, tensors in _tensors(model):
        seen: set[str] = set()
        for tensor in tensors:
            if not tensor.name or tensor.name in seen:
                what = f"two {kind}s are called {shown(tensor.name)}" if tensor.name else f"an {kind} has no name"
                yield Problem(model.config_path, what, "give each a name of its own")
            seen.add(tensor.name)


@rule(ModelFolder, "tensor-dtype", ERROR)
def _tensor_dtype(model: ModelFolder) -> Iterator[Problem]:
    """An input or an output has no data type, or one that Triton does not know."""
    for kind, tensors in _tensors(model):
        for tensor in tensors:
            if not tensor.data_type or tensor.data_type not in DataType.values():
                valid = ", ".join(DataType.Name(number) for number in DataType.values() if number)
                message = f"the {kind} {shown(tensor.name)} has no data_type, or one that is none"
                yield Problem(model.config_path, message, f"write one of {valid}")


@rule(ModelFolder, "tensor-dims", ERROR)
def _tensor_dims(model: ModelFolder) -> Iterator[Problem]:
    """The dims of an input or an output are missing, 0, below -1 or absurd."""
    for kind, tensors in _tensors(model):
        for tensor in tensors:
            dims = list(tensor.dims)
            if not dims or not all(dim == -1 or dim > 0 for dim in dims) or _elements(dims) > 2**31 or len(dims) > 32:
                message = f"the {kind} {shown(tensor.name)} has dims {dims[:40]}"
                fix = "write each axis without the batch: a length, or -1 for any; [1] for one value"
                yield Problem(model.config_path, message, fix)


@rule(ModelFolder, "tensor-reshape", ERROR)
def _tensor_reshape(model: ModelFolder) -> Iterator[Problem]:
    """A ``reshape`` has not as many elements as the dims, or stands where Triton allows none."""
    for kind, tensors in _tensors(model):
        for tensor in tensors:
            if tensor.HasField("reshape") and (why := _bad_reshape(tensor, model.batched)):
                message = f"the {kind} {shown(tensor.name)} has dims {list(tensor.dims)[:40]} and "
                message += f"reshape {list(tensor.reshape.shape)[:40]}: {why}"
                yield Problem(model.config_path, message, "give both the same elements in the same order, or leave it")


@rule(ModelFolder, "tensor-flag", ERROR)
def _tensor_flag(model: ModelFolder) -> Iterator[Problem]:
    """An input or an output has a flag or a format that its backend or its dims do not allow."""
    for kind, tensors in _tensors(model):
        for tensor in tensors:
            for flag, why in _bad_flags(tensor, model):
                message = f"the {kind} {shown(tensor.name)} has {flag}, {why}"
                yield Problem(model.config_path, message, f"leave {flag} out")


@rule(ModelFolder, "hostile-text", ERROR)
def _hostile_text(model: ModelFolder) -> Iterator[Problem]:
    """A name, path or command in the config has control or shell characters or ``..``, or is absurdly long."""
    strict = ModelConfig()
    strict.CopyFrom(model.config)
    for key in _free(model.config):
        strict.parameters[key].Clear()
    for path, _, text in _walk(strict):
        if UNSAFE.search(text) or len(text) > MOST_TEXT:
            message = f"{path} is {shown(text)}"
            yield Problem(model.config_path, message, "use names of letters, digits, '_', '.' and '-', and whole words")


@rule(ModelFolder, "odd-text", WARNING)
def _odd_text(model: ModelFolder) -> Iterator[Problem]:
    """A parameter that may say anything has control characters, or is absurdly long."""
    for key in _free(model.config):
        text = model.config.parameters[key].string_value
        if _CONTROL.search(text) or len(text) > _MOST_VALUE:
            message = f"the parameter {shown(key)} is {shown(text)}"
            yield Problem(model.config_path, message, f"write up to {_MOST_VALUE} characters that can be read")


@rule(ModelFolder, "model-file-outside", ERROR)
def _model_file_outside(model: ModelFolder) -> Iterator[Problem]:
    """``default_model_filename`` or one of ``cc_model_filenames`` leaves the version's folder."""
    config = model.config
    names = [config.default_model_filename] if config.default_model_filename else []
    for name in [*names, *config.cc_model_filenames.values()]:
        if leaves(name):
            message = f"the model file {shown(name)} does not lie in the version's folder"
            yield Problem(model.config_path, message, "write the name of a file in that folder")


@rule(ModelFolder, "label-outside", ERROR)
def _label_outside(model: ModelFolder) -> Iterator[Problem]:
    """A ``label_filename`` leaves the model's folder, or names the config."""
    for output in model.config.output:
        name = output.label_filename
        if name and (leaves(name) or (model.path / name) == model.config_path):
            message = f"the output {shown(output.name)} has the label file {shown(name)}"
            yield Problem(model.config_path, message, "write the name of a file of its own in the model's folder")


@rule(ModelFolder, "label-missing", ERROR)
def _label_missing(model: ModelFolder) -> Iterator[Problem]:
    """A ``label_filename`` names a file that is not there, or no file."""
    for output in model.config.output:
        name = output.label_filename
        if name and not leaves(name) and len(name) < 256 and not (model.path / name).is_file():
            message = f"the output {shown(output.name)} has the label file {shown(name)}, which is not there"
            yield Problem(model.config_path, message, "put it beside the config, or leave label_filename out")


@rule(ModelFolder, "label-count", WARNING)
def _label_count(model: ModelFolder) -> Iterator[Problem]:
    """There are not as many labels as an output has values."""
    for output in model.config.output:
        name = output.label_filename
        path = model.path / name if name and not leaves(name) and len(name) < 256 else None
        values = _elements(output.dims)
        if path is None or not path.is_file() or path.is_symlink() or not 0 < values <= _MOST_ROWS:
            continue
        labels = len(path.read_bytes().splitlines())
        if -1 not in output.dims and labels != values:
            message = f"it has {labels} labels, and the output {shown(output.name)} has {values} values"
            yield Problem(path, message, "write one line for each value")


@rule(ModelFolder, "runs-code", WARNING)
def _runs_code(model: ModelFolder) -> Iterator[Problem]:
    """The config makes the server run code that is no model: a library of operators, an agent, an environment."""
    config = model.config
    named = [("model_operations", name) for name in config.model_operations.op_library_filename]
    named += [("model_repository_agents", agent.name) for agent in config.model_repository_agents.agents]
    named += [("runtime", config.runtime)] if config.runtime not in ("", *MODEL_FILES.values()) else []
    named += [(key, config.parameters[key].string_value) for key in _RUN if key in config.parameters]
    for field, name in named:
        message = f"{field} names {shown(name)}, which the server runs, or refuses the model for if it has none such"
        yield Problem(model.config_path, message, "leave it out, unless you know whose it is")


def _free(config: ModelConfig) -> list[str]:
    """The parameters of which nobody makes a path or a command."""
    return [key for key in config.parameters if not _PLACES.fullmatch(key)]


def _tensors(model: ModelFolder) -> Iterator[tuple[str, Sequence[Any]]]:
    yield "input", model.config.input
    yield "output", model.config.output


def _elements(dims: Sequence[int]) -> int:
    """How many elements the fixed axes make."""
    return math.prod(abs(dim) for dim in dims[:64])


def _bad_reshape(tensor: Any, batched: bool) -> str:
    dims, shape = list(tensor.dims), list(tensor.reshape.shape)
    if not shape and not batched:
        return "without a batch axis it must have an axis"
    if any(dim == 0 or dim < -1 for dim in shape):
        return "an axis must be a length or -1"
    if dims.count(-1) != shape.count(-1):
        return "both must have the same open axes"
    # Between open axes Triton compares piece by piece.
    for ours, theirs in zip(_pieces(dims), _pieces(shape), strict=True):
        if ours != theirs:
            return f"{ours} elements are not {theirs}"
    return ""


def _pieces(dims: Sequence[int]) -> list[int]:
    pieces = [1]
    for dim in dims:
        if dim == -1:
            pieces.append(1)
        else:
            pieces[-1] *= dim
    return pieces


def _bad_flags(tensor: Any, model: ModelFolder) -> Iterator[tuple[str, str]]:
    if tensor.is_shape_tensor and model.backend != "tensorrt":
        yield "is_shape_tensor", "which only TensorRT models have"
    if tensor.is_non_linear_format_io and model.backend != "tensorrt":
        yield "is_non_linear_format_io", "which only TensorRT models have"
    if not isinstance(tensor, ModelInput):
        return
    if tensor.format and len(tensor.dims) != 3:
        yield "format", "which asks for three dims"
    if tensor.allow_ragged_batch and model.backend in ("onnxruntime", "pytorch", "ensemble"):
        yield "allow_ragged_batch", f"which the backend {model.backend!r} of the embedded server has not"
    if tensor.optional and model.batched and model.backend == "onnxruntime":
        yield "optional", "which ONNX models with a batch axis cannot have"


def _walk(message: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Every field that is set: its path, its name, and its text, which is empty where it is none."""
    for descriptor, value in message.ListFields():
        name = descriptor.name
        place = f"{path}.{name}" if path else name
        if descriptor.message_type is not None and descriptor.message_type.GetOptions().map_entry:
            for key, entry in value.items():
                yield f"{place} key", name, str(key)
                if hasattr(entry, "ListFields"):
                    yield from _walk(entry, f"{place}[{shown(str(key), 20)}]")
                else:
                    yield f"{place}[{shown(str(key), 20)}]", name, str(entry)
            continue
        for part in [value] if isinstance(value, str | bytes | int | float) or hasattr(value, "ListFields") else value:
            yield place, name, part if isinstance(part, str) else ""
            if hasattr(part, "ListFields"):
                yield from _walk(part, place)
