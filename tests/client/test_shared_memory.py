"""Memory that a client and a server on the same machine both see: what goes through it, and what cannot."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike

from tritium.client import Client, InputError, ServerError, SharedMemory, numpy_dtype
from tritium.client import _grpc_wire as grpc_wire
from tritium.client._http_wire import HttpWire
from tritium.server import TritonServer

from .served_models import DTYPES, identity_name
from .sessions import guards, region_of, session
from .surfaces import SURFACES

IDENTITY = identity_name("FP32", 2)


@pytest.fixture(params=SURFACES)
def surface(request: pytest.FixtureRequest) -> str:
    """Each kind of client."""
    return str(request.param)


@pytest.fixture(params=["http", "grpc"])
def url(request: pytest.FixtureRequest, protocol_server: TritonServer) -> str:
    """Where the server is, over each protocol."""
    return protocol_server.http_url if request.param == "http" else protocol_server.grpc_url


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each inference sends."""
    sizes: list[int] = []
    over_http, over_grpc = HttpWire.inference, grpc_wire.serialise

    def inference(self: HttpWire, *arguments: Any) -> Any:
        parts = over_http(self, *arguments)
        sizes.append(sum(map(len, parts)))
        return parts

    def serialise(*arguments: Any) -> bytes:
        message = over_grpc(*arguments)
        sizes.append(len(message))
        return message

    monkeypatch.setattr(HttpWire, "inference", inference)
    monkeypatch.setattr(grpc_wire, "serialise", serialise)
    return sizes


# what goes through it


def test_inputs_and_outputs_go_by_reference(surface: str, url: str, sent: list[int]) -> None:
    with session(surface, url) as (client, run), region_of(client, run, 4 * 2**20) as region:
        model = client.model(IDENTITY)
        x, y = region.array((512, 500), "float32"), region.array((512, 500), np.float32)
        for seed in range(3):  # each time the same places with other values
            x[:] = np.random.default_rng(seed).random(x.shape, np.float32)
            assert run(model(x, out=y)) is y
            np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(run(model(x)), x)
        np.testing.assert_array_equal(run(model(x[100:200], out=y[:100])), x[100:200])
    assert max(sent) < 2000


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != "BYTES"])
def test_every_dtype_but_strings_goes_through_shared_memory(dtype: str, url: str) -> None:
    with Client(url) as client, client.shared_memory(4096) as region:
        x, y = (region.array((3, 5), numpy_dtype(dtype)) for _ in range(2))
        x[:] = np.arange(15).reshape(3, 5) % 2
        client.model(identity_name(dtype, 2))(x, out=y)
        assert x.tobytes() == y.tobytes()


def test_outputs_by_name_go_to_their_arrays(surface: str, small_server: TritonServer) -> None:
    with session(surface, small_server.http_url) as (client, run), region_of(client, run, 4096) as region:
        model, b = client.model("pair"), np.full((3, 2), 10, np.float32)
        a, total, less = (region.array((3, 2), "float32") for _ in range(3))
        a[:] = 1
        result = run(model(a, b, out={"sum": total, "difference": less}))
        assert result["sum"] is total
        assert result["difference"] is less
        assert (total == 11).all()
        assert (less == -9).all()
        total[:] = 0
        assert run(model(b, a, out={"sum": total})) is total
        assert (total == 11).all()
        result = run(model(a, b, out={"difference": less}, outputs=["sum", "difference"]))
        assert (result["sum"] == 11).all()
        assert result["difference"] is less


def test_an_output_without_its_batch_axis_goes_to_an_array_without(surface: str, small_server: TritonServer) -> None:
    with session(surface, small_server.http_url) as (client, run), region_of(client, run, 4096) as region:
        one, total = np.ones(2, np.float32), region.array(2, "float32")
        assert run(client.model("pair")(one, one, out={"sum": total})) is total
        assert total.tolist() == [2, 2]


def test_arrays_of_several_regions_go_together(surface: str, url: str, sent: list[int]) -> None:
    with session(surface, url) as (client, run), region_of(client, run, 8192) as first:
        model, x = client.model(IDENTITY), first.array((30, 30), "float32")
        x[:] = 7
        with region_of(client, run, 8192) as second:
            y = second.array((30, 30), "float32")
            assert run(model(x, out=y)) is y
            assert (y == 7).all()
            assert first.name != second.name
        assert (run(model(x)) == 7).all()
    assert max(sent) < 2000


def test_arrays_without_items_are_as_good_as_any_other(surface: str, url: str) -> None:
    with session(surface, url) as (client, run), region_of(client, run, 4096) as region:
        assert run(client.model(IDENTITY)(region.array((0, 3), "float32"))).shape == (0, 3)


def test_arrays_outlive_their_region_and_go_as_any_other_then(surface: str, url: str) -> None:
    with session(surface, url) as (client, run):
        with region_of(client, run, 4096) as region:
            x, y = region.array((2, 3), "float32"), region.array((2, 3), "float32")
            x[:] = 5
            run(client.model(IDENTITY)(x, out=y))
        assert (y == 5).all()
        y[0, 0] = 6
        assert run(client.model(IDENTITY)(y)).tolist() == [[6, 5, 5], [5, 5, 5]]
        with pytest.raises(InputError, match="must lie in shared memory of this client"):
            run(client.model(IDENTITY)(x, out=y))


