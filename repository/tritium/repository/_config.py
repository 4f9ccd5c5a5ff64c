"""A model's `config.pbtxt`, always through Triton's own ModelConfig protobuf."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig

from tritium.client import InputError, TensorSpec

from ._errors import ConfigError
from ._serving import Serving, set_serving

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
# Names of tensors reach paths, logs and other people's shells.
UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f`;|&<>]|\$\(|\$\{|(^|/)\.\.(/|$)")
MOST_TEXT = 1024
_MOST_CONFIG_BYTES = 4 * 2**20
# Where Triton's config and its wire protocol call the same dtype differently.
_CONFIG_DTYPES = {"BYTES": "STRING"}
_WIRE_DTYPES = {config: wire for wire, config in _CONFIG_DTYPES.items()}
_DEFAULT_FILES = {"onnxruntime": "model.onnx", "pytorch": "model.pt"}
# What a version has beside its model file.
_TAKEN = ("golden.npz", "manifest.json", "signature.json")


def check_name(name: str) -> str:
    """A model's name, as it may stand in paths and URLs.

    Raises:
        InputError: it has other characters, or is too long.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            "A model's name must be 1 to 64 letters, digits, '_', '.' or '-', the first a letter or a digit, "
            f"got {name!r} instead"
        )
    return name


def model_config(
    name: str,
    *,
    backend: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    serving: Serving = Serving(),
    parameters: Mapping[str, str] | None = None,
    label_files: Mapping[str, str] | None = None,
) -> ModelConfig:
    """A config in which everything that matters is written, so that no server has to guess.

    Args:
        name: the model's name.
        backend: ``onnxruntime`` or ``pytorch``.
        inputs: whole shapes: with a ``max_batch_size`` above 0 the first axis is the batch and must be -1.
        outputs: likewise.
        serving: how it is to be served.
        parameters: the backend's own keys, such as ``intra_op_thread_count``, which is 1 if it is not given.
        label_files: for each output that has labels, the name of the file with one a line.

    Raises:
        InputError: a name, dtype or shape cannot be used.
    """
    if backend not in _DEFAULT_FILES:
        raise InputError(f"The 'backend' parameter must be one of {sorted(_DEFAULT_FILES)}, got {backend!r} instead")
    batched = serving.max_batch_size > 0
    config = ModelConfig(name=check_name(name), backend=backend)
    # Written, because the default would move traffic to a new version at the next load without anybody saying so.
    config.version_policy.latest.num_versions = 1
    for specs, tensors in ((inputs, config.input), (outputs, config.output)):
        for spec in specs:
            _check_tensor(spec)
            tensor = tensors.add(name=spec.name, data_type=_config_dtype(spec), dims=_dims(spec, batched))
            if not tensor.dims:
                # Triton has no empty dims: one element, which a reshape takes away where there is a batch axis. Where
                # there is none it allows no such reshape, and its backends take the axis away themselves.
                tensor.dims.append(1)
                if batched:
                    tensor.reshape.SetInParent()
    for output in config.output:
        output.label_filename = (label_files or {}).get(output.name, "")
    set_serving(config, serving, parameters or {})
    return config


def config_text(config: ModelConfig) -> str:
    """The config as `config.pbtxt` has it."""
    text: str = text_format.MessageToString(config)
    # Protobuf leaves zeros out, and this one must be seen: it says that there is no batch axis.
    return text if config.max_batch_size else f"{text}max_batch_size: 0\n"


