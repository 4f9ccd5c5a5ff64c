"""Rules about how a model is run: instances, threads, batches, queues, sequences, warm-ups."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from tritonclient.grpc.model_config_pb2 import DataType, ModelInstanceGroup, ModelQueuePolicy, ModelSequenceBatching

from ._rules import Problem, Severity, rule, shown
from ._subjects import ModelFolder, leaves

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
_MOST_INSTANCES = 256
_MOST_THREADS = 1024
_MOST_PRIORITIES = 1000
_MOST_WARM_UPS = 1000
_LONGEST_DELAY_US = 10_000_000
_SHORTEST_TIMEOUT_US = 1000
# Eleven days.
_LONGEST_TIMEOUT_US = 10**12
_TRUTHS = r"(?i:true|false|1|0)"
_WHOLE = r"[0-9]{1,9}"
# What the backends read of the parameters that they know.
_PARAMETERS = {
    "onnxruntime": {
        "intra_op_thread_count": _WHOLE,
        "inter_op_thread_count": _WHOLE,
        "execution_mode": "[01]",
        "enable_mem_arena": _TRUTHS,
        "enable_mem_pattern": _TRUTHS,
        "session.use_device_allocator_for_initializers": _TRUTHS,
        "share_session_between_instances": _TRUTHS,
        "memory.enable_memory_arena_shrinkage": r"(((cpu|gpu):\d+)(;(cpu|gpu):\d+)*)?",
        "cudnn_conv_algo_search": "[012]?",
        "arena_extend_strategy": "[01]?",
    },
    "pytorch": {
        "INTRA_OP_THREAD_COUNT": _WHOLE,
        "INTER_OP_THREAD_COUNT": _WHOLE,
        **dict.fromkeys(
            (
                *("INFERENCE_MODE", "DISABLE_OPTIMIZED_EXECUTION", "ENABLE_JIT_EXECUTOR", "ENABLE_JIT_PROFILING"),
                *("ENABLE_WEIGHT_SHARING", "ENABLE_TENSOR_FUSER", "ENABLE_CACHE_CLEANING"),
            ),
            _TRUTHS,
        ),
    },
}
_ACCELERATORS = {
    "gpu_execution_accelerator": ("tensorrt", "cuda"),
    "cpu_execution_accelerator": ("openvino",),
}
_SIZES = {"BOOL": 1, "FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8} | {
    f"{sign}INT{bits}": bits // 8 for sign in ("", "U") for bits in (8, 16, 32, 64)
}


@rule(ModelFolder, "instance-group", ERROR)
def _instance_group(model: ModelFolder) -> Iterator[Problem]:
    """An instance group contradicts itself, or none of them may be used by a request."""
    groups = model.config.instance_group
    for number, group in enumerate(groups):
        for why, fix in _bad_group(group, model):
            yield Problem(model.config_path, f"instance_group {number} {why}", fix)
    if groups and all(group.passive for group in groups):
        message = "every instance_group is passive: Triton 2.51 ends at the first request"
        yield Problem(model.config_path, message, "leave passive out of one")


@rule(ModelFolder, "instance-count", WARNING)
def _instance_count(model: ModelFolder) -> Iterator[Problem]:
    """An instance group's count is below 1 (which Triton takes for 1) or absurd."""
    for number, group in enumerate(model.config.instance_group):
        # An explicit 0 and none at all are the same to protobuf, and both are Triton's own choice.
        if not 0 <= group.count <= _MOST_INSTANCES:
            message = f"instance_group {number} has count {group.count}"
            yield Problem(model.config_path, message, f"write 1 to {_MOST_INSTANCES}; each takes memory of its own")


@rule(ModelFolder, "gpu-only", NOTE)
def _gpu_only(model: ModelFolder) -> Iterator[Problem]:
    """Every instance asks for a GPU: a server without one refuses the model."""
    groups = model.config.instance_group
    if groups and all(group.kind == ModelInstanceGroup.KIND_GPU for group in groups):
        yield Problem(model.config_path, "it is served on GPUs only", "KIND_AUTO takes a GPU where there is one")


