"""The V2 protocol over gRPC: requests as serialised messages, responses as answers. Pure.

A serialised protobuf message may be put together from pieces, each of them a serialised message with some of the
fields (https://protobuf.dev/programming-guides/encoding/#last-one-wins): what stays the same for a layout is serialised
once, and a tensor's bytes are copied once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import grpc
import numpy as np
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from . import _answers as answers
from ._deadline import Deadline
from ._encoding import NONSENSE, from_binary, from_json_list, wire_dtype
from ._endpoint import Endpoint
from ._errors import InputError, TritiumError
from ._options import Limits, Tls
from ._queries import Query
from ._request import KEPT_ANSWERS, InferAnswer, InferRequest, Layout, Parameter, queue_timeout_us
from ._tensors import Array
from ._trace import trace_context

Metadata: TypeAlias = tuple[tuple[str, str], ...]


class _Secret(tuple[tuple[str, str], ...]):
    """Headers of every call, whose values may be secrets: they are shown nowhere."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"_Secret({', '.join(name for name, _ in self)})"


# Under which a layout keeps what follows from it for gRPC: the same for every server.
_PROTOCOL = "grpc"
# Protobuf's own limit.
_MOST_BYTES = 2**31 - 1
# Field 7, raw_input_contents, whose length follows.
_RAW_INPUT = b"\x3a"
# Field 6 of an answer, raw_output_contents, likewise.
_RAW_OUTPUT = b"\x32"
# Where a server that takes no raw tensors puts values.
_CONTENTS: Mapping[str, str] = {
    "BOOL": "bool_contents",
    "BYTES": "bytes_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
}
# What gRPC says when there was no connection to send anything over, and when it broke; Triton's own words differ.
_NEVER_SENT = re.compile(
    r"failed to connect|connection refused|connect failed|name resolution|dns|no route|handshak|tls|ssl", re.IGNORECASE
)
_BROKEN = re.compile(
    r"connection reset|socket closed|broken pipe|goaway|recvmsg|sendmsg|rst_stream|stream removed|transport closed|"
    r"end of (file|tcp stream)|http1\.x|frame|connection (aborted|closed|dropped)|too_many_pings",
    re.IGNORECASE,
)
_BROKEN_IN_OTHER_WORDS = re.compile(
    r"(Received RST_STREAM|RST_STREAM|Stream removed|Stream refused|Trying to connect an http1\.x server|"
    r"Failed to parse header|Received http2 )",
    re.IGNORECASE,
)


class Calls(NamedTuple):
    """What a channel is called through: inference with serialised messages, all else as the generated stub has it."""

    infer: Any
    stream: Any
    stub: Any

    @classmethod
    def over(cls, channel: Any) -> Calls:
        """Those of a channel."""
        serialised = GRPCInferenceServiceStub(_Serialised(channel))
        return cls(serialised.ModelInfer, serialised.ModelStreamInfer, GRPCInferenceServiceStub(channel))


class _Serialised:
    """A channel for a generated stub whose requests are serialised already; so stay answers, but for a stream's."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def unary_unary(
        self, method: str, *, request_serializer: object, response_deserializer: object, **more: Any
    ) -> Any:
        """What makes a call, but for the serialisation."""
        del request_serializer, response_deserializer
        return self._channel.unary_unary(method, **more)

    def stream_stream(self, method: str, *, request_serializer: object, **more: Any) -> Any:
        """Likewise."""
        del request_serializer
        return self._channel.stream_stream(method, **more)


class _Form(NamedTuple):
    """What requests of a layout have in common: most of the message, and what comes before each tensor's bytes."""

    message: bytes
    begins: Sequence[bytes]


class _Cuts(NamedTuple):
    """How an answer is cut: all but its id and its tensors; and name, dtype, shape, start and end of each of those.

    Marks say where the second tensor begins and each one after it, and what stands there.
    """

    before_id: bytes
    after_id: bytes
    marks: tuple[tuple[int, bytes], ...]
    version: str
    shapes: dict[str, tuple[int, ...]]
    places: list[tuple[str, np.dtype[Any], tuple[int, ...], int, int]]


def channel_options(endpoint: Endpoint, limits: Limits) -> list[tuple[str, int]]:
    """What a channel is told."""
    options = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        # Tries are counted and paid for here, and by nobody else.
        ("grpc.enable_retries", 0),
        ("grpc.per_message_compression", 0),
        # Clients do not share connections, so that one that is closed or fails does nothing to another.
        ("grpc.use_local_subchannel_pool", 1),
        # A server that comes back is found soon; by default a channel would not even look for up to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        # What is called so is how long a connection may take to be made.
        ("grpc.min_reconnect_backoff_ms", round(limits.connect_timeout_s * 1000)),
        ("grpc.max_reconnect_backoff_ms", 2000),
    ]
    # gRPC would send even what is for this machine through the proxy that `http_proxy` names.
    return [*options, ("grpc.enable_http_proxy", 0)] if endpoint.local else options


