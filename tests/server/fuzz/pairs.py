"""Models and configs that do not go together, by number; every tenth pair is good."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import onnx
from onnx import TensorProto
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tritium.repository import config_text

from .lies import flip
from .models import Subject

GOOD_EVERY = 10
_WARMUP = "odd warmup"
# Models that cannot fail on what fits their config.
_STEADY = ("double", "kinds", "rows")
_ODD_NUMBERS = (-(2**31), -2, -1, 0, 1, 2, 3, 7, 64, 2**16, 2**31 - 1)
_ODD_DIMS = (-(2**63), -2, -1, 0, 1, 2, 3, 2**31, 2**62, 2**63 - 1)
_ODD_TEXTS = (
    "",
    " ",
    "x",
    "y",
    "-1",
    "0",
    "1",
    "2",
    "true",
    "TRUE",
    "1.5",
    "1e3",
    "0x1",
    " 1",
    "9" * 30,
    "größe",
    "x" * 9999,
)
_PARAMETERS = (
    # Not the numbers of threads: they would be started.
    *("execution_mode", "enable_mem_arena", "enable_mem_pattern", "memory.enable_memory_arena_shrinkage"),
    *("session.use_device_allocator_for_initializers", "share_session_between_instances", "gpu_mem_limit"),
    *("cudnn_conv_algo_search", "arena_extend_strategy", "do_copy_in_default_stream", "TRITON_ANYTHING", ""),
)
_THREADS = ("", "-1", "x", "2.5", "3", "9" * 30, "0x10", " 4", "4 ", "+4", "1\x00")
_FILE_NAMES = (
    *("", ".", "..", "../1/model.onnx", "../../double/1/model.onnx", "/etc/passwd", "model.onnx/", "model.onnx\0.onnx"),
    *("sub/../model.onnx", "./model.onnx", "x" * 5000, "folder", "link", "zero", "pipe", "loop", "none.onnx", "a\nb"),
)
_LIBRARIES = ("", "none.so", "libm.so.6", "/dev/null", "/etc/passwd", "x" * 5000, "model.onnx", "../../../x.so")


@dataclass
class Pair:
    """A model's files.

    Attributes:
        kinds: what was done to them, for the figures.
        file: the ONNX file; None if there is none.
        config: the text of the config; None if there is none.
        good: it must load, and answer as the subject does.
    """

    number: int
    subject: Subject
    kinds: list[str]
    file: bytes | None
    config: bytes | None
    good: bool

    @property
    def name(self) -> str:
        """The model's name."""
        return f"pair_{self.number}"

    def __str__(self) -> str:
        """As in ``pair 7 (flipped file, odd dims) of 'echo'``."""
        return f"pair {self.number} ({', '.join(self.kinds)}) of {self.subject.name!r}"

    def write(self, repository: Path) -> Path:
        """Put it into a model repository; the model's folder. Things that should not be opened lie beside the file."""
        folder = repository / self.name
        version = folder / "1"
        (version / "folder").mkdir(parents=True)
        if self.file is not None:
            (version / "model.onnx").write_bytes(self.file)
        if self.config is not None:
            (folder / "config.pbtxt").write_bytes(self.config)
        for link, target in {"link": "/etc/passwd", "zero": "/dev/zero", "loop": "loop"}.items():
            (version / link).symlink_to(target)
        os.mkfifo(version / "pipe")
        return folder


def make(number: int, seed: int, subjects: Sequence[Subject]) -> Pair:
    """The pair of that number."""
    rng = Random(f"pair {seed} {number}")
    is_good = number % GOOD_EVERY == 0
    kinds = ["good"] if is_good else rng.sample([*_FILES, *_CONFIGS, *_CONFIGS], rng.choice((1, 1, 2, 3)))
    if _WARMUP in kinds:
        # Triton 2.51 itself dies, more often than not, where a backend answers a warm-up with an error.
        kinds, subjects = [_WARMUP], [subject for subject in subjects if subject.name in _STEADY]
    subject = rng.choice(subjects)
    config = ModelConfig()
    config.CopyFrom(subject.config)
    config.name = f"pair_{number}"
    pair = Pair(number, subject, kinds, subject.file, None, good=is_good)
    for kind in kinds:
        if kind in _CONFIGS:
            _CONFIGS[kind](rng, config)
    if config.HasField("sequence_batching"):
        # Triton 2.51 itself dies of a request to such a model if it may not use an instance.
        for group in config.instance_group:
            group.passive = False
    pair.config = config_text(config).encode("utf-8", "surrogatepass")
    for kind in kinds:
        if kind in _FILES:
            _FILES[kind](rng, pair)
    return pair


