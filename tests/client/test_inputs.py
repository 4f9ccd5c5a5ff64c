"""What a caller may hand over as an input, over both protocols: frames, tensors of frameworks, arrays of any layout."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from tritium.client import (
    AsyncClient,
    Client,
    InferenceFailedError,
    InputError,
    Model,
    Outputs,
    TensorSpec,
    numpy_dtype,
)
from tritium.server import ADMIN_GROUPS, TritonServer

from .served_models import DTYPES, identity_name
from .table_models import TABLE, write_echo

FRAME = pd.DataFrame(
    {
        "year": [2007, 2008, 2009],
        "island": ["Torgersen", "Île", ""],
        "bill_length_mm": [39.1, 40.3, np.nan],
        "sex": ["male", "female", "日本"],
        "species": ["Adelie", "Adelie", "Gentoo"],
    }
)
NUMBERS = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture(scope="module")
def table_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A Triton that serves `table`, of strings and numbers, and `wide`, of three numbers a row in one input."""
    repository = tmp_path_factory.mktemp("inputs")
    write_echo(repository / "table", TABLE)
    write_echo(repository / "wide", [TensorSpec("x", "FP32", (3,))])
    with TritonServer(repository, open_groups=ADMIN_GROUPS) as running:
        yield running


@pytest.fixture(params=["http", "grpc"])
def protocol(request: pytest.FixtureRequest) -> str:
    """Each protocol."""
    return str(request.param)


@pytest.fixture
def table(protocol: str, table_server: TritonServer) -> Iterator[Model]:
    """A model with four inputs of shape (rows, 1); its outputs have their names with `same_` before them."""
    with table_server.client(protocol=protocol) as client:
        yield client.model("table")


@pytest.fixture
def wide(protocol: str, table_server: TritonServer) -> Iterator[Model]:
    """A model whose input `x` FP32 of shape (rows, 3) comes back; at most 4 rows."""
    with table_server.client(protocol=protocol) as client:
        yield client.model("wide")


@pytest.fixture
def identities(protocol: str, protocol_server: TritonServer) -> Iterator[Client]:
    """A client of the server whose models give back a tensor of any dtype and number of axes."""
    with protocol_server.client(protocol=protocol) as client:
        yield client


