"""What a model to be asked is: its files, what it must answer by numpy's reckoning, and ways to ask it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from google.protobuf import text_format
from onnx import TensorProto, helper
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig

from .tensors import DTYPES, Array, Tensor

Arrays = dict[str, Array]
# Of so many rows, and of that length where an axis is open and nothing speaks against it.
Maker = Callable[[Random, int, int], Arrays]

# The delay is long enough for requests that are under way at the same time to travel together.
DYNAMIC_BATCHING = "dynamic_batching { max_queue_delay_microseconds: 3000 }"
_ELEMENTS = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT64": TensorProto.UINT64,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16,
    "BYTES": TensorProto.STRING,
}
_LENGTHS = (0, 1, 1, 1, 2, 2, 3, 4, 5, 8, 16, 17, 64, 300)
_STRINGS = (b"", b"a", b"\0", b"\xff\xfe", "größer".encode(), b"twelve bytes", b"x" * 63, b"y" * 200)


class UnknownAnswerError(Exception):
    """It is not for us to know what must be answered."""


@dataclass(frozen=True)
class Spec:
    """An input or an output of a model.

    Attributes:
        dims: without the batch axis; -1 is open, and none at all means a scalar for each row.
        optional: the model has a default.
        ranked: False if the model file leaves open how many axes there are.
    """

    name: str
    dtype: str
    dims: tuple[int, ...]
    optional: bool = False
    ranked: bool = True

    @property
    def sent(self) -> tuple[int, ...]:
        """The dims as a client has them: Triton has no scalars."""
        return self.dims or (1,)


@dataclass(frozen=True)
class Subject:
    """A model to be asked.

    Attributes:
        answer: what it answers; it raises where the model has to fail.
        fill: makes good inputs.
        twist: makes inputs that are well formed, and that the model may have to refuse itself.
        cost: how many elements these inputs make the model write; None: not more than they bring.
    """

    name: str
    file: bytes
    config: ModelConfig
    inputs: tuple[Spec, ...]
    outputs: tuple[Spec, ...]
    answer: Callable[[Arrays], Arrays]
    fill: Maker
    twist: Maker
    cost: Callable[[Arrays], int] | None

    @property
    def max_rows(self) -> int:
        """The most rows of a batch; 0 if there is no batch axis."""
        return int(self.config.max_batch_size)

    def tensors(self, arrays: Arrays) -> list[Tensor]:
        """The arrays as tensors."""
        dtypes = {spec.name: spec.dtype for spec in self.inputs}
        return [Tensor.of(name, dtypes[name], array) for name, array in arrays.items()]

    def arrays(self, tensors: Sequence[Tensor]) -> Arrays:
        """The tensors as arrays.

        Raises:
            ValueError: they are not what the model takes.
        """
        specs = {spec.name: spec for spec in self.inputs}
        # It counts rows in 32 bits.
        if self.max_rows and any(tensor.shape and tensor.shape[0] % 2**32 == 0 for tensor in tensors):
            raise UnknownAnswerError("Triton drops such a batch axis, or gives it the length that another input has")
        # To Triton's C API a name ends at the first zero byte.
        named = [(tensor.name.partition("\0")[0], tensor) for tensor in tensors]
        if unknown := {name for name, _ in named} - specs.keys():
            raise ValueError(f"unknown: {unknown}")
        arrays = {name: self._array(tensor, specs[name]) for name, tensor in named}
        if len(arrays) < len(tensors) or any(not spec.optional for spec in self.inputs if spec.name not in arrays):
            raise ValueError("an input twice, or none")
        if self.max_rows and len({array.shape[0] for array in arrays.values()}) > 1:
            raise ValueError("not the same number of rows")
        if self.max_rows and any(array.shape[0] > self.max_rows for array in arrays.values()):
            raise ValueError("too many rows")
        return arrays

    def expected(self, tensors: Sequence[Tensor], outputs: Sequence[str]) -> Arrays | None:
        """What must be answered to these inputs; None if it must be an error.

        Raises:
            UnknownAnswerError: nobody knows.
        """
        known = {spec.name for spec in self.outputs}
        if not known.issuperset(outputs):
            return None
        try:
            with np.errstate(all="ignore"):
                answer = self.answer(self.arrays(tensors))
        except (ValueError, IndexError):
            return None
        return {name: answer[name].reshape(answer[name].shape or (1,)) for name in outputs or known}

    def _array(self, tensor: Tensor, spec: Spec) -> Array:
        dims = ((-1,) if self.max_rows else ()) + spec.sent
        fits = len(dims) == len(tensor.shape) and all(
            want in (-1, have) for want, have in zip(dims, tensor.shape, strict=True)
        )
        if not fits or tensor.dtype != spec.dtype:
            raise ValueError(f"{tensor.name} is not what the model takes")
        return tensor.array()


def subject(
    name: str,
    nodes: Sequence[Any],
    inputs: Sequence[Spec],
    outputs: Sequence[Spec],
    answer: Callable[[Arrays], Arrays],
    *,
    max_rows: int = 0,
    config: str = "",
    arena: bool = False,
    initializers: Sequence[Any] = (),
    hidden: Sequence[tuple[Spec, Spec]] = (),
    fill: Maker | None = None,
    twist: Maker | None = None,
    cost: Callable[[Arrays], int] | None = None,
) -> Subject:
    """A subject with its files made.

    Args:
        nodes: the graph.
        max_rows: the most rows of a batch; 0 if there is no batch axis.
        config: more of the config, as text.
        arena: whether ONNX Runtime shares out memory itself. Without, every tensor is an allocation of its own, and
            a step beyond its end is seen.
        hidden: inputs and outputs that clients have nothing to do with.
        fill: by default random bytes, and the same length for every open axis.
        twist: by default random bytes, and now and then another length.
    """
    batch = ["batch"] if max_rows else []

    def value(spec: Spec) -> Any:
        dims = [*batch, *(dim if dim >= 0 else f"{spec.name}_{axis}" for axis, dim in enumerate(spec.dims))]
        return helper.make_tensor_value_info(spec.name, _ELEMENTS[spec.dtype], dims if spec.ranked else None)

    graph = helper.make_graph(
        list(nodes),
        name,
        [value(spec) for spec in [*inputs, *(pair[0] for pair in hidden)]],
        [value(spec) for spec in [*outputs, *(pair[1] for pair in hidden)]],
        list(initializers),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    made = ModelConfig(name=name, backend="onnxruntime", max_batch_size=max_rows)
    for spec, tensor in [(spec, made.input.add(optional=spec.optional)) for spec in inputs] + [
        (spec, made.output.add()) for spec in outputs
    ]:
        tensor.name = spec.name
        tensor.data_type = DataType.Value("TYPE_STRING" if spec.dtype == "BYTES" else f"TYPE_{spec.dtype}")
        tensor.dims.extend(spec.sent)
        if not spec.dims:
            tensor.reshape.SetInParent()
    made.parameters["intra_op_thread_count"].string_value = "1"
    made.parameters["enable_mem_arena"].string_value = str(arena).lower()
    text_format.Merge(config or (DYNAMIC_BATCHING if max_rows else ""), made)
    if not made.instance_group:
        made.instance_group.add(count=1, kind="KIND_CPU")
    return Subject(
        name=name,
        file=model.SerializeToString(),
        config=made,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        answer=answer,
        fill=fill or _filler(inputs, batched=max_rows > 0, others=0.0),
        twist=twist or _filler(inputs, batched=max_rows > 0, others=0.3),
        cost=cost,
    )


def length(rng: Random) -> int:
    """The length of an open axis. A few are so large that a request reaches the server in pieces."""
    return 3000 if rng.random() < 0.01 else rng.choice(_LENGTHS)


def random_array(rng: Random, dtype: str, shape: Sequence[int]) -> Array:
    """Any bytes, as an array."""
    count = int(np.prod(shape, dtype=np.int64))
    if dtype == "BYTES":
        array = np.empty(count, object)
        array[:] = rng.choices(_STRINGS, k=count)
        return array.reshape(shape)
    if dtype == "BOOL":
        return np.frombuffer(rng.randbytes(count), np.uint8).reshape(shape) > 127
    kind = np.dtype(DTYPES[dtype])
    return np.frombuffer(rng.randbytes(count * kind.itemsize), kind).reshape(shape)


def _filler(specs: Sequence[Spec], *, batched: bool, others: float) -> Maker:
    def fill(rng: Random, rows: int, width: int) -> Arrays:
        arrays = {}
        for spec in specs:
            if spec.optional and rng.random() < 0.5:
                continue
            one = length(rng) if rng.random() < others else width
            dims = [one if dim == -1 else dim for dim in spec.sent]
            arrays[spec.name] = random_array(rng, spec.dtype, [rows, *dims] if batched else dims)
        return arrays

    return fill
