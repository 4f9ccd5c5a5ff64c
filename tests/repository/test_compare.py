"""When two outputs are the same."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from tritium.repository import Difference, Tolerance, compare

Array = NDArray[Any]
LOOSE = Tolerance(atol=0.5, rtol=0.0)


def one(expected: Any, got: Any, tolerance: Tolerance = Tolerance()) -> Difference:
    (difference,) = compare({"y": expected}, {"y": got}, tolerance)
    return difference


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize(("got", "ok"), [(1.25, True), (1.5, True), (1.75, False), (0.25, False)])
def test_floats_may_differ_by_the_tolerance(dtype: str, got: float, ok: bool) -> None:
    difference = one(np.array([1.0]).astype(dtype), np.array([got]).astype(dtype), LOOSE)
    assert (difference.measure, difference.value, difference.ok) == ("max |Δ|", abs(got - 1.0), ok)


@pytest.mark.parametrize(("expected", "got", "ok"), [(100.0, 109.0, True), (100.0, 111.0, False), (1.0, 1.2, False)])
def test_relative_tolerance_grows_with_what_is_expected(expected: float, got: float, ok: bool) -> None:
    assert one(np.array([expected]), np.array([got]), Tolerance(atol=0.0, rtol=0.1)).ok is ok


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_answer_that_is_not_finite_is_within_no_tolerance(value: float) -> None:
    difference = one(np.zeros(3), np.array([0.0, value, 0.0]), Tolerance(atol=1e30))
    assert (difference.ok, difference.value) == (False, float("inf"))


def test_worst_of_the_floats_is_reported() -> None:
    difference = one(np.zeros((2, 2)), np.array([[0.1, 0.0], [0.3, 0.2]]), LOOSE)
    assert difference == Difference("y", "max |Δ|", 0.3, ok=True)


def test_first_place_that_is_wrong_is_named() -> None:
    difference = one(np.zeros((2, 2)), np.array([[0.1, 0.0], [0.9, 0.8]]), LOOSE)
    assert difference.detail.startswith("2 of 4 differ, first at (1, 0): ")


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool"])
def test_labels_must_be_equal(dtype: str) -> None:
    difference = one(np.array([0, 1, 1, 0]).astype(dtype), np.array([0, 1, 0, 0]).astype(dtype), LOOSE)
    assert (difference.measure, difference.value, difference.ok) == ("agreement", 0.75, False)


def test_equal_labels_agree_in_full() -> None:
    assert one(np.array([3, 1]), np.array([3, 1])) == Difference("y", "agreement", 1.0, ok=True)


@pytest.mark.parametrize("got", ["U", "S", "object-str", "object-bytes"])
@pytest.mark.parametrize("expected", ["U", "S", "object-str", "object-bytes"])
def test_strings_and_bytes_of_the_same_text_are_equal(expected: str, got: str) -> None:
    kinds: dict[str, Array] = {
        "U": np.array(["a", "é"]),
        "S": np.array([b"a", "é".encode()]),
        "object-str": np.array(["a", "é"], dtype=object),
        "object-bytes": np.array([b"a", "é".encode()], dtype=object),
    }
    assert one(kinds[expected], kinds[got]) == Difference("y", "agreement", 1.0, ok=True)


def test_strings_that_differ_are_counted() -> None:
    difference = one(np.array(["a", "b"], dtype=object), np.array([b"a", b"c"], dtype=object))
    assert (difference.value, difference.ok) == (0.5, False)
    assert "first at (1,)" in difference.detail


@pytest.mark.parametrize(
    ("expected", "got", "value"),
    [(np.zeros((2, 3)), np.zeros((3, 2)), float("inf")), (np.zeros(2, np.int64), np.zeros((2, 1), np.int64), 0.0)],
    ids=["floats", "labels"],
)
def test_other_shape_is_as_wrong_as_can_be(expected: Array, got: Array, value: float) -> None:
    difference = one(expected, got, LOOSE)
    assert (difference.ok, difference.value) == (False, value)
    assert difference.detail == f"shape {got.shape} instead of {expected.shape}"


@pytest.mark.parametrize(
    ("expected", "got"),
    [("float32", "int64"), ("int64", "float32"), ("int64", "object"), ("object", "int64"), ("bool", "uint8")],
)
def test_other_kind_of_dtype_is_wrong(expected: str, got: str) -> None:
    difference = one(np.array([1]).astype(expected), np.array([1]).astype(got))
    assert (difference.ok, difference.detail) == (False, f"{got} instead of {expected}")


def test_bfloat16_is_not_taken_for_another_float() -> None:
    assert not one(np.ones(1, ml_dtypes.bfloat16), np.ones(1, np.float32)).ok


def test_missing_output_is_wrong() -> None:
    (difference,) = compare({"y": np.zeros(1)}, {"z": np.zeros(1)})
    assert difference == Difference("y", "max |Δ|", float("inf"), ok=False, detail="the output is missing")


def test_output_that_nobody_expects_is_passed_over() -> None:
    assert [d.output for d in compare({"y": np.zeros(1)}, {"y": np.zeros(1), "z": np.zeros(1)})] == ["y"]


@pytest.mark.parametrize("dtype", ["float32", "int64", "object"])
def test_no_elements_do_not_differ(dtype: str) -> None:
    assert one(np.empty((0, 3), dtype), np.empty((0, 3), dtype)).ok


@pytest.mark.parametrize(("expected", "got"), [(1.0, 2.0), (1, 2), ("a", "b")])
def test_arrays_without_axes_are_compared(expected: Any, got: Any) -> None:
    dtype = object if isinstance(expected, str) else None
    assert not one(np.array(expected, dtype), np.array(got, dtype)).ok


@pytest.mark.parametrize(
    ("difference", "text"),
    [
        (Difference("p", "max |Δ|", 2.4e-7, ok=True), "p: max |Δ| 2.4e-07"),
        (Difference("label", "agreement", 0.75, ok=False, detail="1 of 4"), "label: agreement 75.0% (1 of 4)"),
    ],
)
def test_difference_reads_as_people_write_it(difference: Difference, text: str) -> None:
    assert str(difference) == text
