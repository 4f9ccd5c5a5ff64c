"""A Python-based backend for ONNX files that honours the config keys of Triton's own ONNX Runtime backend."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb

if TYPE_CHECKING:
    from tritium.server.backends.batching import TRITONS_PARAMETERS, Batcher, InvalidRequest, ModelArgs, decode
else:
    from batching import TRITONS_PARAMETERS, Batcher, InvalidRequest, ModelArgs, decode

# Element types that both ONNX Runtime's Python binding and numpy have.
TRITON_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}
# The config's `optimization.graph.level`: 0, the default, is everything.
GRAPH_LEVELS = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    0: ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
# What Triton's own backend takes where a config says nothing of batching.
DEFAULT_MAX_BATCH_SIZE = 4
EXECUTION_MODES = {0: ort.ExecutionMode.ORT_SEQUENTIAL, 1: ort.ExecutionMode.ORT_PARALLEL}
# Triton's older names of TensorRT options; every other key is ONNX Runtime's own.
TENSORRT_OPTIONS = {
    "max_workspace_size_bytes": "trt_max_workspace_size",
    "int8_calibration_table_name": "trt_int8_calibration_table_name",
    "int8_use_native_calibration_table": "trt_int8_use_native_calibration_table",
}
TENSORRT_PRECISIONS = {
    "FP32": {},
    "FP16": {"trt_fp16_enable": "1"},
    "BF16": {"trt_bf16_enable": "1"},
    "INT8": {"trt_int8_enable": "1"},
}
TENSORRT = "TensorrtExecutionProvider"
# What the config calls an accelerator, and whether it belongs to instances on a GPU.
ACCELERATORS = {
    "tensorrt": (TENSORRT, True),
    "cuda": ("CUDAExecutionProvider", True),
    "openvino": ("OpenVINOExecutionProvider", False),
}
DEPRECATED_CUDA_OPTIONS = {
    "cudnn_conv_algo_search": {"0": "EXHAUSTIVE", "1": "HEURISTIC", "2": "DEFAULT"},
    "arena_extend_strategy": {"0": "kNextPowerOfTwo", "1": "kSameAsRequested"},
    "do_copy_in_default_stream": {"0": "0", "1": "1"},
    "gpu_mem_limit": {},
}
DEVICE_ALLOCATOR = "session.use_device_allocator_for_initializers"
SHRINKAGE = "memory.enable_memory_arena_shrinkage"
# Those that have an effect.
PARAMETERS = (
    *("intra_op_thread_count", "inter_op_thread_count", "execution_mode", "enable_mem_pattern", "enable_mem_arena"),
    *(DEVICE_ALLOCATOR, SHRINKAGE, *DEPRECATED_CUDA_OPTIONS),
)

Provider = tuple[str, dict[str, str]]


class TritonPythonModel:
    """One instance of an ONNX model."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Fill in the inputs, outputs and batching that a config leaves out, from the model file."""
        given = config.as_dict()
        if given["input"] and given["output"]:
            return config
        # Only names and types are read, so nothing is optimised.
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = _open(_model_file(pb.get_model_dir(), given), options, [("CPUExecutionProvider", {})])
        inputs, outputs = session.get_inputs(), session.get_outputs()
        batched = _has_batch_axis([*inputs, *outputs]) and not (given["input"] or given["output"])
        if given["max_batch_size"] > 0:
            batched = True
        elif batched:
            config.set_max_batch_size(DEFAULT_MAX_BATCH_SIZE)
            config.set_dynamic_batching()
        for tensors, add in ((inputs, config.add_input), (outputs, config.add_output)):
            for tensor in tensors:
                dims = [dim if isinstance(dim, int) and dim else -1 for dim in tensor.shape][int(batched) :]
                # Triton has no scalars outside a batch: there they are an axis of length 1.
                add({"name": tensor.name, "data_type": _triton_type(tensor), "dims": dims or [1]})
        return config

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the session and compare it with the config."""
        model = ModelArgs.read(args)
        model.warn_of_others((*PARAMETERS, *TRITONS_PARAMETERS))
        session = _session(model)
        _check_tensors("input", model, session.get_inputs())
        _check_tensors("output", model, session.get_outputs())
        missing = {t.name for t in session.get_inputs()} - {t["name"] for t in model.config["input"]}
        if missing:
            raise pb.TritonModelException(f"the model needs an input {min(missing)!r} that the config does not declare")
        scalars = () if model.batched else [tensor.name for tensor in session.get_inputs() if not tensor.shape]
        self._batcher = Batcher(_OnnxEngine(session, scalars, _run_options(model)), model)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer one batch of requests."""
        return self._batcher.execute(requests)


