"""What the tuner may choose of a model's config, and how a choice is written into one. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from tritium.client import InputError

# The key of a backend's threads for one run.
_THREADS: Mapping[str, str] = {"onnxruntime": "intra_op_thread_count", "pytorch": "INTRA_OP_THREAD_COUNT"}
_MOST_INSTANCES = 8
_MOST_THREADS = 8
# Waiting for company: not at all, and as long as a small batch takes, and a large one.
_DELAYS_US = (0, 500, 2000)
# What a GPU can run an ONNX model with: the provider, and TensorRT's precision.
_ACCELERATORS = ("cpu", "cuda", "tensorrt-fp32", "tensorrt-fp16")
_EXECUTORS: Mapping[str, tuple[str, str]] = {
    "cuda": ("cuda", ""),
    "tensorrt-fp32": ("tensorrt", "FP32"),
    "tensorrt-fp16": ("tensorrt", "FP16"),
    "tensorrt-bf16": ("tensorrt", "BF16"),
    "tensorrt-int8": ("tensorrt", "INT8"),
}


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """One choice of what can be chosen. It is a point of a :class:`Space`.

    Attributes:
        instances: how many copies of the model run, on each device.
        threads: that one run takes; 0 lets the runtime choose. None where the backend has no such key.
        max_batch: most rows in a batch; 0 for a model without a batch axis.
        delay_us: how long Triton may wait for a batch to fill, in microseconds; None where it makes no batches.
        accelerator: "" where the config says nothing of it and it is left so; else ``cpu``, ``cuda``,
            ``tensorrt-fp32``, ``tensorrt-fp16``, ….
    """

    instances: int
    threads: int | None
    max_batch: int
    delay_us: int | None
    accelerator: str = ""

    def __str__(self) -> str:
        """As in ``2 instances × 1 thread, batches of 64, delay 0 µs``."""
        parts = [f"{self.instances} instance{'s' * (self.instances != 1)}"]
        if self.threads is not None:
            threads = "as many threads as it likes" if self.threads == 0 else f"{self.threads} thread"
            parts[0] += f" × {threads}{'s' * (self.threads > 1)}"
        if self.delay_us is not None:
            parts += [f"batches of {self.max_batch}", f"delay {self.delay_us} µs"]
        else:
            parts += ["no batching"]
        parts += [self.accelerator] if self.accelerator else []
        return ", ".join(parts)

    def differences(self, other: Knobs) -> list[str]:
        """What another choice changes, as in ``instances 1 → 2``."""
        return [
            f"{field.name} {_shown(getattr(self, field.name))} → {_shown(getattr(other, field.name))}"
            for field in fields(Knobs)
            if getattr(self, field.name) != getattr(other, field.name)
        ]


@dataclass(frozen=True, kw_only=True)
class Space:
    """What there is to choose from, in ascending order.

    A model that makes no batches has no use for two sizes of them: there every choice has `unbatched`.

    Attributes:
        instances: see :class:`Knobs`, as for the others.
        threads: None alone where the backend has no such key.
        max_batches: where batches are made.
        delays_us: None, which comes first, makes none.
        accelerators: "" alone on a machine without a GPU.
        unbatched: the `max_batch` where no batches are made: the current one.
    """

    instances: tuple[int, ...]
    threads: tuple[int | None, ...]
    max_batches: tuple[int, ...]
    delays_us: tuple[int | None, ...]
    accelerators: tuple[str, ...]
    unbatched: int

    def points(self) -> list[Knobs]:
        """Every choice, once."""
        axes = (self.instances, self.threads, self.max_batches, self.delays_us, self.accelerators)
        return list(dict.fromkeys(self.point(*choice) for choice in itertools.product(*axes)))

    def point(
        self, instances: int, threads: int | None, max_batch: int, delay_us: int | None, accelerator: str
    ) -> Knobs:
        """One of them."""
        return Knobs(
            instances=instances,
            threads=threads,
            max_batch=self.unbatched if delay_us is None else max_batch,
            delay_us=delay_us,
            accelerator=accelerator,
        )

    def seeds(self, current: Knobs, cores: int) -> list[Knobs]:
        """What is tried first, the current choice before all.

        One instance on one core and on all of them, an instance for each core and twice as many, with batches and
        without: these are the corners in which the best of small models lies nearly always, and they tell a sampler
        early which way each axis goes. Where batches can be made, one waits for them, of a size that can fill: a batch
        larger than the requests under way would only wait.
        """
        threads = [count for count in self.threads if count is not None]
        one, all_cores = (threads[0], _nearest(threads, cores)) if threads else (None, None)
        each, twice = _nearest(self.instances, cores), _nearest(self.instances, 2 * cores)
        largest, smallest, middle = (
            self.max_batches[-1],
            self.max_batches[0],
            self.max_batches[len(self.max_batches) // 2],
        )
        batched = 0 if 0 in self.delays_us else None
        waiting = max((delay for delay in self.delays_us if delay is not None), default=None)
        found = [current]
        for accelerator in reversed(self.accelerators):
            found += [
                self.point(count, thread, size, delay, accelerator)
                for count, thread, size, delay in (
                    (each, one, largest, batched),
                    (self.instances[0], all_cores, largest, batched),
                    (self.instances[0], one, largest, batched),
                    (each, one, largest, None),
                    (twice, one, largest, batched),
                    (each, one, smallest, batched),
                    (each, all_cores, largest, batched),
                    (self.instances[0], one, middle, waiting),
                )
                if delay in self.delays_us
            ]
        return list(dict.fromkeys(found))


def space_of(config: ModelConfig, *, users: int, cores: int, gpus: int = 0) -> Space:
    """What can be chosen for a model on a machine. What its config says now is always among it.

    Args:
        config: the model's.
        users: requests of one row that are under way at once: no larger batch can form.
        cores: of the processor.
        gpus: how many there are.

    Raises:
        InputError: there is nothing to choose: it is an ensemble, or batches its requests by sequence.
    """
    if config.HasField("ensemble_scheduling"):
        raise InputError(f"{config.name} is an ensemble: it runs nothing itself. Tune the models of its steps")
    if config.HasField("sequence_batching"):
        raise InputError(f"{config.name} keeps sequences apart, and golden cases are none: it cannot be tuned")
    now = knobs_of(config)
    batches = {now.max_batch}
    delays: set[int | None] = {now.delay_us}
    if config.max_batch_size > 0:
        # Batches of more rows than there are requests never form, so larger limits than that are all one.
        tried = (users // 4, users // 2) if now.max_batch >= users else (users // 4, users // 2, users)
        batches |= {size for size in tried if size > 1}
        delays |= {None, *_DELAYS_US}
    accelerators = {now.accelerator}
    if gpus and config.backend == "onnxruntime":
        accelerators |= set(_ACCELERATORS)
    return Space(
        instances=tuple(sorted({now.instances, *_powers(min(2 * cores, _MOST_INSTANCES))})),
        threads=(
            (None,)
            if now.threads is None
            else tuple(sorted({now.threads, *_powers(min(cores, _MOST_THREADS))}, key=lambda n: n or math.inf))
        ),
        max_batches=tuple(sorted(batches)),
        delays_us=tuple(sorted(delays, key=lambda delay: -1 if delay is None else delay)),
        accelerators=tuple(sorted(accelerators)),
        unbatched=now.max_batch,
    )


def knobs_of(config: ModelConfig) -> Knobs:
    """What a config has chosen.

    Raises:
        InputError: a number in it is none, or its instances are in several groups.
    """
    if len(config.instance_group) > 1:
        raise InputError(f"{config.name} has {len(config.instance_group)} instance groups, and only one can be tuned")
    key = _THREADS.get(config.backend)
    text = config.parameters[key].string_value if key is not None and key in config.parameters else "0"
    if not text.isdecimal():
        raise InputError(f"The parameter {key} of {config.name} must be a whole number, got {text!r} instead")
    return Knobs(
        instances=max(config.instance_group[0].count, 1) if config.instance_group else 1,
        threads=int(text) if key is not None else None,
        max_batch=config.max_batch_size,
        delay_us=config.dynamic_batching.max_queue_delay_microseconds if config.HasField("dynamic_batching") else None,
        accelerator=_accelerator(config),
    )


def configured(config: ModelConfig, knobs: Knobs) -> ModelConfig:
    """A copy of a config with another choice in it; all else, a queue policy too, is as it was."""
    made = ModelConfig()
    made.CopyFrom(config)
    now = knobs_of(config)
    if knobs.instances != now.instances:
        group = made.instance_group[0] if made.instance_group else made.instance_group.add()
        group.count = knobs.instances
    if knobs.threads != now.threads:
        made.parameters[_THREADS[config.backend]].string_value = str(knobs.threads)
    made.max_batch_size = knobs.max_batch
    if knobs.delay_us is None:
        made.ClearField("dynamic_batching")
    elif knobs.delay_us != now.delay_us:
        made.dynamic_batching.SetInParent()
        made.dynamic_batching.max_queue_delay_microseconds = knobs.delay_us
    if knobs.delay_us is not None:
        # A preferred size above the largest is refused by Triton.
        sizes = [size for size in made.dynamic_batching.preferred_batch_size if size <= knobs.max_batch]
        made.dynamic_batching.ClearField("preferred_batch_size")
        made.dynamic_batching.preferred_batch_size.extend(sizes)
    if knobs.accelerator != now.accelerator:
        _accelerate(made, knobs.accelerator)
    return made


def simplicity(knobs: Knobs, current: Knobs) -> tuple[float, ...]:
    """What to choose by among equals: the least is the simplest.

    First fewer threads in all and fewer instances, because each takes memory and hides the next bottleneck; then the
    largest batch that clients may send stays as it is, because a smaller one refuses what was served; then no waiting;
    then what is there already.
    """
    threads = knobs.threads or 1
    return (
        float(_ACCELERATORS.index(knobs.accelerator) if knobs.accelerator in _ACCELERATORS else 0),
        float(knobs.instances * threads),
        float(knobs.instances),
        abs(math.log2(max(knobs.max_batch, 1) / max(current.max_batch, 1))),
        float(knobs.delay_us or 0),
        float(len(current.differences(knobs))),
    )


def _accelerator(config: ModelConfig) -> str:
    chosen = config.optimization.execution_accelerators.gpu_execution_accelerator
    if chosen:
        found = (chosen[0].name, chosen[0].parameters.get("precision_mode", "FP32") if chosen[0].name != "cuda" else "")
        return next((name for name, executor in _EXECUTORS.items() if executor == found), "")
    cpu = bool(config.instance_group) and config.instance_group[0].kind == ModelInstanceGroup.KIND_CPU
    return "cpu" if cpu else ""


def _accelerate(config: ModelConfig, accelerator: str) -> None:
    group = config.instance_group[0] if config.instance_group else config.instance_group.add(count=1)
    config.optimization.execution_accelerators.ClearField("gpu_execution_accelerator")
    if accelerator in ("", "cpu"):
        group.kind = ModelInstanceGroup.KIND_CPU if accelerator else ModelInstanceGroup.KIND_AUTO
        group.ClearField("gpus")
        return
    # KIND_AUTO: the same file runs on a machine without a GPU.
    group.kind = ModelInstanceGroup.KIND_AUTO
    name, precision = _EXECUTORS[accelerator]
    chosen = config.optimization.execution_accelerators.gpu_execution_accelerator
    first = chosen.add(name=name)
    if precision:
        first.parameters["precision_mode"] = precision
        # The first takes what it can, the next the rest.
        chosen.add(name="cuda")


def _powers(most: int) -> list[int]:
    """1, 2, 4, … and the last of them."""
    return sorted({2**power for power in range(most.bit_length()) if 2**power <= most} | {most})


def _nearest(values: Sequence[int], wanted: int) -> int:
    return min(values, key=lambda value: abs(value - wanted))


def _shown(value: object) -> object:
    return "off" if value is None else "as it is" if value == "" else value