def test_arrays_of_another_clients_region_are_sent_as_they_are(surface: str, url: str, sent: list[int]) -> None:
    with Client(url) as other, other.shared_memory(2**14) as region, session(surface, url) as (client, run):
        x = region.array((60, 60), "float32")
        x[:] = 3
        assert (run(client.model(IDENTITY)(x)) == 3).all()
        assert max(sent) > x.nbytes
        with pytest.raises(InputError, match="must lie in shared memory of this client"):
            run(client.model(IDENTITY)(x, out=x))


# what is refused


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (lambda region: np.empty((4, 3), np.float32), "must lie in shared memory of this client, contiguous: make it"),
        (lambda region: region.array((4, 6), "float32")[:, ::2], "must lie in shared memory of this client, contig"),
        (lambda region: [[0.0]], "must lie in shared memory of this client, contiguous: make it with region.array"),
        (lambda region: region.array((4, 3), "float64"), "must have its dtype, got float64"),
        (lambda region: {"z": region.array((4, 3), "float32")}, "has no output 'z'; it has y FP32"),
        (lambda region: region.array((8, 3), "float32"), r"\(4, 3\).*\(8, 3\)"),
        (lambda region: region.array((3, 4), "float32"), r"\(4, 3\).*\(3, 4\)"),
    ],
    ids=["elsewhere", "strided", "list", "dtype", "name", "larger", "shape"],
)
def test_an_array_that_cannot_receive_the_output_is_refused(
    out: Callable[[SharedMemory], Any], message: str, surface: str, url: str
) -> None:
    with session(surface, url) as (client, run), region_of(client, run, 4096) as region:
        model, x = client.model(IDENTITY), np.ones((4, 3), np.float32)
        with pytest.raises(InputError, match=message):
            run(model(x, out=out(region)))
        assert (run(model(x, out=region.array((4, 3), "float32"))) == 1).all()


def test_an_array_that_is_too_small_for_the_output_is_an_error_that_says_so(surface: str, url: str) -> None:
    with (
        session(surface, url) as (client, run),
        region_of(client, run, 4096) as region,
        pytest.raises((InputError, ServerError), match=r"24 bytes.* should be at least 48 bytes"),
    ):
        run(client.model(IDENTITY)(np.ones((4, 3), np.float32), out=region.array((2, 3), "float32")))


def test_several_outputs_need_their_names(surface: str, small_server: TritonServer) -> None:
    with session(surface, small_server.http_url) as (client, run), region_of(client, run, 4096) as region:
        one = np.ones((1, 2), np.float32)
        with pytest.raises(InputError, match="The 'out' parameter must be a mapping from names to arrays: 'pair' has"):
            run(client.model("pair")(one, one, out=region.array((1, 2), "float32")))


@pytest.mark.parametrize("dtype", [object, "S5", "U5", bytes, str, "M8[s]", "complex64", ">f4"], ids=str)
def test_what_has_no_place_in_shared_memory_is_refused(dtype: DTypeLike, url: str) -> None:
    with (
        Client(url) as client,
        client.shared_memory(4096) as region,
        pytest.raises(InputError, match=r"must hold numbers or booleans|Triton has no dtype"),
    ):
        region.array((2,), dtype)


@pytest.mark.parametrize("shape", [(-1,), (2, -3), 4097, (64, 65), (2**40, 2**40), 1.5, "2"], ids=str)
def test_a_shape_that_does_not_fit_is_refused(shape: Any, url: str) -> None:
    with Client(url) as client, client.shared_memory(4096) as region:
        with pytest.raises(InputError):
            region.array(shape, "uint8")
        assert region.array(4096, "uint8").shape == (4096,)  # nothing was taken of it


def test_arrays_are_zeros_at_places_of_their_own(url: str) -> None:
    wanted: list[tuple[Any, str]] = [((3,), "u1"), (np.int64(5), "f8"), ((), "f4"), (9, "?")]
    with Client(url) as client, client.shared_memory(4096) as region:
        arrays = [region.array(shape, dtype) for shape, dtype in wanted]
        assert [array.shape for array in arrays] == [(3,), (5,), (), (9,)]
        starts = [array.__array_interface__["data"][0] for array in arrays]
        assert [(start - starts[0]) % 64 for start in starts] == [0] * 4
        for number, array in enumerate(arrays):
            assert not array.any()
            array[...] = number
        assert [set(array.ravel().tolist()) for array in arrays] == [{0}, {1.0}, {2.0}, {True}]
        with pytest.raises(InputError, match=r"has 4096 bytes, \d+ of them used; an array of float64\[500\] needs"):
            region.array(500, "float64")


@pytest.mark.parametrize("size", [0, -1, True, 1.5, "8", None, 2**50, 2**62, 2**70], ids=str)
def test_a_region_that_cannot_be_made_is_refused_and_leaves_nothing(size: Any, surface: str, url: str) -> None:
    ours = f"tritium-client-{os.getpid()}-*"
    before = set(Path("/dev/shm").glob(ours))
    with session(surface, url) as (client, run):
        with (
            pytest.raises(InputError, match=r"must be 1 or more|There is no room for"),
            region_of(client, run, size),
        ):
            pass
        assert not guards(os.getpid())
    assert set(Path("/dev/shm").glob(ours)) <= before


def test_a_client_of_several_servers_has_no_shared_memory(surface: str, url: str) -> None:
    urls = [url, url.replace("127.0.0.1", "localhost")]
    with (
        session(surface, urls) as (client, run),
        pytest.raises(InputError, match="Shared memory needs a client of one server"),
        region_of(client, run, 1),
    ):
        pass
