"""Requests as bytes, sent without a client library that would hold back what is wrong with them."""

from __future__ import annotations

import http.client
import json
import mmap
import re
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import numpy as np
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse

from .request import FuzzError, Request
from .tensors import DTYPES, Tensor

# No answer within this time is a hang.
PATIENCE_S = 60.0
REGION = "fuzz"
SHELF_BYTES = 1 << 16
_INFER = "/inference.GRPCInferenceService/ModelInfer"
# Triton calls some refusals unavailable too.
_GONE = re.compile("Socket closed|failed to connect|Connection re(set|fused)")
_HEAD_BYTES = "Inference-Header-Content-Length"


class Shelf:
    """A part of the shared memory that belongs to one request at a time."""

    def __init__(self, memory: mmap.mmap, start: int) -> None:
        self._memory = memory
        self._start = start
        self._at = 0

    def clear(self) -> None:
        """Begin anew."""
        self._at = 0

    def place(self, size: int) -> int | None:
        """Where so many bytes may lie, aligned or not; None if there is no room, or none is needed."""
        offset, self._at = self._start + self._at, self._at + size + 1
        # Triton has no place for nothing.
        return offset if size and self._at <= SHELF_BYTES else None

    def put(self, data: bytes) -> int | None:
        """Where these bytes lie now; None as above."""
        offset = self.place(len(data))
        if offset is not None:
            self._memory[offset : offset + len(data)] = data
        return offset

    def tear(self) -> None:
        """Turn over the highest byte of the length that a string at the beginning would have."""
        self._memory[self._start + 3] ^= 0xFF

    def read(self, offset: int, size: int) -> bytes:
        """What the server has written."""
        return self._memory[offset : offset + size]


@dataclass
class Message:
    """A request in the words of the V2 protocol, and the bytes of the inputs that travel with it."""

    head: dict[str, Any]
    pieces: list[bytes]


@dataclass
class Body:
    """The message as HTTP has it.

    Attributes:
        head: JSON.
        tail: the bytes of the inputs.
        said_head_bytes: how long the JSON is said to be.
        unsent_bytes: how much more than what is sent is announced.
        hang_up: the client does not wait for the answer.
    """

    head: bytes
    tail: bytes
    said_head_bytes: int
    unsent_bytes: int = 0
    hang_up: bool = False


class Worker(Protocol):
    """Sends requests over one protocol."""

    def ask(self, request: Request, shelf: Shelf) -> list[Tensor] | str:
        """The answer, or the text of the error. What is to lie in shared memory lies on the shelf.

        Raises:
            FuzzError: there was no answer, or one that cannot be read.
        """