def _cut_file(rng: Random, pair: Pair) -> None:
    pair.file = (pair.file or b"")[: rng.randrange(len(pair.file or b"") + 1)]


def _flipped_file(rng: Random, pair: Pair) -> None:
    data = bytearray(pair.file or b"")
    flip(rng, data)
    pair.file = bytes(data)


def _spliced_file(rng: Random, pair: Pair) -> None:
    data = pair.file or b""
    start, end = sorted(rng.choices(range(len(data) + 1), k=2))
    pair.file = rng.choice((data[:start] + data[end:], data[:end] + data[start:], data * 2, rng.randbytes(200)))


def _no_file(rng: Random, pair: Pair) -> None:
    pair.file = rng.choice((None, b""))


def _odd_graph(rng: Random, pair: Pair) -> None:
    """The file is still a model, of other shapes, types or operators."""
    try:
        model = onnx.ModelProto.FromString(pair.file or b"")
    except Exception:  # protobuf's own error is of no public type
        return
    graph = model.graph
    values = [*graph.input, *graph.output]
    value = rng.choice(values).type.tensor_type if values else None
    match rng.randrange(8):
        case 0 if value is not None:
            value.elem_type = rng.choice((0, 1, 7, 8, 9, 14, 16, 17, 23, 99))
        case 1 if value is not None and value.shape.dim:
            rng.choice(value.shape.dim).dim_value = rng.choice(_ODD_DIMS)
        case 2 if value is not None:
            value.shape.dim.add(dim_value=rng.choice(_ODD_DIMS))
        case 3 if values:
            rng.choice(values).name = rng.choice(("", "x", "y", "x" * 5000, "a\0b"))
        case 4 if graph.node:
            rng.choice(graph.node).op_type = rng.choice(
                ("", "Nothing", "Add", "Loop", "If", "SequenceConstruct", "Cast")
            )
        case 5 if graph.node:
            graph.node.append(graph.node[0])
        case 6:
            _external(rng, graph.initializer.add(name="outside"))
        case 7 if model.opset_import:
            model.opset_import[0].version = rng.choice((0, 1, 7, 99, 2**31))
    pair.file = model.SerializeToString()


def _external(rng: Random, tensor: TensorProto) -> None:
    """A constant whose content is said to lie in another file."""
    tensor.data_type = TensorProto.UINT8
    tensor.dims.append(rng.choice((0, 1, 16, 2**20)))
    tensor.data_location = TensorProto.EXTERNAL
    places = ("../config.pbtxt", "/etc/passwd", "model.onnx", "link", "zero", "folder", "", "../../../../etc/passwd")
    said = {
        "location": rng.choice(places),
        "offset": rng.choice(("0", "-1", "9" * 18, "x")),
        "length": rng.choice(("16", "-1")),
    }
    for key, value in said.items():
        tensor.external_data.add(key=key, value=value)


def _no_config(rng: Random, pair: Pair) -> None:
    pair.config = rng.choice((None, b"", b'backend: "onnxruntime"'))


def _cut_config(rng: Random, pair: Pair) -> None:
    pair.config = (pair.config or b"")[: rng.randrange(len(pair.config or b"") + 1)]


def _flipped_config(rng: Random, pair: Pair) -> None:
    data = bytearray(pair.config or b"")
    flip(rng, data)
    pair.config = bytes(data)


def _tensor(rng: Random, config: ModelConfig) -> Any:
    tensors = [*config.input, *config.output]
    return rng.choice(tensors) if tensors else config.input.add(name="x")


def _odd_batch(rng: Random, config: ModelConfig) -> None:
    config.max_batch_size = rng.choice(_ODD_NUMBERS)


def _odd_dims(rng: Random, config: ModelConfig) -> None:
    dims = _tensor(rng, config).dims
    dims[:] = rng.choice(([], [*dims, rng.choice(_ODD_DIMS)], [rng.choice(_ODD_DIMS) for _ in dims], [1] * 100))


def _odd_dtype(rng: Random, config: ModelConfig) -> None:
    _tensor(rng, config).data_type = rng.randrange(15)


def _odd_name(rng: Random, config: ModelConfig) -> None:
    _tensor(rng, config).name = rng.choice((*_ODD_TEXTS, "x\0", config.output[0].name if config.output else ""))


