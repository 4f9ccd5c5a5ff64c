"""From a caller's value to the tensor that a model declares, and back."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tritium.client import InputError, Outputs, TensorSpec, numpy_dtype, triton_dtype
from tritium.client._tensors import check_shape, coerce, decode_strings, fit_batch

DTYPES = {
    "BOOL": np.bool_,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "FP16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}


def spec(dtype: str, shape: tuple[int, ...] = (-1,), name: str = "x") -> TensorSpec:
    return TensorSpec(name, dtype, shape)


# dtypes


@pytest.mark.parametrize(("name", "dtype"), DTYPES.items())
def test_triton_dtype_has_its_numpy_dtype(name: str, dtype: type) -> None:
    assert numpy_dtype(name) == np.dtype(dtype)


@pytest.mark.parametrize(("name", "dtype"), DTYPES.items())
def test_numpy_dtype_has_its_triton_dtype(name: str, dtype: type) -> None:
    assert triton_dtype(np.dtype(dtype)) == name


@pytest.mark.parametrize("dtype", [np.dtype("U3"), np.dtype("S3"), np.dtypes.StringDType()], ids=str)
def test_every_kind_of_string_is_bytes(dtype: np.dtype[Any]) -> None:
    assert triton_dtype(dtype) == "BYTES"


@pytest.mark.parametrize("name", ["", "FLOAT32", "fp32", "TYPE_FP32", "STRING"])
def test_unknown_triton_dtype_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name!r} is not a Triton dtype"):
        numpy_dtype(name)


@pytest.mark.parametrize("dtype", ["datetime64[s]", "timedelta64[s]", "complex64"])
def test_numpy_dtype_that_triton_lacks_is_refused(dtype: str) -> None:
    with pytest.raises(InputError, match="Triton has no dtype for numpy's"):
        triton_dtype(np.dtype(dtype))


# coerce


@pytest.mark.parametrize("name", DTYPES)
def test_array_of_the_declared_dtype_is_not_copied(name: str) -> None:
    array = np.zeros(3, DTYPES[name]) if name != "BYTES" else np.array(["a", b"b"], dtype=object)
    assert coerce(array, spec(name)) is array


@pytest.mark.parametrize(
    ("given", "declared"),
    [
        ("int8", "INT64"),
        ("uint8", "INT16"),
        ("uint32", "UINT64"),
        ("int32", "FP64"),
        ("uint8", "FP32"),
        ("float16", "FP32"),
        ("float32", "FP64"),
        ("bfloat16", "FP32"),
        ("bool", "INT32"),
        ("bool", "FP32"),
    ],
)
def test_array_is_cast_where_no_value_can_change(given: str, declared: str) -> None:
    array = coerce(np.array([0, 1, 1]).astype(given), spec(declared))
    assert array.dtype == numpy_dtype(declared)
    np.testing.assert_array_equal(array, [0, 1, 1])


@pytest.mark.parametrize(
    ("given", "declared"),
    [
        ("float64", "FP32"),
        ("float32", "FP16"),
        ("float32", "BF16"),
        ("float32", "INT64"),
        ("int64", "INT32"),
        ("int64", "FP32"),
        ("uint64", "INT64"),
        ("int64", "UINT64"),
        ("int64", "BOOL"),
        ("float32", "BOOL"),
        ("complex64", "FP32"),
        ("datetime64[s]", "INT64"),
        ("timedelta64[s]", "INT64"),
        ("U1", "FP32"),
        ("object", "FP32"),
    ],
)
def test_array_is_refused_where_a_value_could_change(given: str, declared: str) -> None:
    with pytest.raises(InputError, match=f"Input 'x' must be {declared} "):
        coerce(np.array([0, 1]).astype(given), spec(declared))


def test_refused_float64_says_how_to_cast_it() -> None:
    with pytest.raises(InputError) as caught:
        coerce(np.zeros(2), spec("FP32"))
    assert str(caught.value) == (
        "Input 'x' must be FP32 (float32), got float64 instead; if losing precision is fine, pass x.astype('float32')"
    )


@pytest.mark.parametrize(
    ("value", "declared"),
    [
        pytest.param([0.5, 1.5], "FP32", id="floats"),
        pytest.param([0.5, 1.5], "FP16", id="floats-half"),
        pytest.param([0.5, 1.5], "BF16", id="floats-bfloat16"),
        pytest.param([[1, 2], [3, 4]], "FP32", id="ints-as-floats"),
        pytest.param([1, 2], "BF16", id="ints-as-bfloat16"),
        pytest.param([1, 2], "INT32", id="ints"),
        pytest.param([0, 255], "UINT8", id="ints-at-the-limits"),
        pytest.param([True, False], "BOOL", id="bools"),
        pytest.param((1, 2), "INT64", id="tuple"),
        pytest.param(3, "INT64", id="scalar"),
        pytest.param(0.5, "FP32", id="scalar-float"),
        pytest.param([], "INT64", id="empty"),
    ],
)
def test_list_or_scalar_takes_the_declared_dtype(value: Any, declared: str) -> None:
    array = coerce(value, spec(declared))
    assert array.dtype == numpy_dtype(declared)
    np.testing.assert_array_equal(array.astype(np.float64), value)


@pytest.mark.parametrize(
    ("value", "declared"),
    [
        pytest.param([256], "UINT8", id="above"),
        pytest.param([-1], "UINT8", id="below"),
        pytest.param([2**63], "INT64", id="beyond-int64"),
        pytest.param([2**70], "INT64", id="beyond-uint64"),
        pytest.param([0.5], "INT32", id="fraction"),
        pytest.param([1], "BOOL", id="int-as-bool"),
        pytest.param(["1"], "INT32", id="text"),
        pytest.param([None], "FP32", id="none"),
        # A cast gives infinity, with no more than a warning.
        pytest.param([1e300], "FP32", id="beyond-float32"),
        pytest.param([70000.0], "FP16", id="beyond-float16"),
    ],
)
def test_list_that_does_not_fit_the_declared_dtype_is_refused(value: Any, declared: str) -> None:
    with pytest.raises(InputError, match=f"Input 'x' must be {declared} "):
        coerce(value, spec(declared))


def test_nan_and_infinity_of_a_list_pass() -> None:
    np.testing.assert_array_equal(coerce([np.nan, np.inf], spec("FP32")), np.array([np.nan, np.inf], np.float32))


@pytest.mark.parametrize("dtype", [">f4", ">f2"])
def test_big_endian_array_becomes_native(dtype: str) -> None:
    array = coerce(np.array([1.5, -2.0], dtype=dtype), spec("FP32"))
    assert array.dtype.isnative
    np.testing.assert_array_equal(array, [1.5, -2.0])


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(["a", "é"], id="list-str"),
        pytest.param([b"a", "é".encode()], id="list-bytes"),
        pytest.param(np.array(["a", "é"]), id="unicode"),
        pytest.param(np.array([b"a", "é".encode()]), id="bytes"),
        pytest.param(np.array(["a", "é".encode()], dtype=object), id="object"),
        pytest.param(np.array(["a", "é"], dtype=np.dtypes.StringDType()), id="string-dtype"),
    ],
)
def test_strings_become_an_object_array(value: Any) -> None:
    array = coerce(value, spec("BYTES"))
    assert array.dtype == object
    assert [item.encode() if isinstance(item, str) else item for item in array] == [b"a", "é".encode()]


def test_empty_list_is_an_empty_tensor_of_strings() -> None:
    array = coerce([], spec("BYTES"))
    assert (array.dtype, array.shape) == (np.dtype(object), (0,))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param([1, 2], id="ints"),
        pytest.param(np.zeros(2), id="floats"),
        # Sent on, these would arrive as the words "None" and "1".
        pytest.param(["a", None], id="none-among-strings"),
        pytest.param(np.array(["a", 1], dtype=object), id="int-among-strings"),
    ],
)
def test_anything_but_strings_is_refused_for_bytes(value: Any) -> None:
    with pytest.raises(InputError, match="Input 'x' must hold strings or bytes"):
        coerce(value, spec("BYTES"))


@pytest.mark.parametrize(
    ("value", "declared"), [([[1.0, 2.0], [3.0]], "FP32"), ([["a"], ["b", "c"]], "BYTES")], ids=["numbers", "strings"]
)
def test_ragged_list_is_refused(value: Any, declared: str) -> None:
    with pytest.raises(InputError, match="Input 'x' is not rectangular"):
        coerce(value, spec(declared))


# fit_batch and check_shape

A, B = spec("FP32", (-1, 3), "a"), spec("FP32", (-1,), "b")


def test_batch_axis_that_no_input_has_is_added_to_all() -> None:
    arrays, added = fit_batch({"a": np.zeros(3), "b": np.zeros(())}, [A, B])
    assert added
    assert {name: array.shape for name, array in arrays.items()} == {"a": (1, 3), "b": (1,)}


def test_batch_axis_that_every_input_has_is_kept() -> None:
    arrays, added = fit_batch({"a": np.zeros((2, 3)), "b": np.zeros(2)}, [A, B])
    assert not added
    assert {name: array.shape for name, array in arrays.items()} == {"a": (2, 3), "b": (2,)}


def test_batch_axis_is_added_without_a_copy() -> None:
    row = np.zeros(3)
    arrays, _ = fit_batch({"a": row}, [A])
    assert arrays["a"].base is row


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        pytest.param({"a": np.zeros((2, 3)), "b": np.zeros(5)}, "got a: 2, b: 5", id="numbers-of-rows-differ"),
        pytest.param({"a": np.zeros((2, 3)), "b": np.zeros(())}, "got a: 2, b: None", id="one-lacks-the-axis"),
    ],
)
def test_inputs_that_disagree_on_the_rows_are_refused(arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"All inputs must have the same number of rows, {message}"):
        fit_batch(arrays, [A, B])


@pytest.mark.parametrize(
    ("shape", "declared"),
    [((4, 3), (-1, 3)), ((1, 3), (-1, 3)), ((2, 5, 7), (-1, -1, -1)), ((3,), (3,)), ((), ())],
)
def test_shape_that_fits_passes(shape: tuple[int, ...], declared: tuple[int, ...]) -> None:
    check_shape(np.zeros(shape), spec("FP32", declared), batched=bool(declared))


@pytest.mark.parametrize(
    ("shape", "declared", "batched", "message"),
    [
        ((2, 4), (-1, 3), True, "must have shape (rows, 3) (or one row, (3,)), got (2, 4) instead"),
        ((2, 3, 1), (-1, 3), True, "must have shape (rows, 3) (or one row, (3,)), got (2, 3, 1) instead"),
        ((2, 1, 9), (-1, 1, -1, 9), True, "shape (rows, 1, any, 9) (or one row, (1, any, 9)), got (2, 1, 9) instead"),
        ((2,), (3,), False, "must have shape (3,), got (2,) instead"),
        ((), (-1, 3), False, "must have shape (any, 3), got () instead"),
    ],
)
def test_shape_that_does_not_fit_is_refused(
    shape: tuple[int, ...], declared: tuple[int, ...], batched: bool, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        check_shape(np.zeros(shape), spec("FP32", declared), batched=batched)
    assert message in str(caught.value)


def test_spec_reads_as_people_write_it() -> None:
    assert str(spec("FP32", (-1, 1, 28, 28), "image")) == "image FP32[-1,1,28,28]"


# decode_strings


def test_utf8_is_decoded_in_its_shape() -> None:
    decoded = decode_strings(np.array([[b"a", "é".encode()], [b"", b"c"]], dtype=object))
    assert decoded.tolist() == [["a", "é"], ["", "c"]]


def test_one_item_that_is_no_utf8_leaves_all_as_bytes() -> None:
    array = np.array([b"a", b"\xff"], dtype=object)
    assert decode_strings(array).tolist() == [b"a", b"\xff"]


def test_text_stays_text() -> None:
    assert decode_strings(np.array(["a", b"b"], dtype=object)).tolist() == ["a", "b"]


@pytest.mark.parametrize("shape", [(0,), (0, 2)])
def test_no_strings_keep_their_shape(shape: tuple[int, ...]) -> None:
    assert decode_strings(np.empty(shape, dtype=object)).shape == shape


def test_numbers_pass_through_the_decoding() -> None:
    array = np.arange(3)
    assert decode_strings(array) is array


# Outputs


@pytest.fixture
def outputs() -> Outputs:
    return Outputs({"label": np.array([7, 1]), "class-name": np.array(["seven", "one"], dtype=object)})


def test_output_is_found_by_name(outputs: Outputs) -> None:
    assert outputs["label"].tolist() == [7, 1]


def test_output_is_found_as_an_attribute(outputs: Outputs) -> None:
    assert outputs.label is outputs["label"]


def test_outputs_are_a_mapping_in_order(outputs: Outputs) -> None:
    assert list(outputs) == list(dict(outputs)) == ["label", "class-name"]
    assert len(outputs) == 2


def test_unknown_output_is_a_key_error(outputs: Outputs) -> None:
    with pytest.raises(KeyError, match="lable"):
        outputs["lable"]


def test_unknown_attribute_lists_the_outputs(outputs: Outputs) -> None:
    with pytest.raises(AttributeError, match="no output is called 'lable'; there are label, class-name"):
        _ = outputs.lable


def test_outputs_show_dtypes_shapes_and_values_in_short() -> None:
    many = np.arange(10_000, dtype=np.float32).reshape(100, 100)
    shown = repr(Outputs({"label": np.array([3, 1]), "scores": many}))
    assert shown.splitlines()[:2] == ["Outputs(", "  label int64(2,): [3, 1]"]
    assert shown.splitlines()[2].startswith("  scores float32(100, 100): [[   0.,    1., ..., ")
    assert len(shown) < 400


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda result: pickle.loads(pickle.dumps(result))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_outputs_survive_being_copied(outputs: Outputs, copied: Callable[[Outputs], Outputs]) -> None:
    again = copied(outputs)
    assert {name: array.tolist() for name, array in again.items()} == {
        name: array.tolist() for name, array in outputs.items()
    }