def channel_credentials(tls: Tls) -> Any:
    """TLS as gRPC takes it."""
    return grpc.ssl_channel_credentials(*tls.pem())


def metadata(headers: Mapping[str, str]) -> Metadata:
    """Headers as gRPC takes them."""
    return _Secret((name.lower(), value) for name, value in headers.items())


def traced(fixed: Metadata) -> Metadata:
    """Headers of one request: those of every call, and the context of the trace that it is part of, if there is one."""
    context = trace_context()
    return _Secret((*fixed, *((name.lower(), value) for name, value in context.items()))) if context else fixed


def serialise(request: InferRequest, left_s: float) -> bytes:
    """A ModelInferRequest.

    Raises:
        InputError: it is larger than a protobuf message may be.
    """
    layout = request.layout
    form = layout.ready.get(_PROTOCOL)
    if form is None:
        form = layout.ready[_PROTOCOL] = _form(layout)
    if len(form.begins) == 1:
        return b"".join((form.message, _said(request, left_s), form.begins[0], request.data[0]))
    tensors = (part for tensor in zip(form.begins, request.data, strict=True) for part in tensor)
    return b"".join((form.message, _said(request, left_s), *tensors))


def answer(request: InferRequest, data: bytes, endpoint: Endpoint) -> InferAnswer:
    """What a serialised ModelInferResponse says.

    One that differs from another of the same layout in nothing but its id and its values is known already: its raw
    tensors lie at the same places, after all the rest.

    Raises:
        ProtocolError: it is no answer to this request.
    """
    request_id = request.request_id.encode()
    sizes = len(data), len(request_id)
    cuts = request.layout.answers.get(sizes)
    if (
        cuts is not None
        and data.startswith(b"%b%b%b" % (cuts.before_id, request_id, cuts.after_id))
        and (not cuts.marks or all(data.startswith(mark, place) for place, mark in cuts.marks))
    ):
        view = memoryview(data)
        # The message's own bytes may not be written to; an answer's arrays may.
        arrays: dict[str, Array | None] = {}
        for name, dtype, shape, start, end in cuts.places:
            arrays[name] = np.ndarray(shape, dtype, bytearray(view[start:end]))
        return InferAnswer(arrays, cuts.shapes, cuts.version, request.request_id)
    try:
        response = service_pb2.ModelInferResponse.FromString(data)
    except DecodeError as exc:
        raise answers.no_answer(endpoint, exc) from exc
    found = read(request, response, endpoint)
    if found.request_id and (len(request.layout.answers) < KEPT_ANSWERS or cuts is not None):
        _keep(request, sizes, data, response, found)
    return found


def _keep(request: InferRequest, sizes: tuple[int, int], data: bytes, response: Any, found: InferAnswer) -> None:
    """Remember where the tensors of an answer lie, if they all lie at its end and have fixed lengths."""
    raw, outputs = response.raw_output_contents, response.outputs
    if len(raw) != len(outputs) or any(out.datatype == "BYTES" or out.name in request.layout.placed for out in outputs):
        return
    places, marks, end = [], [], len(data)
    for output, values in zip(reversed(outputs), reversed(raw), strict=True):
        begin, mark = end - len(values), _RAW_OUTPUT + _varint(len(values))
        places.append((output.name, wire_dtype(output.datatype), tuple(output.shape), begin, end))
        end = begin - len(mark)
        marks.append((end, mark))
    if b"".join(_RAW_OUTPUT + _varint(len(values)) + values for values in raw) != data[end:]:
        return
    name = request.request_id.encode()
    field = b"\x1a" + _varint(len(name))  # the id's
    before, there, after = data[:end].partition(field + name)
    if there:
        after += marks.pop()[1] if marks else b""  # the first tensor's follows at once
        cuts = _Cuts(before + field, after, tuple(marks), found.version, found.shapes, places[::-1])
        request.layout.answers[sizes] = cuts


def read(request: InferRequest, response: Any, endpoint: Endpoint) -> InferAnswer:
    """What a ModelInferResponse says.

    Raises:
        ProtocolError: it is no answer to this request.
    """
    if response.id and response.id != request.request_id:
        raise answers.no_answer(endpoint, "it is the answer to another request")
    raw = response.raw_output_contents
    arrays: dict[str, Array | None] = {}
    shapes = {}
    try:
        for index, output in enumerate(response.outputs):
            shape = shapes[output.name] = tuple(output.shape)
            if output.name in request.layout.placed:
                arrays[output.name] = None
            elif index < len(raw):
                values: Array = np.frombuffer(bytearray(raw[index]), np.uint8)
                arrays[output.name] = from_binary(values, output.datatype, shape)
            else:
                listed = list(getattr(output.contents, _CONTENTS[output.datatype]))
                arrays[output.name] = from_json_list(listed, output.datatype, shape)
    except (*NONSENSE, MemoryError) as exc:
        raise answers.no_answer(endpoint, f"{type(exc).__name__}: {exc}") from exc
    return InferAnswer(arrays, shapes, response.model_version, response.id)