def _twice(rng: Random, config: ModelConfig) -> None:
    tensors = rng.choice((config.input, config.output))
    if tensors:
        tensors.append(tensors[0])


def _fewer(rng: Random, config: ModelConfig) -> None:
    del rng.choice((config.input, config.output))[:1]


def _odd_reshape(rng: Random, config: ModelConfig) -> None:
    _tensor(rng, config).reshape.shape[:] = rng.choices(_ODD_DIMS, k=rng.randrange(4))


def _odd_flags(rng: Random, config: ModelConfig) -> None:
    tensor = _tensor(rng, config)
    flag = rng.choice(("optional", "allow_ragged_batch", "is_shape_tensor", "is_non_linear_format_io"))
    if hasattr(tensor, flag):
        setattr(tensor, flag, True)
    else:
        # Not a folder's name: Triton 2.51 itself dies of that.
        tensor.label_filename = rng.choice(("none.txt", "config.pbtxt", "1/model.onnx", "1/zero/x", "x" * 5000))


def _odd_parameter(rng: Random, config: ModelConfig) -> None:
    for key in rng.sample(_PARAMETERS, rng.choice((1, 2, 5))):
        config.parameters[key].string_value = rng.choice(_ODD_TEXTS)
    if rng.random() < 0.3:
        config.parameters[f"{rng.choice(('intra', 'inter'))}_op_thread_count"].string_value = rng.choice(_THREADS)


def _odd_optimization(rng: Random, config: ModelConfig) -> None:
    config.optimization.graph.level = rng.choice(_ODD_NUMBERS)
    config.optimization.eager_batching = rng.random() < 0.5
    config.optimization.gather_kernel_buffer_threshold = rng.choice((0, 1, 2**31 - 1))


def _odd_accelerator(rng: Random, config: ModelConfig) -> None:
    accelerators = config.optimization.execution_accelerators
    for kind in (accelerators.gpu_execution_accelerator, accelerators.cpu_execution_accelerator):
        accelerator = kind.add(name=rng.choice(("cuda", "tensorrt", "openvino", "auto_io", "", "x" * 5000)))
        for _ in range(rng.randrange(3)):
            key = rng.choice(("precision_mode", "max_workspace_size_bytes", "device_id", "", "trt_nothing"))
            accelerator.parameters[key] = rng.choice(("FP16", "FP64", *_ODD_TEXTS))


def _odd_libraries(rng: Random, config: ModelConfig) -> None:
    config.model_operations.op_library_filename.extend(rng.choices(_LIBRARIES, k=rng.choice((1, 2))))


def _odd_sequence(rng: Random, config: ModelConfig) -> None:
    config.ClearField("dynamic_batching")
    batching = config.sequence_batching
    batching.max_sequence_idle_microseconds = rng.choice((0, 1, 10**6))
    if rng.random() < 0.5:
        batching.oldest.max_candidate_sequences = rng.choice((0, 1, 4))
    for _ in range(rng.choice((0, 1, 2))):
        control = batching.control_input.add(name=rng.choice(("START", "x", "", "data")))
        said = control.control.add(kind=rng.randrange(4))
        said.int32_false_true.extend(rng.choice(([0, 1], [1], [])))
        said.data_type = rng.choice((0, 8, 9, 13))
    for _ in range(rng.choice((0, 1, 2))):
        state = batching.state.add(input_name=rng.choice(("before", "x", "data", "none", "")))
        state.output_name = rng.choice(("after", "y", "none", ""))
        state.data_type = rng.randrange(15)
        state.dims.extend(rng.choices((-1, 1, 2, 1000), k=rng.randrange(3)))
        if rng.random() < 0.5:
            initial = state.initial_state.add(name="first", data_type=rng.choice((state.data_type, 11)))
            initial.dims.extend(rng.choices((-1, 0, 1, 2), k=len(state.dims)))
            if rng.random() < 0.5:
                initial.zero_data = True
            else:
                initial.data_file = rng.choice(("none", "../../1/model.onnx", ""))


def _odd_batch_input(rng: Random, config: ModelConfig) -> None:
    made = config.batch_input.add(kind=rng.randrange(5), data_type=rng.randrange(15))
    made.target_name.append(rng.choice(("x", "extra", "")))
    made.source_input.append(rng.choice(("x", "none")))
    if rng.random() < 0.5:
        config.batch_output.add(target_name=["y"], source_input=["x"])


