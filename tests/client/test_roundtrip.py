"""Any array comes back as it was sent: over both protocols, from threads and from an event loop, in either form."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tritium.client import AsyncClient, Client, InputError, TensorSpec, numpy_dtype
from tritium.client._encoding import SMALL_BYTES, from_binary, from_json_list, to_binary, to_json_list
from tritium.server import TritonServer

from .served_models import DTYPES, RANKS, identity_name

Array: TypeAlias = NDArray[Any]
Identity: TypeAlias = Callable[[str, Array], Array]

SETTINGS = settings(deadline=None, derandomize=True, database=None)
NUMBERS = [dtype for dtype in DTYPES if dtype != "BYTES"]
# Triton itself has no JSON form of the others.
IN_JSON = [dtype for dtype in DTYPES if dtype not in ("FP16", "BF16")]
# One of each kind of arrays, for what depends on no other trait of a dtype.
KINDS = ["BOOL", "INT64", "FP16", "BF16", "BYTES"]


def _bits(dtype: str, array: Array) -> Array:
    """What an array is made of: its bytes, whatever NaN they may be, or its strings."""
    if dtype != "BYTES":
        native = array if array.dtype.isnative else array.byteswap().view(array.dtype.newbyteorder())
        return np.frombuffer(native.tobytes(), np.uint8)
    return np.array([item.encode() if isinstance(item, str) else item for item in array.ravel()] + [b""], object)


def _assert_same(dtype: str, got: Array, sent: Array) -> None:
    assert (got.shape, got.dtype) == (sent.shape, numpy_dtype(dtype))
    np.testing.assert_array_equal(_bits(dtype, got), _bits(dtype, sent))


# what is sent


def _as_it_is(array: Array) -> Array:
    return array


def _strided(array: Array) -> Array:
    """Every other item of a larger array."""
    larger = np.repeat(array, 2, axis=-1)
    return larger[..., ::2]


def _backwards(array: Array) -> Array:
    return np.flip(np.flip(array).copy())


def _read_only(array: Array) -> Array:
    array.setflags(write=False)
    return array


def _unaligned(array: Array) -> Array:
    if array.dtype == object:
        return array
    room = np.empty(array.nbytes + 1, np.uint8)
    odd = room[1:].view(array.dtype).reshape(array.shape)
    odd[...] = array
    return odd


def _swapped(array: Array) -> Array:
    """The other byte order, with the same bits in each item."""
    if array.dtype.kind not in "iuf":
        return array
    return array.byteswap().view(array.dtype.newbyteorder())


LAYOUTS: list[Callable[[Array], Array]] = [
    _as_it_is,
    np.asfortranarray,
    _strided,
    _backwards,
    _read_only,
    _unaligned,
    _swapped,
]
STRINGS = st.one_of(
    st.binary(max_size=20), st.text(max_size=20), st.sampled_from(["", b"", "a\0", b"\xff\0", "é" * 50])
)
# Shapes of few items, in which lengths of 0 and 1 are as likely as others.
SIDES = {1: 12, 2: 5, 3: 4, 4: 3}


@st.composite
def shapes(draw: st.DrawFn, rank: int) -> tuple[int, ...]:
    return tuple(draw(st.lists(st.integers(0, SIDES[rank]), min_size=rank, max_size=rank)))


@st.composite
def arrays(draw: st.DrawFn, dtype: str, rank: int) -> Array:
    """An array of a Triton dtype with any values: of floats also every NaN, the infinities and both zeros."""
    shape = draw(shapes(rank))
    count, wanted = math.prod(shape), numpy_dtype(dtype)
    array: Array = np.empty(count, wanted)
    if dtype == "BYTES":
        array[:] = draw(st.lists(STRINGS, min_size=count, max_size=count))
    elif dtype == "BOOL":
        array[:] = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    else:
        array.view(np.uint8)[:] = bytearray(draw(st.binary(min_size=array.nbytes, max_size=array.nbytes)))
        special = [0, 1, -1, math.inf, -math.inf, math.nan, -0.0] if _is_float(dtype) else [0, 1]
        for index, value in enumerate(draw(st.lists(st.sampled_from([None, *special]), max_size=count))):
            if value is not None:
                array[index] = value
    layout = draw(st.sampled_from(LAYOUTS))
    return layout(array.reshape(shape))


def _is_float(dtype: str) -> bool:
    return dtype.startswith(("FP", "BF"))


# over a real server


def _over_threads(server: TritonServer, protocol: str) -> Iterator[Identity]:
    with server.client(protocol=protocol) as client:
        yield lambda dtype, array: client.model(identity_name(dtype, array.ndim))(array)


def _over_tasks(server: TritonServer, protocol: str) -> Iterator[Identity]:
    url = server.http_url if protocol == "http" else server.grpc_url
    with asyncio.Runner() as runner:
        client = AsyncClient(url)

        def identity(dtype: str, array: Array) -> Array:
            # Not as the result of the task: that is written out when a run ends, for seconds if it is large.
            answers: list[Array] = []

            async def ask() -> None:
                answers.append(await client.model(identity_name(dtype, array.ndim))(array))

            runner.run(ask())
            return answers[0]

        yield identity
        runner.run(client.close())


@pytest.fixture(
    scope="module",
    params=[(way, protocol) for way in (_over_threads, _over_tasks) for protocol in ("http", "grpc")],
    ids=["http", "grpc", "async-http", "async-grpc"],
)
def identity(request: pytest.FixtureRequest, protocol_server: TritonServer) -> Iterator[Identity]:
    """Sends an array through the model of its dtype and rank that gives back what it is given."""
    way, protocol = request.param
    yield from way(protocol_server, protocol)


@pytest.fixture(scope="module")
def json_identity(protocol_server: TritonServer) -> Iterator[Identity]:
    """The same over HTTP, as with a server that has no binary form of tensors."""
    with protocol_server.client(protocol="http") as client:
        client._server = {"extensions": []}
        yield lambda dtype, array: client.model(identity_name(dtype, array.ndim))(array)


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_array_comes_back_as_it_was_sent(dtype: str, identity: Identity) -> None:
    @given(array=st.sampled_from(RANKS).flatmap(lambda rank: arrays(dtype, rank)))
    @settings(SETTINGS, max_examples=40)
    def check(array: Array) -> None:
        got = identity(dtype, array)
        _assert_same(dtype, got, array)
        if dtype == "BYTES" and got.size:
            # Text where all of it is text.
            try:
                expected = [item if isinstance(item, str) else item.decode() for item in array.ravel()]
            except UnicodeDecodeError:
                expected = [item if isinstance(item, bytes) else item.encode() for item in array.ravel()]
            assert got.ravel().tolist() == expected

    check()


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (0, 0, 0), (2, 0, 1, 5)], ids=str)
def test_arrays_without_items_keep_their_shape(dtype: str, shape: tuple[int, ...], identity: Identity) -> None:
    array = np.zeros(shape, numpy_dtype(dtype))
    _assert_same(dtype, identity(dtype, array), array)


@pytest.mark.parametrize("dtype", KINDS)
def test_large_arrays_come_back_as_they_were_sent(dtype: str, identity: Identity) -> None:
    size = 300_000
    bits = np.random.default_rng(7).integers(0, 256, size * numpy_dtype(dtype).itemsize, np.uint8)
    if dtype == "BYTES":
        array: Array = np.array([bytes(part) for part in np.split(bits, 1000)], object)
    else:
        array = (bits % 2 if dtype == "BOOL" else bits).view(numpy_dtype(dtype))
    _assert_same(dtype, identity(dtype, array), array)


def test_answers_may_be_written_to(identity: Identity) -> None:
    for dtype in KINDS:
        array = np.ones((2, 3), bool).astype(object if dtype == "BYTES" else numpy_dtype(dtype))
        got = identity(dtype, np.full((2, 3), "x", object) if dtype == "BYTES" else array)
        got[0, 0] = got[1, 1]


@pytest.mark.parametrize("dtype", IN_JSON)
def test_any_array_comes_back_in_json_too(dtype: str, json_identity: Identity) -> None:
    @given(array=st.sampled_from(RANKS).flatmap(lambda rank: arrays(dtype, rank)))
    @settings(SETTINGS, max_examples=20)
    def check(array: Array) -> None:
        if _is_float(dtype):
            # Triton takes no null, with which JSON would say NaN.
            array = np.nan_to_num(array.astype(numpy_dtype(dtype)))
        if dtype == "BYTES":
            array = np.array([_as_text(item) for item in array.ravel()] + [None], object)[:-1].reshape(array.shape)
        got = json_identity(dtype, array)
        if dtype == "FP64":
            # Triton itself reads numbers in JSON up to the last bit, and not always that.
            assert (got.shape, got.dtype) == (array.shape, array.dtype)
            np.testing.assert_array_max_ulp(got, array, maxulp=1)
        else:
            _assert_same(dtype, got, array)

    check()


def _as_text(item: str | bytes) -> str:
    return item if isinstance(item, str) else item.decode("latin-1")


# the JSON form


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
@pytest.mark.parametrize("dtype", NUMBERS)
def test_numbers_survive_json(dtype: str, nested: bool) -> None:
    @given(array=st.sampled_from(RANKS).flatmap(lambda rank: arrays(dtype, rank)))
    @settings(SETTINGS, max_examples=50)
    def check(array: Array) -> None:
        array = array.astype(numpy_dtype(dtype))
        spec = TensorSpec("x", dtype, array.shape)
        if _is_float(dtype) and np.isinf(array).any():
            with pytest.raises(InputError, match="infinite values, which JSON cannot carry"):
                to_json_list(array, spec)
            return
        values = json.loads(json.dumps(to_json_list(array, spec), allow_nan=False))
        if nested and array.size:
            flat = np.empty(len(values), object)
            flat[:] = values
            values = flat.reshape(array.shape).tolist()
        got = from_json_list(values, dtype, array.shape)
        # What kind of NaN it was is lost.
        kept = ~np.isnan(array.astype(np.float64)) if _is_float(dtype) else np.ones(array.shape, bool)
        _assert_same(dtype, got[kept], array[kept])
        assert np.isnan(got[~kept].astype(np.float64)).all()
        assert got.shape == array.shape

    check()


@given(array=st.sampled_from(RANKS).flatmap(lambda rank: arrays("BYTES", rank)))
@SETTINGS
def test_text_survives_json_and_other_bytes_are_refused(array: Array) -> None:
    spec = TensorSpec("x", "BYTES", array.shape)
    try:
        _ = [item.decode() for item in array.ravel() if isinstance(item, bytes)]
    except UnicodeDecodeError:
        with pytest.raises(InputError, match="must hold UTF-8 text"):
            to_json_list(array, spec)
        return
    values = json.loads(json.dumps(to_json_list(array, spec)))
    _assert_same("BYTES", from_json_list(values, "BYTES", array.shape), array)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just(10**400)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=8,
)
HOSTILE_SHAPES = st.lists(st.one_of(st.integers(0, 4), st.integers(-2, 2), st.integers(-(2**70), 2**70)), max_size=5)


@given(values=JSON, dtype=st.sampled_from([*DTYPES, "FP8", ""]), shape=HOSTILE_SHAPES)
@settings(SETTINGS, max_examples=1000)
def test_any_json_is_an_array_of_that_shape_or_a_value_error(values: Any, dtype: str, shape: list[int]) -> None:
    try:
        array = from_json_list(values, dtype, shape)
    except (ValueError, TypeError):
        return
    assert (array.dtype, array.shape) == (numpy_dtype(dtype), tuple(shape))


# the binary form


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_array_survives_its_binary_form(dtype: str) -> None:
    @given(array=st.sampled_from(RANKS).flatmap(lambda rank: arrays(dtype, rank)))
    @settings(SETTINGS, max_examples=50)
    def check(array: Array) -> None:
        # Byte order is put right before, where dtypes are.
        array = array.astype(numpy_dtype(dtype))
        data = np.frombuffer(bytes(to_binary(array)), np.uint8)
        _assert_same(dtype, from_binary(data, dtype, array.shape), array)

    check()


def test_an_array_that_has_its_binary_form_is_not_copied_unless_it_is_small() -> None:
    array = np.arange(SMALL_BYTES, dtype=np.float32).reshape(2, -1)
    sent = np.frombuffer(to_binary(array), np.uint8)
    assert np.shares_memory(sent, array)
    assert np.shares_memory(from_binary(sent, "FP32", array.shape), array)


@given(
    data=st.one_of(
        st.binary(max_size=64),
        st.lists(st.sampled_from([b"\0\0\0\0", b"\1\0\0\0a", b"\xff\xff\xff\xff", b"\4\0\0\0", b"abcd"])).map(b"".join),
    ),
    dtype=st.sampled_from([*DTYPES, "FP8", ""]),
    shape=HOSTILE_SHAPES,
)
@settings(SETTINGS, max_examples=1000)
def test_any_bytes_are_an_array_of_that_shape_or_a_value_error(data: bytes, dtype: str, shape: list[int]) -> None:
    try:
        array = from_binary(np.frombuffer(bytearray(data), np.uint8), dtype, shape)
    except ValueError:
        return
    assert (array.dtype, array.shape) == (numpy_dtype(dtype), tuple(shape))
    _assert_same(dtype, from_binary(np.frombuffer(bytes(to_binary(array)), np.uint8), dtype, shape), array)


@pytest.mark.parametrize("count", [2**31, 10**11, 10**13, 2**62])
def test_strings_of_a_number_that_nobody_has_memory_for_are_a_value_error(count: int) -> None:
    with pytest.raises(ValueError, match="bytes"):
        from_binary(np.empty(0, np.uint8), "BYTES", (count,))


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("text", ["\ud800", "a\udfff"])
def test_text_that_is_no_unicode_is_refused(text: str, protocol: str, protocol_server: TritonServer) -> None:
    with protocol_server.client(protocol=protocol) as client, pytest.raises(InputError, match="Unicode"):
        client.model(identity_name("BYTES", 1))([text])


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_answers_to_requests_with_ids_of_any_length_are_read_right(
    protocol: str, protocol_server: TritonServer
) -> None:
    with protocol_server.client(protocol=protocol) as client:
        _check_ids(client)


def _check_ids(client: Client) -> None:
    model, array = client.model(identity_name("INT64", 1)), np.arange(3)

    @given(request_id=st.text(st.characters(exclude_categories=["C", "Z"]), max_size=256))
    @settings(SETTINGS, max_examples=40)
    def check(request_id: str) -> None:
        np.testing.assert_array_equal(model(array, request_id=request_id), array)

    check()


def test_answers_to_calls_at_once_are_read_right(protocol_server: TritonServer) -> None:
    async def run() -> None:
        async with AsyncClient(protocol_server.http_url) as client:
            model = client.model(identity_name("INT64", 1))

            async def ask(number: int) -> None:
                sent = np.arange(number, number + number % 7)
                np.testing.assert_array_equal(await model(sent, request_id="x" * (number % 11)), sent)

            await ask(1)
            await asyncio.gather(*(ask(number) for number in range(200)))

    asyncio.run(run())