def message(query: Query) -> Any:
    """The message of a query."""
    return getattr(service_pb2, f"{query.rpc}Request")(**query.fields)


def result(query: Query, response: Any) -> Any:
    """The answer to a query, as HTTP gives it."""
    return query.from_rpc(MessageToDict(response, preserving_proto_field_name=True))


def stream_error(text: str, endpoint: Endpoint, model: str) -> TritiumError:
    """The error of a message within a stream, which comes without a status."""
    # Some of Triton's begin so.
    known = re.match(r"\[?(?:StatusCode\.)?([A-Z_]{5,})\]? ", text)
    return answers.server_error(text, known[1] if known else "INTERNAL", endpoint, model)


def failure(exc: grpc.RpcError, endpoint: Endpoint, model: str | None, deadline: Deadline) -> TritiumError:
    """The error that gRPC's own means."""
    status, text = exc.code().name, exc.details() or ""
    if status == "DEADLINE_EXCEEDED":
        return deadline.exceeded(endpoint)
    if status == "UNAVAILABLE" and _NEVER_SENT.search(text):
        return answers.no_server(endpoint, text, sent=False)
    # A model's own words come as INTERNAL or UNKNOWN too: there only gRPC's whole phrases count.
    broken = _BROKEN.search if status in ("UNAVAILABLE", "CANCELLED") else _BROKEN_IN_OTHER_WORDS.match
    if broken(text):
        return answers.no_server(endpoint, text, sent=True)
    if "deserializing" in text:
        return answers.no_answer(endpoint, text)
    if status == "RESOURCE_EXHAUSTED" and "message larger than max" in text:
        status = "INVALID_ARGUMENT"
    after = answers.retry_after_s(str(dict(exc.trailing_metadata() or ()).get("retry-after", "")))
    return answers.server_error(text, status, endpoint, model, retry_after_s=after)


def failed_no(query: Query, exc: grpc.RpcError) -> bool:
    """Whether an error is the answer no: a server may not know the model whose readiness is asked for."""
    if not query.yes_or_no or query.model is None:
        return False
    return exc.code().name == "NOT_FOUND" or (exc.code().name == "UNKNOWN" and "not found" in (exc.details() or ""))


def _said(request: InferRequest, left_s: float) -> bytes:
    """The fields that each request has of its own: id (3) and parameters (4)."""
    name = request.request_id.encode()
    if request.parameters or not request.queue_timeout or len(name) > 127:
        said = service_pb2.ModelInferRequest(id=request.request_id)
        for key, value in request.parameters_within(left_s).items():
            setattr(said.parameters[key], _parameter_field(value), value)
        serialised: bytes = said.SerializeToString()
        return serialised
    # The usual ones, written as protobuf would: they are short enough for lengths of one byte.
    timeout = _varint(queue_timeout_us(left_s))
    return b"\x1a%c%b\x22%c\x0a\x07timeout\x12%c\x10%b" % (
        len(name),
        name,
        len(timeout) + 12,  # the map's entry: its key, and its value, which is
        len(timeout) + 1,  # an InferParameter: its int64_param
        timeout,
    )


def _form(layout: Layout) -> _Form:
    if layout.sent_bytes > _MOST_BYTES:
        raise InputError(
            f"The inputs have {layout.sent_bytes} bytes; gRPC carries at most {_MOST_BYTES}: use HTTP, or fewer rows"
        )
    said = service_pb2.ModelInferRequest(model_name=layout.model, model_version=layout.version)
    for slot in layout.inputs:
        tensor = said.inputs.add(name=slot.name, datatype=slot.dtype, shape=slot.shape)
        if slot.place is not None:
            _set_place(tensor, slot.place)
    for output in layout.outputs:
        asked = said.outputs.add(name=output.name)
        if output.top_k:
            asked.parameters["classification"].int64_param = output.top_k
        if output.place is not None:
            _set_place(asked, output.place)
    begins = [_RAW_INPUT + _varint(slot.size_bytes) for slot in layout.inputs if slot.place is None]
    return _Form(said.SerializeToString(), begins)


def _set_place(tensor: Any, place: Sequence[Any]) -> None:
    region, offset, size = place
    tensor.parameters["shared_memory_region"].string_param = region
    tensor.parameters["shared_memory_byte_size"].int64_param = size
    if offset:
        tensor.parameters["shared_memory_offset"].int64_param = offset


def _parameter_field(value: Parameter) -> str:
    if isinstance(value, bool):
        return "bool_param"
    if isinstance(value, int):
        return "int64_param" if value < 2**63 else "uint64_param"
    return "double_param" if isinstance(value, float) else "string_param"


def _varint(number: int) -> bytes:
    """A length in protobuf's form: seven bits a byte, the lowest first, and the eighth set in all but the last."""
    if 1 << 21 <= number < 1 << 28:  # microseconds of 2 to 268 seconds, which go with every call
        spread = number & 0x7F | (number & 0x3F80) << 1 | (number & 0x1FC000) << 2 | (number & 0xFE00000) << 3
        return (spread | 0x808080).to_bytes(4, "little")
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)