class HttpWorker:
    """Sends requests over one connection, made anew when the server has had enough of it."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def ask(self, request: Request, shelf: Shelf) -> list[Tensor] | str:
        """As `Worker`."""
        message = _message(request, shelf)
        body = _body(request, message)
        path = f"/v2/models/{request.subject.name}/infer"
        headers = {
            _HEAD_BYTES: str(body.said_head_bytes),
            "Content-Length": str(len(body.head) + len(body.tail) + body.unsent_bytes),
        }
        try:
            self._connection.request("POST", path, body.head + body.tail, headers)
            if body.hang_up:
                self._connection.close()
                return "hung up"
            response = self._connection.getresponse()
            content = response.read()
        except TimeoutError as exc:
            raise FuzzError(f"{request} hangs") from exc
        except (OSError, http.client.HTTPException) as exc:
            self._connection.close()
            if request.lie is None:
                raise FuzzError(f"{request} got no answer: {exc!r}") from exc
            return f"the connection is closed: {exc!r}"
        try:
            if response.status != 200:
                return str(json.loads(content.decode(errors="replace"))["error"])
            head_bytes = int(response.headers.get(_HEAD_BYTES, len(content)))
            head = json.loads(content[:head_bytes])
        except (ValueError, KeyError, TypeError) as exc:
            raise FuzzError(f"{request} got what is no answer: {response.status} {content[:500]!r}") from exc
        return _read(request, message, head["outputs"], content[head_bytes:], shelf)


class GrpcWorker:
    """Sends requests over one channel."""

    def __init__(self, channel: grpc.Channel) -> None:
        # The bytes are ours, so that they need not be a message.
        self._infer = channel.unary_unary(_INFER, response_deserializer=ModelInferResponse.FromString)

    def ask(self, request: Request, shelf: Shelf) -> list[Tensor] | str:
        """As `Worker`."""
        message = _message(request, shelf)
        try:
            answer = self._infer(_serialized(request, message), timeout=PATIENCE_S)
        except grpc.RpcError as exc:
            if exc.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise FuzzError(f"{request} hangs") from exc
            if exc.code() == grpc.StatusCode.UNAVAILABLE and _GONE.search(str(exc.details())):
                raise FuzzError(f"{request} got no answer: {exc.details()}") from exc
            return str(exc.details())
        outputs = [
            {
                "name": output.name,
                "datatype": output.datatype,
                "shape": list(output.shape),
                "parameters": {"binary_data_size": len(raw)},
            }
            for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
        ]
        return _read(request, message, outputs, b"".join(answer.raw_output_contents), shelf)


def _message(request: Request, shelf: Shelf) -> Message:
    shelf.clear()
    message = Message({"parameters": dict(request.parameters), "inputs": []}, [])
    for tensor in request.inputs:
        offset = shelf.put(tensor.data) if request.shared else None
        if offset is None:
            message.pieces.append(tensor.data)
        message.head["inputs"].append(
            {
                "name": tensor.name,
                "datatype": tensor.dtype,
                "shape": tensor.shape,
                "parameters": _in_shared(offset, len(tensor.data)),
            }
        )
    if request.outputs:
        message.head["outputs"] = [
            {"name": name, "parameters": _room(request, name, shelf)} for name in request.outputs
        ]
    request.lie_about(message)
    return message


def _room(request: Request, name: str, shelf: Shelf) -> dict[str, Any]:
    """Room for an output in shared memory, if its size is known; else it comes with the answer."""
    right = (request.expected or {}).get(name)
    if not request.shared or right is None or right.dtype == object:
        return {}
    return _in_shared(shelf.place(right.nbytes), right.nbytes)


def _in_shared(offset: int | None, size: int) -> dict[str, Any]:
    if offset is None:
        return {}
    return {
        "shared_memory_region": REGION,
        "shared_memory_offset": offset,
        "shared_memory_byte_size": size,
    }


def _body(request: Request, message: Message) -> Body:
    head = {**message.head, "parameters": {"binary_data_output": True, **message.head["parameters"]}}
    pieces = iter(message.pieces)
    head["inputs"] = [
        said if said["parameters"] else {**said, "parameters": {"binary_data_size": len(next(pieces))}}
        for said in head["inputs"]
    ]
    if "outputs" in head:
        head["outputs"] = [
            {**said, "parameters": said["parameters"] or {"binary_data": True}} for said in head["outputs"]
        ]
    text = json.dumps(head).encode()
    body = Body(text, b"".join(message.pieces), len(text))
    request.lie_about(body)
    return body


def _serialized(request: Request, message: Message) -> bytes:
    said = ModelInferRequest(model_name=request.subject.name, raw_input_contents=message.pieces)
    _set_parameters(said, message.head["parameters"])
    for tensors, heads in ((said.inputs, message.head["inputs"]), (said.outputs, message.head.get("outputs", ()))):
        for head in heads:
            tensor = tensors.add(name=head["name"])
            if "shape" in head:
                tensor.datatype = head["datatype"]
                tensor.shape.extend(head["shape"])
            _set_parameters(tensor, head["parameters"])
    request.lie_about(said)
    serialized = bytearray(said.SerializeToString())
    request.lie_about(serialized)
    return bytes(serialized)


def _set_parameters(target: Any, parameters: dict[str, Any]) -> None:
    for name, value in parameters.items():
        kind = {bool: "bool_param", str: "string_param", int: "int64_param"}[type(value)]
        setattr(target.parameters[name], "uint64_param" if value == 2**64 - 1 else kind, value)


def _read(request: Request, message: Message, heads: list[dict[str, Any]], tail: bytes, shelf: Shelf) -> list[Tensor]:
    """The outputs, wherever they lie.

    Raises:
        FuzzError: the answer does not fit together.
    """
    rooms = {said["name"]: said["parameters"] for said in message.head.get("outputs", ()) if said["parameters"]}
    tensors = []
    for head in heads:
        name, dtype, shape = head["name"], head["datatype"], head["shape"]
        if room := rooms.get(name):
            size = int(np.prod(shape)) * np.dtype(DTYPES[dtype]).itemsize
            data = shelf.read(room["shared_memory_offset"], size)
        else:
            size = head.get("parameters", {}).get("binary_data_size", 0 if request.free else -1)
            if not 0 <= size <= len(tail):
                raise FuzzError(f"{request} got an answer that does not fit together: {heads}")
            data, tail = tail[:size], tail[size:]
        tensors.append(Tensor(name, dtype, shape, data))
    if tail and not request.free:
        raise FuzzError(f"{request} got {len(tail)} bytes more than its answer takes")
    return tensors