@rule(ModelFolder, "threads", WARNING)
def _threads(model: ModelFolder) -> Iterator[Problem]:
    """Instances and threads together are more than any machine has."""
    instances = sum(max(1, group.count) for group in model.config.instance_group) or 1
    for key, value in model.config.parameters.items():
        text = value.string_value
        if key.lower().endswith("op_thread_count") and re.fullmatch(_WHOLE, text):
            threads = int(text)
            if threads > _MOST_THREADS or threads * instances > _MOST_THREADS:
                message = f"{key} is {threads}, and there are {instances} instances"
                yield Problem(
                    model.config_path, message, "1 thread an instance is best for throughput; 0 lets it choose"
                )


@rule(ModelFolder, "parameter", ERROR)
def _parameter(model: ModelFolder) -> Iterator[Problem]:
    """A parameter or an option of the backend has a value that it does not take."""
    known = _PARAMETERS.get(model.backend, {})
    for key, value in model.config.parameters.items():
        if key in known and not re.fullmatch(known[key], value.string_value):
            message = f"the parameter {key} is {shown(value.string_value)}"
            yield Problem(model.config_path, message, "see docs/backends.md for what it takes, or leave it out")
        elif known and key not in known and key.lower() in {name.lower() for name in known}:
            yield Problem(model.config_path, f"the parameter {key} is not read: case counts", "write it as documented")
    level = model.config.optimization.graph.level
    if model.backend == "onnxruntime" and level not in (-1, 0, 1, 2):
        message = f"optimization.graph.level is {level}"
        yield Problem(model.config_path, message, "write -1 (basic), 0 (all), 1 (extended) or 2 (none)")


@rule(ModelFolder, "accelerator", ERROR)
def _accelerator(model: ModelFolder) -> Iterator[Problem]:
    """An execution accelerator is none that the backend has, or has an option that it does not take."""
    accelerators = model.config.optimization.execution_accelerators
    for kind, known in _ACCELERATORS.items():
        for accelerator in getattr(accelerators, kind):
            if model.backend == "onnxruntime" and accelerator.name not in known:
                message = f"{kind} names {shown(accelerator.name)}"
                yield Problem(model.config_path, message, f"name {' or '.join(known)}")
            precision = accelerator.parameters.get("precision_mode")
            if precision is not None and precision not in ("FP32", "FP16", "BF16", "INT8"):
                message = f"precision_mode is {shown(precision)}"
                yield Problem(model.config_path, message, "write FP32, FP16, BF16 or INT8")


@rule(ModelFolder, "batching-without-batch", WARNING)
def _batching_without_batch(model: ModelFolder) -> Iterator[Problem]:
    """``dynamic_batching`` stands beside ``max_batch_size: 0``: nothing can be batched."""
    if model.config.HasField("dynamic_batching") and not model.batched:
        message = "dynamic_batching has nothing to batch: max_batch_size is 0"
        yield Problem(model.config_path, message, "leave it out, or give the model a batch axis")


@rule(ModelFolder, "preferred-batch-size", ERROR)
def _preferred_batch_size(model: ModelFolder) -> Iterator[Problem]:
    """A ``preferred_batch_size`` is below 1 or above ``max_batch_size``."""
    config = model.config
    for batching in (config.dynamic_batching, config.sequence_batching.oldest):
        wrong = [size for size in batching.preferred_batch_size if not 0 < size <= max(1, config.max_batch_size)]
        if wrong:
            message = f"preferred_batch_size has {wrong[0]}, and max_batch_size is {config.max_batch_size}"
            yield Problem(model.config_path, message, "leave it out: it is for TensorRT's profiles")


