"""How a model is to be served: what of its config is a choice, and not a fact about its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup, ModelQueuePolicy

from tritium.client import InputError

TARGETS = ("auto", "gpu")
_LIMIT = 2**31
# What a queue is bounded by where nobody says and there are several instances.
_BOUNDS = {"queue_timeout_us": 30_000_000, "max_queue_size": 1024}
# One thread an instance: Triton runs instances side by side, and more threads than cores slow each other down.
_ONE_THREAD = {
    "onnxruntime": {"intra_op_thread_count": "1", "inter_op_thread_count": "1"},
    "pytorch": {"INTRA_OP_THREAD_COUNT": "1", "INTER_OP_THREAD_COUNT": "1"},
}


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How a model is to be served. The defaults suit a small model on any machine.

    Attributes:
        max_batch_size: most rows that Triton puts into one batch; 0 for a model without a batch axis. Above 0, Triton
            batches whatever waits.
        instances: how many copies of the model run.
        target: ``auto`` for the file as it is, on a GPU where there is one; ``gpu`` to ask, there, for TensorRT and
            CUDA by name. Either runs on a CPU as well.
        queue_delay_us: how long Triton may wait for a batch to fill, in microseconds.
        queue_timeout_us: how long a request may wait in the queue before it is refused, in microseconds; a client can
            ask for less. 0 for ever. None for half a minute where there are several instances, and for ever where there
            is one: with a bounded queue and one instance, Triton 2.51 at times leaves a request waiting for half a
            second (docs/exporting.md).
        max_queue_size: how many requests may wait before more are refused; 0 for any number. None for 1 024 where there
            are several instances, and for any number where there is one. Set it to 0 for the steps of an ensemble:
            Triton 2.51 can hang when one of them refuses.
        warm_up: whether every start first runs a golden case, so that no client waits for what a first run makes.

    Raises:
        InputError: a value is out of range.
    """

    max_batch_size: int = 64
    instances: int = 1
    target: str = "auto"
    queue_delay_us: int = 0
    queue_timeout_us: int | None = None
    max_queue_size: int | None = None
    warm_up: bool = False

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise InputError(f"The 'target' parameter of Serving must be one of {TARGETS}, got {self.target!r} instead")
        least = {"instances": 1}
        for name in ("max_batch_size", "instances", "queue_delay_us", "queue_timeout_us", "max_queue_size"):
            value = getattr(self, name)
            if value is None and name in _BOUNDS:
                continue
            if not isinstance(value, int) or not least.get(name, 0) <= value < _LIMIT:
                raise InputError(
                    f"The {name!r} parameter of Serving must be a whole number from {least.get(name, 0)}, "
                    f"got {value!r} instead"
                )


def set_serving(config: ModelConfig, serving: Serving, parameters: Mapping[str, str]) -> None:
    """Write the choices into a config that has its backend; `parameters` are the backend's own keys."""
    config.max_batch_size = serving.max_batch_size
    # KIND_AUTO: a GPU where there is one, else the CPU, by the same file.
    config.instance_group.add(count=serving.instances, kind=ModelInstanceGroup.KIND_AUTO)
    if serving.max_batch_size > 0:
        config.dynamic_batching.SetInParent()
        if serving.queue_delay_us:
            config.dynamic_batching.max_queue_delay_microseconds = serving.queue_delay_us
        _set_queue(config.dynamic_batching, serving)
    if serving.target == "gpu" and config.backend == "onnxruntime":
        accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
        # The first takes what it can, the next the rest.
        accelerators.add(name="tensorrt").parameters["precision_mode"] = "FP32"
        accelerators.add(name="cuda")
    for key, value in {**_ONE_THREAD[config.backend], **parameters}.items():
        config.parameters[key].string_value = value


def _set_queue(batching: Any, serving: Serving) -> None:
    chosen = {name: getattr(serving, name) for name in _BOUNDS}
    usual = _BOUNDS if serving.instances > 1 else dict.fromkeys(_BOUNDS, 0)
    timeout_us, size = (usual[name] if value is None else value for name, value in chosen.items())
    # An empty policy would be one, too.
    if timeout_us:
        policy = batching.default_queue_policy
        policy.timeout_action = ModelQueuePolicy.REJECT
        policy.default_timeout_microseconds = timeout_us
        policy.allow_timeout_override = True
    if size:
        batching.default_queue_policy.max_queue_size = size