def _some(dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Values of a dtype, no two neighbours alike."""
    count = int(np.prod(shape))
    if dtype == "BYTES":
        return np.array([f"é{i}".encode() for i in range(count)] or [], dtype=object).reshape(shape)
    return (np.arange(count) % 100).astype(numpy_dtype(dtype)).reshape(shape)


# DataFrames


def test_frame_gives_each_input_its_column(table: Model) -> None:
    answer = table(FRAME)
    assert answer["same_island"].tolist() == [["Torgersen"], ["Île"], [""]]
    assert answer["same_sex"].tolist() == [["male"], ["female"], ["日本"]]
    assert answer["same_year"].tolist() == [[2007], [2008], [2009]]
    np.testing.assert_array_equal(answer["same_bill_length_mm"], np.array([[39.1], [40.3], [np.nan]], np.float32))


def test_frame_of_any_number_of_rows_is_predicted(table: Model) -> None:
    frame = pd.concat([FRAME] * 7, ignore_index=True)
    answer = table.predict(frame)
    assert answer["same_island"].tolist() == [["Torgersen"], ["Île"], [""]] * 7
    assert answer["same_year"].dtype == np.int64


def test_frame_without_rows_gives_no_rows(table: Model) -> None:
    assert {name: array.shape for name, array in table(FRAME[:0]).items()} == dict.fromkeys(
        ["same_island", "same_sex", "same_bill_length_mm", "same_year"], (0, 1)
    )


def test_frame_and_an_input_by_name_go_together(table: Model) -> None:
    answer = table(FRAME.drop(columns="year"), year=np.array([[1], [2], [3]]))
    assert answer["same_year"].tolist() == [[1], [2], [3]]


def test_frame_that_lacks_a_column_is_refused_with_the_closest(table: Model) -> None:
    with pytest.raises(InputError) as caught:
        table(FRAME.rename(columns={"bill_length_mm": "bill_length"}))
    assert str(caught.value) == (
        "The DataFrame has no column 'bill_length_mm', an input of 'table'; it has year, island, bill_length, sex, "
        "species. Did you mean 'bill_length'?"
    )


def test_frame_whose_column_and_an_input_by_name_are_the_same_is_refused(table: Model) -> None:
    with pytest.raises(InputError, match="Input 'year' of 'table' is given twice"):
        table(FRAME[["year", "island", "bill_length_mm", "sex"]], year=[[1], [2], [3]])


def test_column_that_holds_what_is_no_string_is_refused(table: Model) -> None:
    with pytest.raises(InputError, match="Input 'sex' must hold strings or bytes, got float instead"):
        table(FRAME.assign(sex=["male", None, np.nan]))


def test_column_of_floats_for_whole_numbers_is_refused(table: Model) -> None:
    with pytest.raises(InputError, match="Input 'year' must be INT64"):
        table(FRAME.assign(year=[2007.0, 2008.0, np.nan]))


@pytest.mark.parametrize("columns", [["a", "b", "c"], [0, 1, 2]], ids=["names", "numbers"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "int64"])
def test_all_columns_go_to_the_only_input(dtype: str, columns: list[Any], wide: Model) -> None:
    np.testing.assert_array_equal(wide(pd.DataFrame(NUMBERS.astype(dtype), columns=columns)), NUMBERS)


def test_frame_with_too_few_columns_for_the_only_input_is_refused(wide: Model) -> None:
    with pytest.raises(InputError, match=r"Input 'x' must have shape \(rows, 3\).*got \(4, 2\)"):
        wide(pd.DataFrame(NUMBERS[:, :2]))


# tensors of frameworks


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.uint8, torch.int16])
def test_torch_tensor_is_taken_where_its_dtype_is_safe(dtype: torch.dtype, wide: Model) -> None:
    np.testing.assert_array_equal(wide(torch.from_numpy(NUMBERS).to(dtype)), NUMBERS)


def test_torch_tensor_of_any_layout_is_taken(wide: Model) -> None:
    tensor = torch.from_numpy(NUMBERS.T.copy())
    np.testing.assert_array_equal(wide(tensor.T), NUMBERS)


def test_torch_tensor_with_gradients_is_refused_with_the_fix(wide: Model) -> None:
    with pytest.raises(InputError, match=r"Input 'x' cannot be read as an array: .*detach\(\)"):
        wide(torch.from_numpy(NUMBERS).requires_grad_())


def test_torch_tensor_of_a_dtype_that_loses_is_refused(wide: Model) -> None:
    with pytest.raises(InputError, match="Input 'x' must be FP32"):
        wide(torch.from_numpy(NUMBERS.astype(np.float64)))


class OnlyDLPack:
    """What a framework hands over that numpy knows nothing of."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


class ElsewhereDLPack(OnlyDLPack):
    """The same on a device whose memory is not this process's."""

    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("it lies on a GPU")

    def __dlpack_device__(self) -> Any:
        return (2, 0)


class OnlyArray:
    """What has nothing but numpy's own way to be read."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return NUMBERS.astype(dtype or NUMBERS.dtype)


def test_object_with_nothing_but_dlpack_is_taken(wide: Model) -> None:
    np.testing.assert_array_equal(wide(OnlyDLPack(NUMBERS)), NUMBERS)


def test_object_with_dlpack_of_another_device_is_refused(wide: Model) -> None:
    with pytest.raises(InputError, match="Input 'x' cannot be read through DLPack"):
        wide(ElsewhereDLPack(NUMBERS))


def test_object_with_nothing_but_array_is_taken(wide: Model) -> None:
    np.testing.assert_array_equal(wide(OnlyArray()), NUMBERS)


# lists and scalars


@pytest.mark.parametrize("value", [[[1, 2, 3]], [[1.5, 2, 3]], ([1, 2, 3],), [np.arange(3)], [True, False, True]])
def test_lists_of_numbers_are_floats_where_those_are_wanted(value: Any, wide: Model) -> None:
    np.testing.assert_array_equal(wide(value), np.array(value, dtype=np.float32))


@pytest.mark.parametrize("value", [[["a", "b", "c"]], [[1, 2], [3]], [[None, 1, 2]], [[1j, 2, 3]], object()])
def test_lists_of_anything_else_are_refused(value: Any, wide: Model) -> None:
    with pytest.raises(InputError, match="Input 'x' "):
        wide(value)


def test_list_with_a_number_that_does_not_fit_is_refused(identities: Client) -> None:
    assert identities.model(identity_name("INT8", 1))([-128, 127]).tolist() == [-128, 127]
    with pytest.raises(InputError, match="Input 'x' must be INT8"):
        identities.model(identity_name("INT8", 1))([-129])


def test_scalars_are_a_row_of_single_columns(table: Model) -> None:
    answer = table(island="Biscoe", sex=b"male", bill_length_mm=39.5, year=2007)
    assert {name: array.tolist() for name, array in answer.items()} == {
        "same_island": ["Biscoe"],
        "same_sex": ["male"],
        "same_bill_length_mm": [39.5],
        "same_year": [2007],
    }


def test_scalar_is_a_tensor_of_one_value(identities: Client) -> None:
    assert identities.model(identity_name("INT64", 1))(7).tolist() == [7]


@pytest.mark.parametrize("text", ["\ud800", b"\xff"], ids=["surrogate", "bytes"])
def test_string_that_is_no_text_is_refused_or_goes_as_it_is(text: Any, identities: Client) -> None:
    model = identities.model(identity_name("BYTES", 1))
    if isinstance(text, bytes):
        assert model([text]).tolist() == [text]
    else:
        with pytest.raises(InputError, match="Input 'x'"):
            model([text])


@pytest.mark.parametrize(
    "value",
    [
        np.array(["a", "é"]),
        np.array([b"a", "é".encode()]),
        np.array(["a", "é"], dtype=np.dtypes.StringDType()),
        np.array(["a", b"\xc3\xa9"], dtype=object),
        pd.Series(["a", "é"]),
        pd.Series(["a", "é"], dtype="category"),
        ("a", "é"),
    ],
    ids=lambda value: str(getattr(value, "dtype", "tuple")),
)
def test_strings_of_every_kind_are_taken(value: Any, identities: Client) -> None:
    assert identities.model(identity_name("BYTES", 1))(value).tolist() == ["a", "é"]


# arrays of any layout


LAYOUTS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "fortran": np.asfortranarray,
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "every-other": lambda a: np.repeat(a, 2, axis=0)[::2],
    "backwards": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    "swapped-bytes": lambda a: a.astype(a.dtype.newbyteorder("S")) if a.dtype.kind in "iuf" else a,
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape) if a.dtype.kind in "iuf" else a,
    "broadcast": lambda a: np.broadcast_to(a[0], a.shape),
    "subclass": lambda a: a.view(type("Sub", (np.ndarray,), {})),
    "unaligned": lambda a: (
        np.frombuffer(b"\0" + a.tobytes(), np.uint8)[1:].view(a.dtype).reshape(a.shape) if a.dtype.kind in "iuf" else a
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_array_of_any_layout_comes_back_as_it_is(layout: str, identities: Client) -> None:
    for dtype in DTYPES:
        array = LAYOUTS[layout](_some(dtype, (3, 5)))
        kept = array.copy()
        model = identities.model(identity_name(dtype, 2))
        for _ in range(2):  # the second call takes the quick way, if there is one
            answer = model(array)
            assert type(answer) is np.ndarray
            wanted = [[item.decode() for item in row] for row in array.tolist()] if dtype == "BYTES" else array.tolist()
            assert (answer.dtype, answer.tolist()) == (numpy_dtype(dtype), wanted), dtype
        np.testing.assert_array_equal(array, kept)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_array_without_values_comes_back_without_any(shape: tuple[int, int], identities: Client) -> None:
    for dtype in DTYPES:
        answer = identities.model(identity_name(dtype, 2))(_some(dtype, shape))
        assert (answer.dtype, answer.shape) == (numpy_dtype(dtype), shape), dtype


def test_no_rows_of_a_batch_are_no_rows_of_results(wide: Model) -> None:
    assert wide(NUMBERS[:0]).shape == (0, 3)
    assert wide(np.zeros((0, 3), dtype=np.uint8)).shape == (0, 3)


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.array([[1.5, 2.5, 3.5]]), "float64"),
        (np.array([[1, 2, 3]]), "int64"),
        (np.array([[1, 2, 3]], dtype=np.uint32), "uint32"),
        (np.array([[1, 2, 3]], dtype=np.complex64), "complex64"),
        (np.array([["a", "b", "c"]]), "<U1"),
        (np.array([[1, 2, 3]], dtype=object), "object"),
        (np.array([[1, 2, 3]], dtype="datetime64[s]"), r"datetime64\[s\]"),
    ],
)
def test_cast_that_may_change_values_is_refused_by_name(array: NDArray[Any], dtype: str, wide: Model) -> None:
    with pytest.raises(InputError, match=rf"Input 'x' must be FP32 \(float32\), got {dtype} instead"):
        wide(array)


def test_bfloat16_is_taken_where_floats_are_wanted(wide: Model) -> None:
    np.testing.assert_array_equal(wide(NUMBERS.astype(ml_dtypes.bfloat16)), NUMBERS)


# outputs


def test_outputs_may_be_written_to(identities: Client) -> None:
    for dtype in DTYPES:
        model = identities.model(identity_name(dtype, 2))
        array = _some(dtype, (3, 5))
        for _ in range(2):
            answer = model(array)
            assert answer.flags.writeable, dtype
            answer[0, 0] = answer[2, 4]
            assert answer[0, 0] == answer[2, 4]


def test_each_call_gives_arrays_of_its_own(table: Model) -> None:
    first, second = table(FRAME), table(FRAME)
    assert isinstance(first, Outputs)
    first["same_year"][:] = 0
    assert second["same_year"].tolist() == [[2007], [2008], [2009]]


def _still_there_after_a_failed_call(url: str) -> bool:
    index = np.array([[99]])
    with Client(url) as client, contextlib.suppress(InferenceFailedError):
        client.model("pick")(index)
    alive = weakref.ref(index)
    del index
    return alive() is not None


async def _still_there_after_a_failed_async_call(url: str) -> bool:
    index = np.array([[99]])
    async with AsyncClient(url) as client:
        with contextlib.suppress(InferenceFailedError):
            await client.model("pick")(index)
    alive = weakref.ref(index)
    del index
    return alive() is not None


def test_failed_call_keeps_its_inputs_no_longer_than_its_error(protocol: str, small_server: TritonServer) -> None:
    url = small_server.http_url if protocol == "http" else small_server.grpc_url
    gc.collect()
    gc.disable()  # what goes away then was part of no cycle
    try:
        assert not _still_there_after_a_failed_call(url)
        assert not asyncio.run(_still_there_after_a_failed_async_call(url))
    finally:
        gc.enable()
