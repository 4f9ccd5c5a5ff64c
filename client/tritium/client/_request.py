"""One inference between the caller's arrays and the wire. Pure: nothing here does I/O.

What does not change from call to call with inputs of the same shapes is a `Layout`: it is made once, and both protocols
keep their ready-made bytes in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote

from ._encoding import Data, to_json_list
from ._reading import Reading
from ._tensors import Array, TensorSpec

Parameter: TypeAlias = bool | int | float | str
# Ways to take an answer apart that a layout keeps.
KEPT_ANSWERS = 64
NO_PARAMETERS: Mapping[str, Parameter] = {}


class Place(NamedTuple):
    """Where a tensor lies in shared memory that the server knows."""

    region: str
    offset: int
    size_bytes: int


class InputSlot(NamedTuple):
    """An input without its values."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int
    place: Place | None


class OutputSlot(NamedTuple):
    """An output that is asked for: all of it, its `top_k` classes, or at a place in shared memory."""

    name: str
    top_k: int = 0
    place: Place | None = None


class Layout:
    """All of a request but its values, its id and its parameters.

    Attributes:
        model: the model's name.
        version: the version that is asked for; empty if the server chooses.
        inputs: those that are sent.
        outputs: those that are asked for; empty for all.
        placed: the names of those that go to shared memory.
        sent_bytes: how many bytes of tensors are sent.
        ready: this part of a request in the form that a protocol sends, by whom it is kept for.
        answers: how answers are taken apart, by what the protocol tells them from others of this layout by.
    """

    __slots__ = ("answers", "inputs", "model", "outputs", "placed", "ready", "sent_bytes", "version")

    def __init__(
        self, model: str, version: str, inputs: tuple[InputSlot, ...], outputs: tuple[OutputSlot, ...]
    ) -> None:
        self.model = model
        self.version = version
        self.inputs = inputs
        self.outputs = outputs
        self.placed = frozenset(slot.name for slot in outputs if slot.place is not None)
        self.sent_bytes = sum(slot.size_bytes for slot in inputs)
        self.ready: dict[Any, Any] = {}
        self.answers: dict[Any, Any] = {}

    @property
    def path(self) -> str:
        """Where HTTP takes it, after the server's own path."""
        return f"{model_path(self.model, self.version)}/infer"

    def binary_json(self) -> str:
        """The JSON header without id and parameters and its opening brace, for tensors that follow in binary form."""
        inputs = [
            {
                "name": slot.name,
                "shape": slot.shape,
                "datatype": slot.dtype,
                "parameters": _placed(slot.place) if slot.place else {"binary_data_size": slot.size_bytes},
            }
            for slot in self.inputs
        ]
        return self._json_tail(inputs, binary=True)

    def plain_json(self, arrays: Sequence[Array]) -> str:
        """The same with the values in it, for servers that take no binary tensors."""
        inputs = []
        for slot, array in zip(self.inputs, arrays, strict=True):
            values = to_json_list(array, TensorSpec(slot.name, slot.dtype, slot.shape))
            inputs.append({"name": slot.name, "shape": slot.shape, "datatype": slot.dtype, "data": values})
        return self._json_tail(inputs, binary=False)

    def _json_tail(self, inputs: Sequence[Mapping[str, Any]], *, binary: bool) -> str:
        parts: dict[str, Any] = {"inputs": inputs}
        if self.outputs:
            parts["outputs"] = [
                {"name": slot.name, "parameters": _output_parameters(slot, binary)} for slot in self.outputs
            ]
        return json.dumps(parts, separators=(",", ":"), ensure_ascii=False)[1:]


@dataclass(slots=True)
class InferRequest:
    """One inference, ready to be sent.

    Attributes:
        reading: how its answer is read.
        arrays: the values of the inputs, in the layout's order; those that lie in shared memory among them.
        data: the bytes of those that are sent, in the same order; empty where the server takes no binary tensors.
        request_id: shown in the server's log and trace, and echoed in its answer.
        parameters: of the whole request: a priority, a sequence.
        binary: whether the server takes binary tensors over HTTP.
        queue_timeout: whether the server understands how long the request may wait in its queue.
        repeatable: whether running it twice does no harm.
        operation: what those who watch are told.
    """

    layout: Layout
    reading: Reading
    arrays: Sequence[Array]
    data: list[Data]
    request_id: str
    parameters: Mapping[str, Parameter]
    binary: bool
    queue_timeout: bool
    repeatable: bool
    operation: str = "infer"

    @property
    def model(self) -> str:
        """The model's name."""
        return self.layout.model

    @property
    def version(self) -> str:
        """The version that is asked for; empty if the server chooses."""
        return self.layout.version

    def again(self, request_id: str) -> InferRequest:
        """The same request once more, as another one: it shares all but the id."""
        return InferRequest(
            self.layout,
            self.reading,
            self.arrays,
            self.data,
            request_id,
            self.parameters,
            self.binary,
            self.queue_timeout,
            self.repeatable,
            self.operation,
        )

    def parameters_within(self, left_s: float) -> dict[str, Parameter]:
        """The request's parameters, with what is left of its time as the limit for the server's queue."""
        parameters = dict(self.parameters)
        if self.queue_timeout:
            parameters.setdefault("timeout", queue_timeout_us(left_s))
        return parameters


@dataclass(slots=True)
class InferAnswer:
    """What a server made of a request.

    Attributes:
        arrays: by output name; object arrays of ``bytes`` for strings. None where the output went to shared memory.
        shapes: by output name, as the server says.
        version: the version that ran; empty if the server does not say.
        request_id: the id of the request that it answers; empty if the server does not say.
    """

    arrays: dict[str, Array | None]
    shapes: dict[str, tuple[int, ...]]
    version: str = ""
    request_id: str = ""


def queue_timeout_us(left_s: float) -> int:
    """What is left of a call's time, as Triton takes it. 0 would mean no limit."""
    return max(1, int(left_s * 1e6))


def model_path(model: str, version: str = "") -> str:
    """The path of a model, or of a version of it."""
    path = f"/v2/models/{quote(model, safe='')}"
    return f"{path}/versions/{version}" if version else path


def _placed(place: Place) -> dict[str, Any]:
    where: dict[str, Any] = {"shared_memory_region": place.region, "shared_memory_byte_size": place.size_bytes}
    # An offset of 0 is left out: that is what servers take it for.
    return where | {"shared_memory_offset": place.offset} if place.offset else where


def _output_parameters(slot: OutputSlot, binary: bool) -> dict[str, Any]:
    if slot.place is not None:
        return _placed(slot.place)
    parameters: dict[str, Any] = {"binary_data": binary}
    return parameters | {"classification": slot.top_k} if slot.top_k else parameters
