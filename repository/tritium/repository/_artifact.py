"""Running a model file in this process, as the gate does before a version is published."""

from __future__ import annotations

import ctypes
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritium.client import MissingExtraError, numpy_dtype

from ._errors import ArtifactError

Array = NDArray[Any]
Run = Callable[[Mapping[str, Array], Sequence[str]], dict[str, Array]]
_ONNX_BF16 = 16  # TensorProto.BFLOAT16
_ORT_BF16 = "tensor(bfloat16)"


@dataclass(frozen=True)
class Artifact:
    """A loaded model file: a function from inputs by name, and names of outputs, to outputs by name.

    Attributes:
        list_outputs: the names of the outputs for some inputs; ``output__0`` and so on where the file names none.
        input_shapes: what the file says of its inputs, -1 where any length is accepted; empty where it does not.
    """

    run: Run
    list_outputs: Callable[[Mapping[str, Array]], list[str]]
    input_shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)

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
    options.log_severity_level = 4  # what fails is raised; the rest is noise here
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as exc:
        raise ArtifactError(f"{path} does not load in ONNX Runtime {onnxruntime.__version__}: {exc}") from exc

    scalars = {tensor.name for tensor in session.get_inputs() if not tensor.shape}
    has_bf16 = any(tensor.type == _ORT_BF16 for tensor in [*session.get_inputs(), *session.get_outputs()])

    def run(inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        # As the backend does: one element for what the model takes without an axis.
        feed = {
            name: array.reshape(()) if name in scalars and array.shape == (1,) else _decoded(array)
            for name, array in inputs.items()
        }
        try:
            results = _run_bf16(session, feed, outputs) if has_bf16 else session.run(list(outputs), feed)
        except Exception as exc:
            has = [
                f"{kind} {tensor.name} {tensor.type}{tensor.shape}"
                for kind, tensors in (("input", session.get_inputs()), ("output", session.get_outputs()))
                for tensor in tensors
            ]
            raise ArtifactError(f"{path} does not run: {exc}\nIt has {'; '.join(has)}") from exc
        return {name: array if array.shape else array.reshape(1) for name, array in zip(outputs, results, strict=True)}

    shapes = {tensor.name: [n if isinstance(n, int) else -1 for n in tensor.shape] for tensor in session.get_inputs()}
    return Artifact(run, lambda _: [tensor.name for tensor in session.get_outputs()], shapes)


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

    def call(inputs: Mapping[str, Array]) -> dict[str, Any] | Sequence[Any]:
        by_name = all(name in arguments for name in inputs)
        values = {
            name if by_name else arguments[_place(name)]: _torch_value(torch, array) for name, array in inputs.items()
        }
        with torch.inference_mode():
            results = module(**values)
        single = isinstance(results, torch.Tensor) or _is_strings(results)
        return [results] if single else results

    def run(inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        with failing():
            results = call(inputs)
            return {
                name: _numpy_value(torch, results[name] if isinstance(results, dict) else results[_place(name)])
                for name in outputs
            }

    def list_outputs(inputs: Mapping[str, Array]) -> list[str]:
        with failing():
            results = call(inputs)
        return list(results) if isinstance(results, dict) else [f"output__{place}" for place in range(len(results))]

    @contextmanager
    def failing() -> Iterator[None]:
        try:
            yield
        except Exception as exc:
            raise ArtifactError(f"{path} does not run: {exc}\nIts forward takes {', '.join(arguments)}") from exc

    return Artifact(run, list_outputs)


def _run_bf16(session: Any, feed: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
    """As `session.run`, for what ONNX Runtime has no numpy dtype for: bfloat16 goes in and comes out by its bits."""
    from onnxruntime import OrtValue

    values = {
        name: OrtValue.ortvalue_from_numpy_with_onnx_type(np.ascontiguousarray(array).view(np.uint16), _ONNX_BF16)
        if array.dtype == numpy_dtype("BF16")
        else OrtValue.ortvalue_from_numpy(array)
        for name, array in feed.items()
    }
    results = []
    for value in session.run_with_ort_values(list(outputs), values):
        if value.data_type() != _ORT_BF16:
            results.append(value.numpy())
            continue
        # Its bits are copied, because the value is freed with this function.
        bits = ctypes.string_at(value.data_ptr(), 2 * int(np.prod(value.shape())))
        results.append(np.frombuffer(bits, numpy_dtype("BF16")).reshape(value.shape()))
    return results


def _torch_value(torch: Any, array: Array) -> Any:
    """A tensor, or the list that TorchScript has for strings; bfloat16, which numpy does not know, by its bits."""
    if array.dtype == object:
        return _decoded(array).ravel().tolist()
    if array.dtype == numpy_dtype("BF16"):
        return torch.from_numpy(np.ascontiguousarray(array).view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(np.ascontiguousarray(array))


def _numpy_value(torch: Any, value: Any) -> Array:
    if _is_strings(value):
        return np.array(value, dtype=object)
    value = value.detach().cpu()
    if value.dtype == torch.bfloat16:
        bits: Array = value.contiguous().view(torch.int16).numpy()
        return bits.view(numpy_dtype("BF16"))
    array: Array = value.numpy()
    return array


def _is_strings(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], str)


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