def read_config(path: Path, *, called: str = "") -> ModelConfig:
    """Read a `config.pbtxt`.

    Args:
        path: the file.
        called: what errors call it, where it is the copy of something else.

    Raises:
        ConfigError: it is missing, larger than 4 MiB, or no ModelConfig; the message has the line.
    """
    try:
        if path.stat().st_size > _MOST_CONFIG_BYTES:
            raise ConfigError(f"{called or path} is larger than 4 MiB")
        return text_format.Parse(path.read_text(encoding="utf-8"), ModelConfig())
    except (text_format.ParseError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{called or path} is no Triton model config: {exc}") from exc
    except OSError as exc:
        raise ConfigError(f"{called or path} cannot be read: {exc.strerror}") from exc


def input_specs(config: ModelConfig) -> list[TensorSpec]:
    """The inputs with whole shapes, batch axis included."""
    return [_spec(tensor, config.max_batch_size > 0) for tensor in config.input]


def output_specs(config: ModelConfig) -> list[TensorSpec]:
    """The outputs with whole shapes, batch axis included."""
    return [_spec(tensor, config.max_batch_size > 0) for tensor in config.output]


def artifact_name(config: ModelConfig) -> str:
    """The name of the model file in a version's folder.

    Raises:
        ConfigError: the backend is none that Tritium exports for.
    """
    if config.default_model_filename:
        return file_name(config.default_model_filename, "default_model_filename", taken=_TAKEN)
    try:
        return _DEFAULT_FILES[config.backend]
    except KeyError:
        raise ConfigError(
            f"The backend of {config.name!r} must be one of {sorted(_DEFAULT_FILES)}, got {config.backend!r} instead"
        ) from None


def file_name(name: str, key: str, *, taken: Sequence[str]) -> str:
    """A file's name as a config may have it.

    Raises:
        ConfigError: it leads out of the folder, or is another file's.
    """
    if Path(name).name != name or name in taken:
        raise ConfigError(f"The {key} of a config must be the name of a file of its own, got {name!r} instead")
    return name


def check_fits(new: ModelConfig, old: ModelConfig) -> None:
    """A new version takes and gives what the model's clients know.

    Raises:
        ConfigError: an input or an output was added, removed or changed.
    """
    for kind, specs in (("inputs", input_specs), ("outputs", output_specs)):
        if specs(new) != specs(old):
            raise ConfigError(
                f"The {kind} of {new.name!r} are {', '.join(map(str, specs(old)))}, and the new version has "
                f"{', '.join(map(str, specs(new)))}. Clients rely on them: publish it under another name"
            )
    if (new.backend, artifact_name(new)) != (old.backend, artifact_name(old)):
        raise ConfigError(
            f"{new.name!r} is {artifact_name(old)} for {old.backend}, and the new version is {artifact_name(new)} for "
            f"{new.backend}: one config cannot serve both. Publish it under another name"
        )
    if bool(new.max_batch_size) != bool(old.max_batch_size):
        raise ConfigError(f"{new.name!r} must keep its batch axis (max_batch_size {old.max_batch_size})")


def _check_tensor(spec: TensorSpec) -> None:
    if not spec.name or len(spec.name) > MOST_TEXT or UNSAFE.search(spec.name):
        raise InputError(
            f"The name of an input or output must be 1 to {MOST_TEXT} characters without '..', control or shell "
            f"characters, got {spec.name[:80]!r} instead"
        )
    if any(length < 1 and length != -1 for length in spec.shape):
        raise InputError(f"The lengths of {spec} must be 1 or more, or -1 for any: Triton takes no others")


def _config_dtype(spec: TensorSpec) -> int:
    name = f"TYPE_{_CONFIG_DTYPES.get(spec.dtype, spec.dtype)}"
    valid = sorted(_wire_dtype(number) for number in DataType.values() if number)
    if spec.dtype not in valid:
        raise InputError(f"The dtype of {spec.name!r} must be one of {valid}, got {spec.dtype!r} instead")
    return int(DataType.Value(name))


def _wire_dtype(number: int) -> str:
    name: str = DataType.Name(number).removeprefix("TYPE_")
    return _WIRE_DTYPES.get(name, name)


def _dims(spec: TensorSpec, batched: bool) -> list[int]:
    if not batched:
        return list(spec.shape)
    if not spec.shape or spec.shape[0] != -1:
        raise InputError(
            f"{spec} has no batch axis: with max_batch_size above 0 the first axis must be -1. "
            "Export it with a dynamic batch axis, or use max_batch_size=0"
        )
    return list(spec.shape[1:])


def _spec(tensor: Any, batched: bool) -> TensorSpec:
    # A client sees dims, not what they are reshaped to.
    return TensorSpec(tensor.name, _wire_dtype(tensor.data_type), (*((-1,) if batched else ()), *tensor.dims))