@rule(ModelFolder, "queue-priority", ERROR)
def _queue_priority(model: ModelFolder) -> Iterator[Problem]:
    """Priorities of the queue do not fit together."""
    batching = model.config.dynamic_batching
    levels, default = batching.priority_levels, batching.default_priority_level
    wrong = [key for key in batching.priority_queue_policy if not 0 < key <= levels]
    if levels > _MOST_PRIORITIES:
        yield Problem(model.config_path, f"priority_levels is {levels}", "a few are enough")
    if levels and not 0 < default <= levels:
        message = f"default_priority_level is {default}, and priority_levels {levels}"
        yield Problem(model.config_path, message, f"write a level from 1 to {levels}")
    if wrong and levels:
        message = f"priority_queue_policy names the level {wrong[0]}, and priority_levels is {levels}"
        yield Problem(model.config_path, message, f"write levels from 1 to {levels}")
    if levels > 1 and batching.preserve_ordering:
        yield Problem(model.config_path, "priorities and preserve_ordering exclude each other", "leave one out")


@rule(ModelFolder, "queue-policy", WARNING)
def _queue_policy(model: ModelFolder) -> Iterator[Problem]:
    """A queue's policy says something that has no effect."""
    batching = model.config.dynamic_batching
    for policy in [batching.default_queue_policy, *batching.priority_queue_policy.values()]:
        if policy.allow_timeout_override and not policy.default_timeout_microseconds:
            message = "allow_timeout_override without default_timeout_microseconds: no client's timeout counts"
            yield Problem(model.config_path, message, "give it a default, however long")
        elif policy.timeout_action == ModelQueuePolicy.DELAY and not policy.default_timeout_microseconds:
            message = "timeout_action is DELAY, and nothing ever times out"
            yield Problem(model.config_path, message, "give it default_timeout_microseconds, or leave it out")


@rule(ModelFolder, "queue-stall", WARNING)
def _queue_stall(model: ModelFolder) -> Iterator[Problem]:
    """A queue is bounded before one instance: Triton 2.51 at times leaves a request waiting for half a second."""
    config = model.config
    groups = [group.count or 1 for group in config.instance_group if not group.passive]
    if config.dynamic_batching.HasField("default_queue_policy") and sum(groups) <= 1:
        message = "the queue is bounded, and one instance serves: Triton 2.51 can overlook what waits for half a second"
        yield Problem(model.config_path, message, "write count: 2, or leave default_queue_policy out")


@rule(ModelFolder, "queue-timeout", WARNING)
def _queue_timeout(model: ModelFolder) -> Iterator[Problem]:
    """A request may wait for less than a millisecond, or for so long that Triton's clock overflows."""
    batching = model.config.dynamic_batching
    for policy in [batching.default_queue_policy, *batching.priority_queue_policy.values()]:
        timeout_us = policy.default_timeout_microseconds
        if timeout_us and not _SHORTEST_TIMEOUT_US <= timeout_us <= _LONGEST_TIMEOUT_US:
            message = f"default_timeout_microseconds is {timeout_us}: hardly a request is answered"
            yield Problem(model.config_path, message, "write microseconds: 30000000 is half a minute; 0 waits for ever")


@rule(ModelFolder, "queue-delay", ERROR)
def _queue_delay(model: ModelFolder) -> Iterator[Problem]:
    """Requests wait absurdly long for a batch to fill."""
    config = model.config
    for batching in (config.dynamic_batching, config.sequence_batching.oldest):
        if (delay_us := batching.max_queue_delay_microseconds) > _LONGEST_DELAY_US:
            message = f"max_queue_delay_microseconds is {delay_us}: one request alone waits for {delay_us / 1e6:.0f} s"
            yield Problem(model.config_path, message, "0 batches what waits anyway; 1000 is much")


