"""Messages that do not fit together."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from tritonclient.grpc.service_pb2 import ModelInferRequest

from .request import Lie
from .wire import SHELF_BYTES, Body, Message

_ODD_VALUES: tuple[Any, ...] = (None, -1, 1.5, "8", "", [], [[1]], {}, True, 2**63, 2**64, 10**30)


def flip(rng: Random, data: bytearray) -> None:
    """Change a few bits."""
    for _ in range(rng.choice((1, 1, 2, 8))):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _head_length(rng: Random, body: Body) -> None:
    body.said_head_bytes += rng.choice((-50, -2, -1, 1, 2, 50, 10**6))


def _cut(rng: Random, body: Body) -> None:
    whole = body.head + body.tail
    whole = whole[: rng.randrange(len(whole))]
    body.head, body.tail = whole[: body.said_head_bytes], whole[body.said_head_bytes :]


def _more(rng: Random, body: Body) -> None:
    body.tail += rng.randbytes(rng.choice((1, 4, 100)))


def _hang_up(rng: Random, body: Body) -> None:
    # Not over gRPC: Triton 2.51 itself can die of a call that is cancelled, whatever the backend.
    body.hang_up = True
    body.unsent_bytes = rng.choice((0, 0, 1, 1000))


def _odd_size(rng: Random, body: Body) -> None:
    head = json.loads(body.head)
    said = rng.choice(head["inputs"])["parameters"] if head["inputs"] else head
    size = len(body.tail)
    said["binary_data_size"] = rng.choice((*_ODD_VALUES, size + 1, size + 100, 2**31, 2**62))
    _write(body, head)


def _odd_value(rng: Random, body: Body) -> None:
    head = json.loads(body.head)
    tensor = rng.choice(head["inputs"]) if head["inputs"] else head
    tensor[rng.choice(("name", "datatype", "shape", "parameters"))] = rng.choice(_ODD_VALUES)
    _write(body, head)


def _odd_inputs(rng: Random, body: Body) -> None:
    head = json.loads(body.head)
    head["inputs"] = rng.choice((*_ODD_VALUES, [7], [[]], [None], [{}]))
    _write(body, head)


def _odd_data(rng: Random, body: Body) -> None:
    """Values in the JSON, where Triton would look for bytes."""
    head = json.loads(body.head)
    for tensor in head["inputs"]:
        tensor["parameters"] = {}
        tensor["data"] = rng.choice(([], [1], [[1, 2], 3], ["x"], [1e400], [None], "x", 7, [True] * 6, [-(2**70)]))
    body.tail = b""
    _write(body, head)


def _flipped_head(rng: Random, body: Body) -> None:
    head = bytearray(body.head)
    flip(rng, head)
    body.head = bytes(head)


def _write(body: Body, head: dict[str, Any]) -> None:
    body.head = json.dumps(head).replace("Infinity", "1e400").encode()
    body.said_head_bytes = len(body.head)


def _one_piece_less(rng: Random, said: ModelInferRequest) -> None:
    del said.raw_input_contents[-1:]


def _one_piece_more(rng: Random, said: ModelInferRequest) -> None:
    said.raw_input_contents.append(rng.randbytes(rng.choice((0, 1, 8))))


def _both_contents(rng: Random, said: ModelInferRequest) -> None:
    for tensor in said.inputs:
        tensor.contents.fp32_contents.append(1)


def _odd_contents(rng: Random, said: ModelInferRequest) -> None:
    """Values in a field of their own, of a type and a number that are not right."""
    del said.raw_input_contents[:]
    for tensor in said.inputs:
        field = rng.choice(("bool", "int", "int64", "uint", "uint64", "fp32", "fp64", "bytes"))
        value: object = rng.randbytes(5) if field == "bytes" else 1
        getattr(tensor.contents, f"{field}_contents").extend([value] * rng.choice((0, 1, 2, 7)))


def _odd_parameter(rng: Random, said: ModelInferRequest) -> None:
    for tensor in [*said.inputs, *said.outputs]:
        # Not "classification": Triton 2.51 itself divides by zero where an output is empty.
        name = rng.choice(("shared_memory_region", "shared_memory_byte_size", "binary_data", "anything"))
        tensor.parameters[name].int64_param = rng.choice((-1, 0, 2, 2**62))


def _flipped_message(rng: Random, message: bytearray) -> None:
    flip(rng, message)


def _cut_message(rng: Random, message: bytearray) -> None:
    del message[rng.randrange(len(message)) :]


def _unknown_region(rng: Random, message: Message) -> None:
    for said in message.head["inputs"]:
        said["parameters"] = {"shared_memory_region": rng.choice(("none", "", "fuzz2", "x" * 5000))}
        said["parameters"] |= {"shared_memory_offset": 0, "shared_memory_byte_size": 8}
    message.pieces = []


def _beyond_region(rng: Random, message: Message) -> None:
    for said in message.head["inputs"]:
        where, size = rng.choice(((2**40, 8), (0, 2**40), (SHELF_BYTES * 1000, 1), (2**63 - 8, 8), (1, 2**63 - 1)))
        said["parameters"] = {"shared_memory_region": "fuzz"}
        said["parameters"] |= {"shared_memory_offset": where, "shared_memory_byte_size": size}
    message.pieces = []


def _small_room(rng: Random, message: Message) -> None:
    """Less room for an output than it takes."""
    for said in message.head.get("outputs", ()):
        if size := said["parameters"].get("shared_memory_byte_size"):
            said["parameters"]["shared_memory_byte_size"] = rng.randrange(size)


HTTP_LIES = (
    Lie(Body, _head_length),
    Lie(Body, _cut),
    Lie(Body, _more),
    Lie(Body, _hang_up, fails=False),
    Lie(Body, _odd_size),
    Lie(Body, _odd_value, fails=False),
    Lie(Body, _odd_inputs),
    Lie(Body, _odd_data, fails=False),
    Lie(Body, _flipped_head, fails=False),
)
GRPC_LIES = (
    Lie(ModelInferRequest, _one_piece_less),
    Lie(ModelInferRequest, _one_piece_more, fails=False),
    Lie(ModelInferRequest, _both_contents),
    Lie(ModelInferRequest, _odd_contents, fails=False),
    Lie(ModelInferRequest, _odd_parameter, fails=False),
    Lie(bytearray, _flipped_message, fails=False),
    Lie(bytearray, _cut_message, fails=False),
)
SHARED_LIES = (
    Lie(Message, _unknown_region),
    Lie(Message, _beyond_region),
    Lie(Message, _small_room, fails=False),
)
