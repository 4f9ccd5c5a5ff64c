"""A Python-based backend for TorchScript files that honours the config keys of Triton's own PyTorch backend."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import triton_python_backend_utils as pb

if TYPE_CHECKING:
    from tritium.server.backends.batching import TRITONS_PARAMETERS, Batcher, ModelArgs, decode
else:
    from batching import TRITONS_PARAMETERS, Batcher, ModelArgs, decode

# `pixels__0`: a tensor's place among the arguments or the results of `forward`.
INDEXED = re.compile(r"__(\d+)$")
# The config's `parameters` that have an effect.
PARAMETERS = (
    *("INTRA_OP_THREAD_COUNT", "INTER_OP_THREAD_COUNT", "INFERENCE_MODE", "DISABLE_OPTIMIZED_EXECUTION"),
    *("ENABLE_JIT_EXECUTOR", "ENABLE_JIT_PROFILING", "ENABLE_TENSOR_FUSER"),
)


class TritonPythonModel:
    """One instance of a TorchScript model."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Leave a full config alone; a TorchScript file says too little to write one."""
        given = config.as_dict()
        if not (given["input"] and given["output"]):
            raise pb.TritonModelException(
                f"{given['name']}: a TorchScript file does not say the dtypes and shapes of its inputs and outputs; "
                "write them into config.pbtxt"
            )
        return config

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the module and map the config's names onto its arguments."""
        model = ModelArgs.read(args)
        model.warn_of_others((*PARAMETERS, *TRITONS_PARAMETERS))
        # 0 leaves torch's own choice.
        if threads := model.threads("INTRA_OP_THREAD_COUNT"):
            torch.set_num_threads(threads)
        if threads := model.threads("INTER_OP_THREAD_COUNT"):
            torch.set_num_interop_threads(threads)
        torch._C._jit_set_profiling_executor(model.flag("ENABLE_JIT_EXECUTOR", default=True))
        torch._C._jit_set_profiling_mode(model.flag("ENABLE_JIT_PROFILING", default=True))
        if model.parameter("ENABLE_TENSOR_FUSER"):
            torch._C._jit_set_texpr_fuser_enabled(model.flag("ENABLE_TENSOR_FUSER", default=True))
        device = _device(model)
        self._batcher = Batcher(_TorchEngine(_load(model, device), device, model), model)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer one batch of requests."""
        return self._batcher.execute(requests)


class _TorchEngine:
    def __init__(self, module: Any, device: torch.device, model: ModelArgs) -> None:
        self._module = module
        self._device = device
        self._guard: Callable[[], Any] = (
            torch.inference_mode if model.flag("INFERENCE_MODE", default=True) else torch.no_grad
        )
        slow = model.flag("DISABLE_OPTIMIZED_EXECUTION", default=False)
        self._executor: Callable[[], Any] = (lambda: torch.jit.optimized_execution(False)) if slow else nullcontext
        self._arguments = _arguments(module, [tensor["name"] for tensor in model.config["input"]])
        self._pick = _results(module, [tensor["name"] for tensor in model.config["output"]])
        self._dtypes = {tensor["name"]: tensor["data_type"] for tensor in model.config["output"]}
        self._without_numpy = {t["name"] for t in model.config["input"] if t["data_type"] == "TYPE_BF16"}

    def read(self, tensor: Any) -> Any:
        if tensor.name() in self._without_numpy or not tensor.is_cpu():
            return torch.from_dlpack(tensor.to_dlpack())
        array = tensor.as_numpy()
        return decode(array) if array.dtype == object else torch.from_numpy(array)

    def gather(self, arrays: Sequence[Any]) -> Any:
        return torch.cat(list(arrays)) if isinstance(arrays[0], torch.Tensor) else np.concatenate(arrays)

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str]) -> Mapping[str, Any]:
        arguments = {self._arguments[name]: self._argument(value) for name, value in inputs.items()}
        with self._guard(), self._executor():
            results = self._module(**arguments)
            return {name: self._result(name, self._pick[name](results)) for name in outputs}

    def write(self, name: str, array: Any) -> Any:
        if isinstance(array, np.ndarray):
            return pb.Tensor(name, array)
        if array.dtype == torch.bfloat16:
            return pb.Tensor.from_dlpack(name, torch.utils.dlpack.to_dlpack(array.contiguous()))
        return pb.Tensor(name, array.numpy())

    def _argument(self, value: Any) -> Any:
        # TorchScript has no tensor of strings: one axis of them is a list.
        return value.to(self._device) if isinstance(value, torch.Tensor) else value.ravel().tolist()

    def _result(self, name: str, value: Any) -> Any:
        if isinstance(value, list):
            strings = np.empty(len(value), dtype=object)
            strings[:] = value
            return strings
        if TRITON_TYPES.get(value.dtype) != self._dtypes[name]:
            raise pb.TritonModelException(
                f"output {name!r} is {TRITON_TYPES.get(value.dtype, value.dtype)} in the model "
                f"and {self._dtypes[name]} in the config"
            )
        return value.detach().cpu()


def _load(model: ModelArgs, device: torch.device) -> Any:
    path = Path(model.folder) / (model.config.get("default_model_filename") or "model.pt")
    if not path.is_file():
        raise pb.TritonModelException(f"there is no {path.name} in {path.parent}")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`torch.jit.load` is deprecated", category=DeprecationWarning)
            return torch.jit.load(str(path), map_location=device).eval()
    except Exception as exc:
        raise pb.TritonModelException(f"torch {torch.__version__} cannot load {path}: {exc}") from exc


def _device(model: ModelArgs) -> torch.device:
    if model.device_id is None:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pb.Logger.log_warn(f"{model.config['name']}: this torch {torch.__version__} has no CUDA; going on with the CPU")
        return torch.device("cpu")
    return torch.device("cuda", model.device_id)


def _arguments(module: Any, names: Sequence[str]) -> dict[str, str]:
    """Which argument of `forward` each input of the config is: by its name, else by the number at its end."""
    arguments = [argument for argument in module.forward.schema.arguments if argument.name != "self"]
    known = [argument.name for argument in arguments]
    if all(name in known for name in names):
        found = {name: name for name in names}
    else:
        found = {name: known[place] for name in names if (place := _place(name)) is not None and place < len(known)}
        for name in names:
            if name not in found:
                raise pb.TritonModelException(
                    f"input {name!r} of the config is neither an argument of forward ({', '.join(known)}) nor named "
                    f"<name>__<index> with an index below {len(known)}"
                )
    for argument in arguments:
        if argument.name not in found.values() and not argument.has_default_value():
            raise pb.TritonModelException(f"forward's argument {argument.name!r} is no input of the config")
    return found


def _results(module: Any, names: Sequence[str]) -> dict[str, Callable[[Any], Any]]:
    """How each output of the config is taken from what `forward` returns."""
    returned = module.forward.schema.returns[0].type
    if returned.kind() == "DictType":
        return {name: partial(_item, key=name) for name in names}
    # One tensor, or one axis of strings.
    single = returned.kind() == "TensorType" or str(returned) == "List[str]"
    picks: dict[str, Callable[[Any], Any]] = {}
    for name in names:
        place = _place(name)
        if place is None:
            raise pb.TritonModelException(
                f"output {name!r} of the config must be named <name>__<index>, such as {name}__0, "
                "because forward returns no dict"
            )
        picks[name] = _whole if single else partial(_item, key=place)
    return picks


def _whole(results: Any) -> Any:
    return results


def _item(results: Any, key: Any) -> Any:
    return results[key]


def _place(name: str) -> int | None:
    match = INDEXED.search(name)
    return int(match[1]) if match else None


TRITON_TYPES = {
    torch.bool: "TYPE_BOOL",
    torch.uint8: "TYPE_UINT8",
    torch.int8: "TYPE_INT8",
    torch.int16: "TYPE_INT16",
    torch.int32: "TYPE_INT32",
    torch.int64: "TYPE_INT64",
    torch.float16: "TYPE_FP16",
    torch.bfloat16: "TYPE_BF16",
    torch.float32: "TYPE_FP32",
    torch.float64: "TYPE_FP64",
}