@rule(ModelFolder, "sequence", ERROR)
def _sequence(model: ModelFolder) -> Iterator[Problem]:
    """Controls or states of ``sequence_batching`` do not fit together."""
    batching = model.config.sequence_batching
    kinds: set[int] = set()
    for control in batching.control_input:
        if not control.name or not control.control:
            yield Problem(model.config_path, "a control_input must have a name and a control", "add what is missing")
        for said in control.control:
            if why := _bad_control(said, kinds):
                message = f"the control_input {shown(control.name)} {why}"
                yield Problem(
                    model.config_path, message, "write two values of one type, such as fp32_false_true: [0, 1]"
                )
            kinds.add(said.kind)
    for state in batching.state:
        if not state.input_name or not state.output_name or not state.data_type or not state.dims:
            message = f"the state {shown(state.input_name)} lacks a name, a data_type or dims"
            yield Problem(model.config_path, message, "add what is missing")
        for initial in state.initial_state:
            if initial.WhichOneof("state_data") == "data_file" and leaves(initial.data_file):
                message = f"the initial state {shown(initial.name)} is in {shown(initial.data_file)}"
                yield Problem(
                    model.config_path, message, "write the name of a file in the model's initial_state folder"
                )


@rule(ModelFolder, "sequence-unread", WARNING)
def _sequence_unread(model: ModelFolder) -> Iterator[Problem]:
    """``sequence_batching`` without a control or a state: calls need a sequence's id, and the model never sees one."""
    config = model.config
    batching = config.sequence_batching
    if config.HasField("sequence_batching") and not (batching.control_input or batching.state):
        message = "sequence_batching has neither controls nor states; calls without a sequence's id are refused"
        yield Problem(model.config_path, message, "leave it out, or declare what the model reads of a sequence")


@rule(ModelFolder, "batch-io", ERROR)
def _batch_io(model: ModelFolder) -> Iterator[Problem]:
    """The config has a ``batch_input`` or ``batch_output``, which the embedded server refuses."""
    for field in ("batch_input", "batch_output"):
        if getattr(model.config, field) and model.backend in ("onnxruntime", "pytorch"):
            message = f"it has a {field}, which the backend {model.backend!r} of the embedded server has not"
            yield Problem(model.config_path, message, "leave it out")


@rule(ModelFolder, "decoupled", WARNING)
def _decoupled(model: ModelFolder) -> Iterator[Problem]:
    """A model that answers each request once says that it is decoupled: ordinary calls are then refused."""
    if model.config.model_transaction_policy.decoupled and model.backend in ("onnxruntime", "pytorch"):
        yield Problem(model.config_path, "it is decoupled, and gives one answer", "leave model_transaction_policy out")


@rule(ModelFolder, "warm-up", ERROR)
def _warm_up(model: ModelFolder) -> Iterator[Problem]:
    """A warm-up request is not one that the model takes; Triton 2.51 refuses the model for it, or ends."""
    for warm_up in model.config.model_warmup:
        for why in _bad_warm_up(warm_up, model):
            message = f"the warm-up {shown(warm_up.name)} {why}"
            yield Problem(model.config_path, message, "write every input as the model takes it")


@rule(ModelFolder, "warm-up-size", WARNING)
def _warm_up_size(model: ModelFolder) -> Iterator[Problem]:
    """A warm-up has more rows than the model takes, or runs absurdly often."""
    rows = max(1, model.config.max_batch_size)
    for warm_up in model.config.model_warmup:
        if warm_up.batch_size > rows or warm_up.count > _MOST_WARM_UPS:
            message = f"the warm-up {shown(warm_up.name)} has {warm_up.batch_size} rows and runs {warm_up.count} times"
            yield Problem(model.config_path, message, f"up to {rows} rows and a few times are enough")