class _OnnxEngine:
    """A session.

    Args:
        session: the session.
        scalars: inputs that the model wants without an axis, and that a client sends with an axis of length 1.
        options: of each run; None for none.
    """

    def __init__(self, session: Any, scalars: Sequence[str], options: Any) -> None:
        self._options = options
        self._scalars = frozenset(scalars)
        # The session's own `run` only adds checks that Triton and the config have already made.
        self._run = session._sess.run

    def read(self, tensor: Any) -> Any:
        array = tensor.as_numpy()
        if tensor.name() in self._scalars and array.shape == (1,):
            array = array.reshape(())
        # ONNX Runtime takes the bytes at face value, and what it counts by others may be memory of somebody else.
        if array.dtype == np.bool_ and array.size and array.view(np.uint8).max() > 1:
            raise InvalidRequest(f"input {tensor.name()!r} is BOOL, so its bytes must be 0 or 1")
        return decode(array) if array.dtype == object else array

    def gather(self, arrays: Sequence[Any]) -> Any:
        return np.concatenate(arrays)

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str]) -> Mapping[str, Any]:
        # Only these are fetched; the inference builds of ONNX Runtime compute the whole graph all the same.
        return dict(zip(outputs, self._run(outputs, inputs, self._options), strict=True))

    def write(self, name: str, array: Any) -> Any:
        return pb.Tensor(name, array if array.shape else array.reshape(1))


def _model_file(folder: str, config: Mapping[str, Any]) -> Path:
    name = config.get("default_model_filename") or "model.onnx"
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise pb.TritonModelException(f"default_model_filename must stay in the version's folder, got {name!r} instead")
    path = Path(folder) / name
    # A folder of that name holds the model together with its external data.
    path = path / "model.onnx" if path.is_dir() else path
    if not path.is_file():
        raise pb.TritonModelException(f"there is no {path.name} in {path.parent}")
    return path


def _session(model: ModelArgs) -> Any:
    """The session, without the providers that this machine lacks; the log says which."""
    path, options, providers = _model_file(model.folder, model.config), _session_options(model), _providers(model)
    reasons: dict[str, str] = {}
    try:
        session = _open(path, options, providers)
    except pb.TritonModelException:
        # What cannot be used ONNX Runtime leaves out, but for want of TensorRT's libraries it fails.
        if not (why := _why_not(TENSORRT, path, options, providers)):
            raise
        reasons[TENSORRT] = why
        providers = [(name, given) for name, given in providers if name != TENSORRT]
        session = _open(path, options, providers)
    reasons |= dict.fromkeys({name for name, _ in providers} - set(session.get_providers()), "see its own lines above")
    for name, why in reasons.items():
        pb.Logger.log_warn(f"{model.config['name']}: {name} cannot be used here: {why}; going on without")
    return session


def _why_not(name: str, path: Path, options: Any, providers: Sequence[Provider]) -> str:
    """Why one of the providers fails even with no more than the device named; empty if it does not."""
    for provider, given in providers:
        if provider == name:
            try:
                _open(path, options, [(name, {"device_id": given["device_id"]})])
            except pb.TritonModelException as exc:
                return str(exc)
    return ""


def _open(path: Path, options: Any, providers: Sequence[Provider]) -> Any:
    try:
        # ONNX Runtime's own fallback forgets every option, the device too, and would hide a wrong one.
        return ort.InferenceSession(path, options, providers=list(providers), enable_fallback=False)
    except Exception as exc:
        raise pb.TritonModelException(f"ONNX Runtime {ort.__version__} cannot load {path}: {exc}") from exc


def _session_options(model: ModelArgs) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = model.threads("intra_op_thread_count")
    options.inter_op_num_threads = model.threads("inter_op_thread_count")
    options.execution_mode = _choice("execution_mode", model.parameter("execution_mode", "0"), EXECUTION_MODES)
    level = model.config.get("optimization", {}).get("graph", {}).get("level", 0)
    options.graph_optimization_level = _choice("optimization.graph.level", level, GRAPH_LEVELS)
    options.enable_mem_pattern = model.flag("enable_mem_pattern", default=True)
    options.enable_cpu_mem_arena = model.flag("enable_mem_arena", default=True)
    if value := model.parameter(DEVICE_ALLOCATOR):
        options.add_session_config_entry(DEVICE_ALLOCATOR, value)
    for library in model.config.get("model_operations", {}).get("op_library_filename", []):
        options.register_custom_ops_library(library)
    return options


def _run_options(model: ModelArgs) -> Any:
    """Whose arenas shrink after each run. ONNX Runtime would look at it in each run only."""
    devices = model.parameter(SHRINKAGE)
    if not devices:
        return None
    if not re.fullmatch(r"(cpu:0|gpu:\d{1,3})(;(cpu:0|gpu:\d{1,3}))*", devices):
        raise pb.TritonModelException(
            f"parameter {SHRINKAGE!r} must be a list such as cpu:0;gpu:0, got {devices!r} instead"
        )
    if "cpu" in devices and not model.flag("enable_mem_arena", default=True):
        raise pb.TritonModelException(
            f"parameter {SHRINKAGE!r} names the CPU's arena, which enable_mem_arena turns off"
        )
    options = ort.RunOptions()
    options.add_run_config_entry(SHRINKAGE, devices)
    return options


