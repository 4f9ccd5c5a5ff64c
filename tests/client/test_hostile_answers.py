"""Whatever a server sends is an answer or an error of the client's own, never another exception."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from tritium.client import ProtocolError, RequestRejectedError, ServerError
from tritium.client import _grpc_wire as grpc_wire
from tritium.client._http_reader import BadResponseError
from tritium.client._http_wire import HttpWire
from tritium.client._queries import server_metadata, server_ready

from .messages import GRPC, HTTP, received, request

SETTINGS = settings(deadline=None, derandomize=True, database=None, max_examples=800)
TEXT = st.text(max_size=20)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-2, 9), st.floats(), TEXT, st.just(10**400), st.just("id")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
MEMBERS = {
    "id": st.just("id") | JSON,
    "model_version": st.just("1") | JSON,
    "outputs": JSON
    | st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "name": st.just("y") | JSON,
                "datatype": st.sampled_from(["FP32", "BYTES", "BOOL", "UINT8", "FP8"]) | JSON,
                "shape": st.lists(st.integers(-1, 3) | st.just(10**12), max_size=2) | JSON,
                "data": JSON,
                "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(-2, 20) | JSON})
                | JSON,
            },
        ),
        max_size=2,
    ),
}
ANSWERS = st.one_of(
    st.fixed_dictionaries({}, optional=MEMBERS), JSON, st.fixed_dictionaries({"error": JSON, "detail": JSON})
).map(lambda value: json.dumps(value).encode())


@given(
    body=st.one_of(ANSWERS, st.binary(max_size=50)),
    tensors=st.binary(max_size=20),
    mixed=st.booleans(),
    status=st.sampled_from([200, 204, 302, 400, 404, 429, 500, 503]),
)
@SETTINGS
def test_any_http_answer_is_an_answer_or_an_error_of_ours(
    body: bytes, tensors: bytes, mixed: bool, status: int
) -> None:
    wire = HttpWire(HTTP, {})
    try:
        reader = received(body + tensors if mixed else body, len(body) if mixed else None, status)
    except BadResponseError:  # a body, where the status says that there is none
        return
    with suppress(ProtocolError, ServerError):
        answer = wire.answer(request(), reader)
        assert isinstance(answer.version, str)
        assert all(array is None or array.shape == answer.shapes[name] for name, array in answer.arrays.items())
    for query in (server_metadata(), server_ready()):
        with suppress(ProtocolError, ServerError):
            wire.result(query, reader)


@pytest.mark.parametrize(
    "begin", [b"[", b'{"outputs":[', b'{"outputs":[{"name":"y","datatype":"BYTES","shape":[1],"data":[']
)
def test_endless_brackets_are_a_protocol_error(begin: bytes) -> None:
    wire, deep = HttpWire(HTTP, {}), received(begin + b"[" * 100_000)
    with pytest.raises(ProtocolError):
        wire.answer(request(), deep)
    with pytest.raises(ProtocolError):
        wire.result(server_metadata(), deep)


@pytest.mark.parametrize("status", [400, 404, 503])
def test_endless_brackets_are_an_error_like_any_other(status: int) -> None:
    with pytest.raises(ServerError):
        HttpWire(HTTP, {}).result(server_metadata(), received(b"[" * 7000, status=status))


@given(
    data=st.one_of(
        st.binary(max_size=60),
        st.builds(
            lambda name, dtype, shape, raw, floats: service_pb2.ModelInferResponse(
                id="id",
                outputs=[
                    {"name": name, "datatype": dtype, "shape": shape, "contents": {"fp32_contents": floats}},
                ],
                raw_output_contents=raw,
            ).SerializeToString(),
            TEXT,
            st.sampled_from(["FP32", "BYTES", "UINT8", "FP8", ""]),
            st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 3), max_size=3),
            st.lists(st.binary(max_size=12), max_size=2),
            st.lists(st.floats(width=32), max_size=3),
        ),
    )
)
@SETTINGS
def test_any_grpc_answer_is_an_answer_or_a_protocol_error(data: bytes) -> None:
    with suppress(ProtocolError):
        grpc_wire.answer(request(), data, GRPC)


def test_values_beyond_their_dtype_are_a_protocol_error_over_grpc() -> None:
    said = service_pb2.ModelInferResponse(id="id")
    said.outputs.add(name="y", datatype="UINT8", shape=[1]).contents.uint_contents.append(300)
    with pytest.raises(ProtocolError):
        grpc_wire.answer(request(), said.SerializeToString(), GRPC)


def test_a_version_that_is_a_number_is_a_version() -> None:
    said = json.dumps({"id": "id", "model_version": 3, "outputs": []}).encode()
    assert HttpWire(HTTP, {}).answer(request(), received(said)).version == "3"


@pytest.mark.parametrize("message", ["a" * 5000, "é" * 5000, "<html>" + "x" * 9000])
def test_long_errors_are_cut(message: str) -> None:
    body = json.dumps({"error": message}).encode() if message[0] != "<" else message.encode()
    with pytest.raises(RequestRejectedError) as caught:
        HttpWire(HTTP, {}).answer(request(), received(body, status=400))
    assert len(str(caught.value)) < 2100
