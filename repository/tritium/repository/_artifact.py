"""Running a model file in this process, as the gate does before a version is published."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritium.client import MissingExtraError

from ._errors import ArtifactError

Array = NDArray[Any]
Run = Callable[[Mapping[str, Array], Sequence[str]], dict[str, Array]]


@dataclass(frozen=True)
class Artifact:
    """A loaded model file: a function from inputs by name, and names of outputs, to outputs by name.

    Attributes:
        input_shapes: what the file says of its inputs, -1 where any length is accepted; empty where it does not.
    """

    run: Run
    input_shapes: Mapping[str, Sequence[int]]

    def __call__(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Run it. Raises ArtifactError."""
        return self.run(inputs, outputs)


def open_artifact(path: Path, backend: str) -> Artifact:
    """Load a model file with the runtime that its backend has.

    Args:
        path: an ONNX or a TorchScript file.
        backend: ``onnxruntime`` or ``pytorch``.

    Returns:
        A function from inputs by name, and names of outputs, to outputs by name. It raises ArtifactError.

    Raises:
        ArtifactError: the file is missing or does not load.
        MissingExtraError: the runtime is not installed.
    """
    if not path.is_file():
        raise ArtifactError(f"There is no model file {path}")
    try:
        opened = _OPENERS[backend]
    except KeyError:
        raise ArtifactError(f"The backend must be one of {sorted(_OPENERS)}, got {backend!r} instead") from None
    return opened(path)


def _open_onnx(path: Path) -> Artifact:
    try:
        import onnxruntime
    except ImportError as exc:
        raise MissingExtraError("onnxruntime", "onnxruntime") from exc
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # what fails is raised; the rest is noise here
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as exc:
        raise ArtifactError(f"{path} does not load in ONNX Runtime {onnxruntime.__version__}: {exc}") from exc

    scalars = {tensor.name for tensor in session.get_inputs() if not tensor.shape}

    def run(inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        # As the backend does: one element for what the model takes without an axis.
        feed = {
            name: array.reshape(()) if name in scalars and array.shape == (1,) else _decoded(array)
            for name, array in inputs.items()
        }
        try:
            results = session.run(list(outputs), feed)
        except Exception as exc:
            has = [
                f"{kind} {tensor.name} {tensor.type}{tensor.shape}"
                for kind, tensors in (("input", session.get_inputs()), ("output", session.get_outputs()))
                for tensor in tensors
            ]
            raise ArtifactError(f"{path} does not run: {exc}\nIt has {'; '.join(has)}") from exc
        return {name: array if array.shape else array.reshape(1) for name, array in zip(outputs, results, strict=True)}

    shapes = {tensor.name: [n if isinstance(n, int) else -1 for n in tensor.shape] for tensor in session.get_inputs()}
    return Artifact(run, shapes)


def _open_torchscript(path: Path) -> Artifact:
    try:
        import torch
    except ImportError as exc:
        raise MissingExtraError("torch", "exporters") from exc
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`torch.jit.load` is deprecated", category=DeprecationWarning)
            module = torch.jit.load(str(path), map_location="cpu").eval()
    except Exception as exc:
        raise ArtifactError(f"{path} does not load in torch {torch.__version__}: {exc}") from exc
    arguments = [argument.name for argument in module.forward.schema.arguments if argument.name != "self"]

    def run(inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        by_name = all(name in arguments for name in inputs)
        try:
            values = {
                name if by_name else arguments[_place(name)]: torch.from_numpy(np.ascontiguousarray(array))
                for name, array in inputs.items()
            }
            with torch.inference_mode():
                results = module(**values)
            if isinstance(results, torch.Tensor):
                results = (results,)
            return {
                name: (results[name] if isinstance(results, dict) else results[_place(name)]).numpy()
                for name in outputs
            }
        except Exception as exc:
            raise ArtifactError(f"{path} does not run: {exc}\nIts forward takes {', '.join(arguments)}") from exc

    return Artifact(run, {})


def _decoded(array: Array) -> Array:
    """Strings as `str`: given bytes, ONNX Runtime takes what Python prints of them."""
    if array.dtype != object:
        return array
    result = np.empty(array.size, dtype=object)
    result[:] = [item.decode() if isinstance(item, bytes) else item for item in array.ravel()]
    return result.reshape(array.shape)


_OPENERS = {"onnxruntime": _open_onnx, "pytorch": _open_torchscript}


def _place(name: str) -> int:
    match = re.search(r"__(\d+)$", name)
    if match is None:
        raise ValueError(f"{name!r} is neither an argument of forward nor named <name>__<index>")
    return int(match[1])