def _choice(key: str, value: Any, table: Mapping[int, Any]) -> Any:
    try:
        return table[int(value)]
    except (KeyError, ValueError):
        raise pb.TritonModelException(f"{key!r} must be one of {sorted(table)}, got {value!r} instead") from None


def _providers(model: ModelArgs) -> list[Provider]:
    """The execution providers, first choice first; the CPU is always the last."""
    on_gpu = model.device_id is not None
    asked = model.config.get("optimization", {}).get("execution_accelerators", {})
    providers: list[Provider] = []
    for accelerator in asked.get("gpu_execution_accelerator" if on_gpu else "cpu_execution_accelerator", []):
        name = accelerator["name"]
        provider, needs_gpu = ACCELERATORS.get(name, (None, on_gpu))
        if provider is None or needs_gpu != on_gpu:
            valid = sorted(key for key, (_, gpu) in ACCELERATORS.items() if gpu == on_gpu)
            raise pb.TritonModelException(f"unknown execution accelerator {name!r}; here it may be one of {valid}")
        options = dict(accelerator.get("parameters", {}))
        providers.append((provider, _tensorrt_options(options) if name == "tensorrt" else options))
    if on_gpu:
        if "CUDAExecutionProvider" not in dict(providers):
            providers.append(("CUDAExecutionProvider", _deprecated_cuda_options(model)))
        providers = [(name, {"device_id": str(model.device_id), **options}) for name, options in providers]
    present = ort.get_available_providers()
    for name, _ in providers:
        if name not in present:
            pb.Logger.log_warn(
                f"{model.config['name']}: this onnxruntime has no {name} ({', '.join(present)}); going on without"
            )
    return [*((name, options) for name, options in providers if name in present), ("CPUExecutionProvider", {})]


def _tensorrt_options(options: dict[str, str]) -> dict[str, str]:
    precision = options.pop("precision_mode", "FP32")
    if precision not in TENSORRT_PRECISIONS:
        raise pb.TritonModelException(
            f"precision_mode must be one of {sorted(TENSORRT_PRECISIONS)}, got {precision!r} instead"
        )
    return {TENSORRT_OPTIONS.get(key, key): value for key, value in options.items()} | TENSORRT_PRECISIONS[precision]


def _deprecated_cuda_options(model: ModelArgs) -> dict[str, str]:
    given = {key: model.parameter(key) for key in DEPRECATED_CUDA_OPTIONS}
    return {key: DEPRECATED_CUDA_OPTIONS[key].get(value, value) for key, value in given.items() if value}


def _check_tensors(kind: str, model: ModelArgs, tensors: Sequence[Any]) -> None:
    """Refuse a config whose names, dtypes or dims are not those of the model file."""
    by_name = {tensor.name: tensor for tensor in tensors}
    for spec in model.config[kind]:
        tensor = by_name.get(spec["name"])
        if tensor is None:
            raise pb.TritonModelException(
                f"the config's {kind} {spec['name']!r} is not in the model; it has {sorted(by_name)}"
            )
        if spec["data_type"] != _triton_type(tensor):
            raise pb.TritonModelException(
                f"{kind} {spec['name']!r} is {_triton_type(tensor)} in the model and {spec['data_type']} in the config"
            )
        dims = [int(dim) for dim in spec.get("reshape", spec).get("shape" if "reshape" in spec else "dims", [])]
        dims = [-1, *dims] if model.batched else dims
        # ONNX Runtime gives an empty shape for a scalar and for a tensor of unknown rank alike.
        fits = not tensor.shape or (
            len(dims) == len(tensor.shape)
            and all(
                # A config cannot say 0, so -1 stands for it.
                not isinstance(have, int) or want == have or (want == -1 and (have == 0 or (kind == "output" and axis)))
                for axis, (want, have) in enumerate(zip(dims, tensor.shape, strict=True))
            )
        )
        if not fits:
            shape = [dim if isinstance(dim, int) else -1 for dim in tensor.shape]
            raise pb.TritonModelException(
                f"{kind} {spec['name']!r} has shape {shape} in the model and {dims} in the config"
                + (" (its first axis is the batch, because max_batch_size is above 0)" if model.batched else "")
            )


def _triton_type(tensor: Any) -> str:
    try:
        return TRITON_TYPES[tensor.type]
    except KeyError:
        raise pb.TritonModelException(
            f"{tensor.name!r} is a {tensor.type}, which the Python-based backend cannot carry; "
            f"it takes {sorted(TRITON_TYPES)}"
        ) from None


def _has_batch_axis(tensors: Sequence[Any]) -> bool:
    """Whether the first axis of every tensor is open, and none is all there is: Triton has no scalars in a batch."""
    return all(len(tensor.shape) > 1 and not isinstance(tensor.shape[0], int) for tensor in tensors)