def _odd_batching(rng: Random, config: ModelConfig) -> None:
    config.ClearField("sequence_batching")
    batching = config.dynamic_batching
    batching.preferred_batch_size.extend(rng.choices((-1, 0, 1, 3, 2**31 - 1), k=rng.randrange(3)))
    batching.max_queue_delay_microseconds = rng.choice((0, 1, 1000))
    batching.priority_levels = rng.choice((0, 1, 10))
    batching.default_priority_level = rng.choice((0, 1, 2**32))
    batching.default_queue_policy.max_queue_size = rng.choice((0, 1, 2**32 - 1))
    batching.preserve_ordering = rng.random() < 0.5


def _odd_instances(rng: Random, config: ModelConfig) -> None:
    group = config.instance_group.add(count=rng.choice((-1, 0, 1, 3)), kind=rng.randrange(4))
    group.gpus.extend(rng.choice(([], [0], [-1, 99])))
    group.name = rng.choice(("", "x", "x" * 5000))
    group.passive = rng.random() < 0.3
    group.profile.extend(rng.choice(([], ["x"])))
    if rng.random() < 0.3:
        group.rate_limiter.resources.add(name="R", count=rng.choice((0, 1, 2**31)))
    if rng.random() < 0.3:
        group.host_policy = "nobody"


def _odd_file_name(rng: Random, config: ModelConfig) -> None:
    config.default_model_filename = rng.choice(_FILE_NAMES)
    if rng.random() < 0.3:
        config.cc_model_filenames["8.0"] = rng.choice(_FILE_NAMES)


def _odd_warmup(rng: Random, config: ModelConfig) -> None:
    warmup = config.model_warmup.add(name="warm", batch_size=rng.choice((0, 1, 2, 100)), count=rng.choice((0, 1, 3)))
    for tensor in config.input:
        data = warmup.inputs[rng.choice((tensor.name, tensor.name, "none"))]
        data.data_type = rng.choice((tensor.data_type, tensor.data_type, rng.randrange(15)))
        dims = [dim if 0 < dim < 1000 else 2 for dim in tensor.dims]
        data.dims.extend(rng.choice((dims, dims, [*dims, 1], [rng.choice((-1, 0, 1, 3)) for _ in dims])))
        match rng.randrange(3):
            case 0:
                data.zero_data = True
            case 1:
                data.random_data = True
            case _:
                data.input_data_file = rng.choice(("none", "../1/model.onnx", "../config.pbtxt", ""))


def _odd_rest(rng: Random, config: ModelConfig) -> None:
    match rng.randrange(7):
        case 0:
            config.model_transaction_policy.decoupled = True
        case 1:
            config.response_cache.enable = True
        case 2:
            config.version_policy.specific.versions.extend(rng.choice(([1], [0], [-1, 2], [2**62])))
        case 3:
            config.platform = rng.choice(("onnxruntime_onnx", "tensorrt_plan", "x"))
        case 4:
            config.backend = rng.choice(("", "onnx", "../onnxruntime", "x" * 5000))
        case 5:
            config.runtime = rng.choice(("none.so", "model.py", "../x"))
        case _:
            config.name = rng.choice(_ODD_TEXTS)


_FILES: Mapping[str, Callable[[Random, Pair], None]] = {
    "cut file": _cut_file,
    "flipped file": _flipped_file,
    "spliced file": _spliced_file,
    "no file": _no_file,
    "odd graph": _odd_graph,
    "no config": _no_config,
    "cut config": _cut_config,
    "flipped config": _flipped_config,
}
_CONFIGS: Mapping[str, Callable[[Random, ModelConfig], None]] = {
    "odd batch": _odd_batch,
    "odd dims": _odd_dims,
    "odd dtype": _odd_dtype,
    "odd name": _odd_name,
    "twice": _twice,
    "fewer": _fewer,
    "odd reshape": _odd_reshape,
    "odd flags": _odd_flags,
    "odd parameter": _odd_parameter,
    "odd optimization": _odd_optimization,
    "odd accelerator": _odd_accelerator,
    "odd libraries": _odd_libraries,
    "odd sequence": _odd_sequence,
    "odd batch input": _odd_batch_input,
    "odd batching": _odd_batching,
    "odd instances": _odd_instances,
    "odd file name": _odd_file_name,
    _WARMUP: _odd_warmup,
    "odd rest": _odd_rest,
}
