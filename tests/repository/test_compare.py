"""When two outputs are the same."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from tritium.client import InputError
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
    assert (difference.max_abs, difference.max_rel, difference.ok) == (abs(got - 1.0), abs(got - 1.0), ok)


@pytest.mark.parametrize(("expected", "got", "ok"), [(100.0, 109.0, True), (100.0, 111.0, False), (1.0, 1.2, False)])
def test_relative_tolerance_grows_with_what_is_expected(expected: float, got: float, ok: bool) -> None:
    assert one(np.array([expected]), np.array([got]), Tolerance(atol=0.0, rtol=0.1)).ok is ok


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_answer_that_is_not_finite_is_within_no_tolerance(value: float) -> None:
    difference = one(np.zeros(3), np.array([0.0, value, 0.0]), Tolerance(atol=1e30))
    assert (difference.ok, difference.max_abs, difference.max_rel) == (False, float("inf"), float("inf"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_answer_that_is_not_finite_is_wrong_however_few_rows_must_agree(value: float) -> None:
    difference = one(np.zeros(1000), np.array([value] + [0.0] * 999), Tolerance(agreement=0.5))
    assert (difference.ok, difference.agreement) == (False, 0.999)


@pytest.mark.parametrize(("agreement", "ok"), [(0.75, True), (0.76, False)])
def test_enough_rows_must_agree(agreement: float, ok: bool) -> None:
    expected, got = np.zeros((4, 2)), np.array([[0, 0], [0, 9], [0, 0], [0, 0.0]])
    difference = one(expected, got, Tolerance(agreement=agreement))
    assert (difference.agreement, difference.ok) == (0.75, ok)
    assert difference.detail.startswith("1 of 8 differ, first at (1, 1): ")


def test_relative_difference_counts_what_is_next_to_nothing_as_the_absolute_tolerance() -> None:
    difference = one(np.array([1e-9, 10.0]), np.array([2e-9, 10.1]), Tolerance(atol=1e-5, rtol=1))
    assert difference.max_rel == pytest.approx(0.01)


def test_worst_of_the_floats_is_reported() -> None:
    difference = one(np.zeros((2, 2)), np.array([[0.1, 0.0], [0.3, 0.2]]), LOOSE)
    assert difference == Difference(output="y", ok=True, agreement=1.0, max_abs=0.3, max_rel=0.6)


def test_first_place_that_is_wrong_is_named() -> None:
    difference = one(np.zeros((2, 2)), np.array([[0.1, 0.0], [0.9, 0.8]]), LOOSE)
    assert difference.detail.startswith("2 of 4 differ, first at (1, 0): ")


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool"])
def test_labels_must_be_equal(dtype: str) -> None:
    difference = one(np.array([0, 1, 1, 0]).astype(dtype), np.array([0, 1, 0, 0]).astype(dtype), LOOSE)
    assert (difference.max_abs, difference.agreement, difference.ok) == (None, 0.75, False)


def test_equal_labels_agree_in_full() -> None:
    assert one(np.array([3, 1]), np.array([3, 1])) == Difference(output="y", ok=True, agreement=1.0)


@pytest.mark.parametrize("got", ["U", "S", "object-str", "object-bytes"])
@pytest.mark.parametrize("expected", ["U", "S", "object-str", "object-bytes"])
def test_strings_and_bytes_of_the_same_text_are_equal(expected: str, got: str) -> None:
    kinds: dict[str, Array] = {
        "U": np.array(["a", "é"]),
        "S": np.array([b"a", "é".encode()]),
        "object-str": np.array(["a", "é"], dtype=object),
        "object-bytes": np.array([b"a", "é".encode()], dtype=object),
    }
    assert one(kinds[expected], kinds[got]) == Difference(output="y", ok=True, agreement=1.0)


def test_strings_that_differ_are_counted() -> None:
    difference = one(np.array(["a", "b"], dtype=object), np.array([b"a", b"c"], dtype=object))
    assert (difference.agreement, difference.ok) == (0.5, False)
    assert "first at (1,)" in difference.detail


@pytest.mark.parametrize(
    ("expected", "got", "max_abs"),
    [(np.zeros((2, 3)), np.zeros((3, 2)), float("inf")), (np.zeros(2, np.int64), np.zeros((2, 1), np.int64), None)],
    ids=["floats", "labels"],
)
def test_other_shape_is_as_wrong_as_can_be(expected: Array, got: Array, max_abs: float | None) -> None:
    difference = one(expected, got, LOOSE)
    assert (difference.ok, difference.agreement, difference.max_abs) == (False, 0.0, max_abs)
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
    assert (difference.ok, difference.max_abs, difference.detail) == (False, float("inf"), "the output is missing")


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
    ("name", "value"),
    [
        ("atol", -1.0),
        ("atol", 1e9),
        ("atol", float("inf")),
        ("rtol", 2.0),
        ("agreement", 0.1),
        ("agreement", float("nan")),
    ],
)
def test_tolerance_that_proves_nothing_is_refused(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"A Tolerance's '{name}' must be from"):
        Tolerance(**{name: value}).check()


@pytest.mark.parametrize(
    ("difference", "text"),
    [
        (
            Difference(output="p", ok=True, agreement=1.0, max_abs=2.4e-7, max_rel=1e-3),
            "p: max |Δ| 2.4e-07 (relative 1.0e-03)",
        ),
        (Difference(output="p", ok=True, agreement=1.0, max_abs=0.0, max_rel=0.0), "p: max |Δ| 0 (relative 0)"),
        (
            Difference(output="p", ok=True, agreement=0.995, max_abs=0.1, max_rel=0.2),
            "p: max |Δ| 1.0e-01 (relative 2.0e-01), agreement 99.5%",
        ),
        (
            Difference(output="label", ok=False, agreement=0.75, detail="1 of 4"),
            "label: agreement 75.0% (1 of 4)",
        ),
    ],
)
def test_difference_reads_as_people_write_it(difference: Difference, text: str) -> None:
    assert str(difference) == text
