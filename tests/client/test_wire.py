"""What is sent says what was meant to the readers of others, and what is received is read right or refused."""

from __future__ import annotations

import http.client
import io
import json
import math
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from tritium.client import InputError, ProtocolError, numpy_dtype
from tritium.client import _grpc_wire as grpc_wire
from tritium.client._http_reader import ResponseReader
from tritium.client._http_wire import HttpWire
from tritium.client._request import InferAnswer, InferRequest, InputSlot, Layout, OutputSlot, Place

from .messages import GRPC, HTTP, received, request

SETTINGS = settings(deadline=None, derandomize=True, database=None, max_examples=300)
TEXT = st.text(max_size=20)
IDS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=256)
SIZES = st.sampled_from([0, 1, 4, 127, 128, 129, 16_383, 16_384, 70_000])
PLACES = st.builds(Place, st.text(min_size=1, max_size=9), st.integers(0, 2**40), st.integers(1, 2**40))
OUTPUTS = st.builds(OutputSlot, TEXT, st.integers(0, 5), st.one_of(st.none(), PLACES))
PARAMETERS = st.dictionaries(
    TEXT,
    st.one_of(
        st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), st.text()
    ),
    max_size=3,
)


@st.composite
def inputs(draw: st.DrawFn) -> tuple[InputSlot, bytes | None]:
    """An input with its bytes; None for those if it lies in shared memory."""
    place, size = draw(st.one_of(st.none(), PLACES)), draw(SIZES)
    shape = tuple(draw(st.lists(st.integers(0, 2**40), max_size=4)))
    dtype = draw(st.sampled_from(["FP32", "BYTES", "BOOL", "BF16"]))
    slot = InputSlot(draw(TEXT), dtype, shape, 0 if place else size, place)
    return slot, None if place else b"\n\x1a" * (size // 2) + b"\0" * (size % 2)


@st.composite
def requests(draw: st.DrawFn) -> InferRequest:
    given_inputs = draw(st.lists(inputs(), max_size=3))
    layout = Layout(
        draw(TEXT),
        draw(st.sampled_from(["", "1", "latest"])),
        tuple(slot for slot, _ in given_inputs),
        tuple(draw(st.lists(OUTPUTS, max_size=3))),
    )
    data = [data for _, data in given_inputs if data is not None]
    request_id, parameters = draw(IDS), draw(st.one_of(st.just({}), PARAMETERS))
    return request(layout, data, request_id, parameters, queue_timeout=draw(st.booleans()))


def _meant(wanted: InferRequest, left_s: float) -> dict[str, Any]:
    """The parameters that the server is to see."""
    timeout = {"timeout": max(1, int(left_s * 1e6))} if wanted.queue_timeout else {}
    return timeout | dict(wanted.parameters)


def _meant_place(place: Place | None) -> dict[str, Any]:
    if place is None:
        return {}
    offset = {"shared_memory_offset": place.offset} if place.offset else {}
    return {"shared_memory_region": place.region, "shared_memory_byte_size": place.size_bytes} | offset


LEFT_S = st.one_of(st.floats(1e-9, 1e9), st.sampled_from([1e-7, 1e-6, 0.000127, 0.000128, 30.0]))


# over gRPC


def _plain(parameters: Any) -> dict[str, Any]:
    """Protobuf's parameters as a dict; that a number was sent as one of another kind does not go unseen."""
    plain = {}
    for name, value in parameters.items():
        field = value.WhichOneof("parameter_choice")
        plain[name] = getattr(value, field)
        kinds = {"bool_param": bool, "int64_param": int, "double_param": float, "string_param": str}
        assert type(plain[name]) is kinds[field]
    return plain


@given(wanted=requests(), left_s=LEFT_S)
@SETTINGS
def test_a_message_made_of_pieces_says_what_was_meant(wanted: InferRequest, left_s: float) -> None:
    for _ in range(2):  # the second time with what was kept of the first
        said = service_pb2.ModelInferRequest.FromString(grpc_wire.serialise(wanted, left_s))
        layout = wanted.layout
        assert (said.model_name, said.model_version, said.id) == (layout.model, layout.version, wanted.request_id)
        assert _plain(said.parameters) == _meant(wanted, left_s)
        assert [(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in said.inputs] == [
            (slot.name, slot.dtype, slot.shape) for slot in layout.inputs
        ]
        assert [_plain(tensor.parameters) for tensor in said.inputs] == [
            _meant_place(slot.place) for slot in layout.inputs
        ]
        assert [(tensor.name, _plain(tensor.parameters)) for tensor in said.outputs] == [
            (slot.name, _meant_place(slot.place) | ({"classification": slot.top_k} if slot.top_k else {}))
            for slot in layout.outputs
        ]
        assert list(said.raw_input_contents) == wanted.data


def test_more_than_protobuf_carries_is_refused() -> None:
    layout = Layout("m", "", (InputSlot("x", "UINT8", (2**31,), 2**31, None),), ())
    with pytest.raises(InputError, match="gRPC carries at most 2147483647"):
        grpc_wire.serialise(request(layout), 1.0)


# over HTTP


@given(wanted=requests(), left_s=LEFT_S, headers=st.dictionaries(st.sampled_from(["A", "Authorization"]), st.just("s")))
@SETTINGS
def test_a_http_message_says_what_was_meant(wanted: InferRequest, left_s: float, headers: dict[str, str]) -> None:
    sent = HttpWire(HTTP, headers).inference(wanted, left_s)
    head, _, body = b"".join(sent).partition(b"\r\n\r\n")
    line, _, fields = head.partition(b"\r\n")
    method, path, version = line.decode().split(" ")
    said = http.client.parse_headers(io.BytesIO(fields + b"\r\n\r\n"))
    assert (method, version) == ("POST", "HTTP/1.1")
    assert path == f"/prefix{wanted.layout.path}"
    assert (said["Host"], int(said["Content-Length"])) == ("server:8000", len(body))
    assert {name: said[name] for name in headers} == headers
    ascii_id = wanted.request_id if wanted.request_id.isascii() else None
    assert said.get_all("X-Request-ID") == (None if ascii_id is None else [ascii_id])
    expected = 4 + len(headers) + (ascii_id is not None)
    assert len(said) == expected
    length = int(said["Inference-Header-Content-Length"])
    assert body[length:] == b"".join(map(bytes, wanted.data))
    _assert_header(wanted, left_s, json.loads(body[:length]))


def _assert_header(wanted: InferRequest, left_s: float, header: dict[str, Any]) -> None:
    layout = wanted.layout
    assert header["id"] == wanted.request_id
    assert header["parameters"] == _meant(wanted, left_s) | {"binary_data_output": True}
    assert header["inputs"] == [
        {
            "name": slot.name,
            "datatype": slot.dtype,
            "shape": list(slot.shape),
            "parameters": _meant_place(slot.place) or {"binary_data_size": slot.size_bytes},
        }
        for slot in layout.inputs
    ]
    assert header.get("outputs", []) == [
        {
            "name": slot.name,
            "parameters": _meant_place(slot.place)
            or {"binary_data": True} | ({"classification": slot.top_k} if slot.top_k else {}),
        }
        for slot in layout.outputs
    ]


@given(name=st.text(min_size=1, max_size=30), version=st.sampled_from(["", "3"]))
@SETTINGS
def test_a_name_is_one_part_of_the_path(name: str, version: str) -> None:
    parts = Layout(name, version, (), ()).path.split("/")
    assert parts == ["", "v2", "models", parts[3], *(["versions", version] if version else []), "infer"]
    assert unquote(parts[3]) == name


# answers

SHAPES = st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple)
DTYPES = st.sampled_from(["FP32", "INT64", "BOOL", "BF16", "UINT8", "FP64"])


@st.composite
def tensors(draw: st.DrawFn, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    size = math.prod(shape) * numpy_dtype(dtype).itemsize
    data = draw(st.binary(min_size=size, max_size=size))
    return np.frombuffer(bytes(byte % 2 for byte in data) if dtype == "BOOL" else data, numpy_dtype(dtype)).reshape(
        shape
    )


@st.composite
def conversations(draw: st.DrawFn) -> list[tuple[str, dict[str, tuple[str, NDArray[Any]]]]]:
    """Ids and outputs of several requests of one layout: names and dtypes stay, shapes may change."""
    declared = draw(st.dictionaries(st.sampled_from(["y", "id", "z"]), DTYPES, min_size=1, max_size=3))
    kept = {name: draw(SHAPES) for name in declared}
    talk = []
    for _ in range(draw(st.integers(1, 5))):
        shapes = kept if draw(st.booleans()) else {name: draw(SHAPES) for name in declared}
        outputs = {name: (dtype, draw(tensors(dtype, shapes[name]))) for name, dtype in declared.items()}
        talk.append((draw(st.one_of(IDS, st.sampled_from(["1", "y", "id", "FP32"]))), outputs))
    return talk


def _http_answer(request_id: str, outputs: dict[str, tuple[str, NDArray[Any]]]) -> ResponseReader:
    """As Triton writes it."""
    header = {
        "id": request_id,
        "model_name": "m",
        "model_version": "1",
        "outputs": [
            {
                "name": name,
                "datatype": dtype,
                "shape": list(array.shape),
                "parameters": {"binary_data_size": array.nbytes},
            }
            for name, (dtype, array) in outputs.items()
        ],
    }
    said = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return received(said + b"".join(array.tobytes() for _, array in outputs.values()), len(said))


def _grpc_answer(request_id: str, outputs: dict[str, tuple[str, NDArray[Any]]]) -> bytes:
    said = service_pb2.ModelInferResponse(model_name="m", model_version="1", id=request_id)
    for name, (dtype, array) in outputs.items():
        said.outputs.add(name=name, datatype=dtype, shape=array.shape)
        said.raw_output_contents.append(array.tobytes())
    serialised: bytes = said.SerializeToString()
    return serialised


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_answers_to_requests_of_one_layout_are_each_read_right(protocol: str) -> None:
    @given(talk=conversations())
    @SETTINGS
    def check(talk: list[tuple[str, dict[str, tuple[str, NDArray[Any]]]]]) -> None:
        layout = Layout("m", "", (), ())
        for request_id, outputs in talk:
            answer = _answer(protocol, request(layout, request_id=request_id), request_id, outputs)
            assert list(answer.arrays) == list(outputs)
            assert (answer.version, answer.request_id) == ("1", request_id)
            for name, (dtype, sent) in outputs.items():
                got = answer.arrays[name]
                assert got is not None
                assert (got.dtype, got.shape, got.tobytes()) == (numpy_dtype(dtype), sent.shape, sent.tobytes())
                assert got.flags.writeable

    check()


def _answer(protocol: str, request: InferRequest, request_id: str, outputs: Any) -> InferAnswer:
    if protocol == "http":
        return HttpWire(HTTP, {}).answer(request, _http_answer(request_id, outputs))
    return grpc_wire.answer(request, _grpc_answer(request_id, outputs), GRPC)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_an_answer_to_another_request_is_refused_however_alike(protocol: str) -> None:
    @given(ids=st.lists(IDS, min_size=2, max_size=2, unique=True), known=st.booleans())
    @SETTINGS
    def check(ids: list[str], known: bool) -> None:
        layout, outputs = Layout("m", "", (), ()), {"y": ("FP32", np.ones(3, np.float32))}
        if known:
            _answer(protocol, request(layout, request_id=ids[0]), ids[0], outputs)
        with pytest.raises(ProtocolError):
            _answer(protocol, request(layout, request_id=ids[0]), ids[1], outputs)

    check()


@pytest.mark.parametrize("known", [False, True])
def test_tensors_whose_lengths_are_not_those_of_their_shapes_are_refused(known: bool) -> None:
    layout = Layout("m", "", (), ())
    a, b = ("FP32", np.ones(1, np.float32)), ("FP32", np.ones(2, np.float32))
    if known:
        _answer("grpc", request(layout), "id", {"a": a, "b": b})
    said = service_pb2.ModelInferResponse.FromString(_grpc_answer("id", {"a": a, "b": b}))
    said.raw_output_contents[:] = reversed(said.raw_output_contents)
    with pytest.raises(ProtocolError):
        grpc_wire.answer(request(layout), said.SerializeToString(), GRPC)


def test_an_answer_partly_in_json_is_read_right_again_and_again() -> None:
    layout = Layout("m", "", (), ())
    header = b'{"id":"id","outputs":[{"name":"a","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}},'
    header += b'{"name":"b","datatype":"FP32","shape":[1],"data" : [2.5]}]}'
    for value in (1.5, 3.5):
        response = received(header + np.float32(value).tobytes(), len(header))
        answer = HttpWire(HTTP, {}).answer(request(layout), response)
        assert {name: array is not None and array.tolist() for name, array in answer.arrays.items()} == {
            "a": [value],
            "b": [2.5],
        }


@pytest.mark.parametrize("change", [-4, -1, 1, 4])
@pytest.mark.parametrize("known", [False, True])
def test_a_body_of_another_size_than_it_says_is_refused(change: int, known: bool) -> None:
    wire, asked = HttpWire(HTTP, {}), request()
    good = _http_answer("id", {"y": ("FP32", np.ones(3, np.float32))})
    if known:
        wire.answer(asked, good)
    body = good.body.tobytes()
    with pytest.raises(ProtocolError):
        wire.answer(asked, received((body + b"\0" * change)[: len(body) + change], good.json_length))