@rule(ModelFolder, "warm-up-file", ERROR)
def _warm_up_file(model: ModelFolder) -> Iterator[Problem]:
    """A warm-up names a file that is not there, leaves the folder ``warmup`` or is not of the size of its tensor."""
    for warm_up in model.config.model_warmup:
        for name, data in warm_up.inputs.items():
            if data.WhichOneof("input_data_type") != "input_data_file":
                continue
            file = data.input_data_file
            path = model.path / "warmup" / file
            what = f"the warm-up {shown(warm_up.name)} takes {shown(name)} from {shown(file)}"
            if leaves(file) or len(file) > 255:
                yield Problem(model.config_path, f"{what}, outside the folder warmup", "name a file in that folder")
            elif not path.is_file():
                yield Problem(model.config_path, f"{what}, which is not there", "put it into the folder warmup")
            else:
                size = _size_bytes(data)
                if size is not None and path.stat().st_size != size:
                    what += f", which has {path.stat().st_size} bytes instead of {size}"
                    yield Problem(path, what, "write the tensor's bytes, rows aside")


def _bad_group(group: Any, model: ModelFolder) -> Iterator[tuple[str, str]]:
    kind = ModelInstanceGroup.Kind.Name(group.kind) if group.kind in ModelInstanceGroup.Kind.values() else group.kind
    if group.gpus and kind in ("KIND_CPU", "KIND_MODEL"):
        yield f"is {kind} and names GPUs", "leave gpus out, or write KIND_GPU"
    elif any(not 0 <= gpu < 64 for gpu in group.gpus):
        yield f"names the GPUs {list(group.gpus)[:8]}", "GPUs count from 0"
    elif group.gpus and kind == "KIND_AUTO":
        yield (
            "is KIND_AUTO and names GPUs: a server without them refuses the model",
            "leave gpus out, or write KIND_GPU",
        )
    if group.profile and model.backend != "tensorrt":
        yield "has a profile, which only TensorRT models have", "leave it out"


def _bad_control(said: Any, kinds: set[int]) -> str:
    values = [len(getattr(said, f"{kind}_false_true")) for kind in ("int32", "fp32", "bool")]
    control = ModelSequenceBatching.Control
    if said.kind == control.CONTROL_SEQUENCE_CORRID:
        wrong = sum(values) > 0 or not said.data_type
    else:
        wrong = sorted(values) != [0, 0, 2] or bool(said.data_type)
    if said.kind in kinds:
        return "says again what another says"
    return "has not two values, for false and for true, or not one data_type for the correlation id" if wrong else ""


def _bad_warm_up(warm_up: Any, model: ModelFolder) -> Iterator[str]:
    config = model.config
    inputs = {tensor.name: tensor for tensor in config.input}
    required = {name for name, tensor in inputs.items() if not tensor.optional}
    if warm_up.batch_size == 0 and not warm_up.inputs:
        return  # Triton makes no request of it
    if absent := sorted(required - set(warm_up.inputs)):
        yield f"lacks the input {shown(absent[0])}"
    if unknown := sorted(set(warm_up.inputs) - set(inputs)):
        yield f"has an input {shown(unknown[0])} that the model has not"
    for name, data in warm_up.inputs.items():
        if data.WhichOneof("input_data_type") is None:
            yield f"does not say what the input {shown(name)} holds"
        if any(dim < 1 for dim in data.dims):
            yield f"must give every axis of {shown(name)} a length"
        elif name in inputs and not _fits(data, inputs[name]):
            declared = inputs[name]
            yield (
                f"has {shown(name)} as {DataType.Name(data.data_type)} {list(data.dims)}, and the model takes "
                f"{DataType.Name(declared.data_type)} {list(declared.dims)}"
            )


def _fits(data: Any, declared: Any) -> bool:
    return bool(data.data_type == declared.data_type) and _same(list(data.dims), list(declared.dims))


def _same(dims: Sequence[int], declared: Sequence[int]) -> bool:
    return len(dims) == len(declared) and all(want in (-1, have) for want, have in zip(declared, dims, strict=True))


def _size_bytes(data: Any) -> int | None:
    size = _SIZES.get(DataType.Name(data.data_type).removeprefix("TYPE_"))
    return None if size is None else size * math.prod(data.dims)
