"""What held-out rows as they are do not show: what rounding loses, missing values, and where answers may flip."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritium.client import InputError
from tritium.repository import Difference, Tolerance, compare, is_float, rows_alike, rows_within

from ._errors import ParityError
from ._export import Array, Run
from ._sklearn_outputs import answers
from ._sklearn_rows import Rows, float_columns, lost_by_rounding, parts, take

Judge = Callable[[Any, Mapping[str, Array], Mapping[str, Array]], list[Difference]]
NEIGHBOURS = ("sklearn.impute._knn", "sklearn.neighbors")
# Columns that get missing values, and rows for each.
_COLUMNS, _ROWS = 64, 8
# How far beside a row a threshold may lie, in units in the last place of a column's largest value.
_ULPS = (1, 4, 16)
# The share of a column's standard deviation by which rounding may move what decides by thresholds: a value that lies on
# one falls on either side however little it is moved.
_LOST = 1e-5


def check_rounding(estimator: Any, rows: Rows, expected: Mapping[str, Array], tolerance: Tolerance) -> None:
    """Compare an estimator's answers to rows as they came with those to rows as a request carries them.

    Raises:
        InputError: float32 loses what the estimator needs.
    """
    lost = lost_by_rounding(rows)
    if not lost or (tolerance.agreement < 1 and max(lost.values()) <= _LOST):
        return
    exact, rounded = _without_shared_nan(answers(estimator, rows.exact), expected)
    wrong = [difference for difference in compare(exact, rounded, tolerance) if not difference.ok]
    if wrong:
        column, share = max(lost.items(), key=lambda item: item[1])
        raise InputError(
            f"A model gets its floats as float32, which loses what this {type(estimator).__name__} needs: it answers "
            f"the held-out rows otherwise once they are rounded ({wrong[0]}). {column} loses most, up to {share:.1g} "
            "of its standard deviation. Before fitting, subtract an offset from it, such as the first day from a "
            "timestamp, or give it in a coarser unit; or round all rows to float32 before fitting, and here"
        )


def check_missing(
    name: str, estimator: Any, held_out: Any, read: Callable[[Any], Rows], run: Run, judge: Judge
) -> None:
    """Compare answers to copies of held-out rows of which each lacks one value, if the estimator takes such rows.

    Args:
        name: the model's.
        estimator: fitted.
        held_out: rows as they came.
        read: from such rows to what estimator and model take.
        run: the model.
        judge: compares answers to rows.

    Raises:
        ParityError: the model answers them otherwise.
    """
    lacking = _lacking(held_out)
    if lacking is None:
        return
    try:
        rows = read(lacking)
        expected = answers(estimator, rows.given)
    except InputError:
        return
    if any(np.isinf(array).any() for array in expected.values() if is_float(array)):
        return
    wanted, got = _without_shared_nan(expected, run(rows.inputs, list(expected)))
    differences = judge(rows.given, wanted, got)
    if any(not difference.ok for difference in differences):
        raise ParityError(
            name,
            [
                replace(item, detail=f"with a value missing in each row: {item.detail}") if item.detail else item
                for item in differences
            ],
        )


def by_tolerance(tolerance: Tolerance) -> Judge:
    """A judge who counts the rows that disagree, wherever they lie."""
    return lambda _given, expected, got: compare(expected, got, tolerance)


def near_thresholds(estimator: Any, tolerance: Tolerance) -> Judge:
    """A judge who lets a row disagree only if the estimator, asked right beside it, answers as the model does.

    Neighbours that are equally near are so for all rows around, and any of them may count; and text lies beside no
    other text: both are judged by the tolerance alone.
    """
    neighbours = any(type(part).__module__.startswith(NEIGHBOURS) for part in parts(estimator))

    def judge(given: Any, expected: Mapping[str, Array], got: Mapping[str, Array]) -> list[Difference]:
        found = compare(expected, got, tolerance)
        if neighbours or not float_columns(given) or any(not difference.ok for difference in found):
            return found
        astray = np.flatnonzero(~rows_alike(expected, got, tolerance) & ~_tied(expected, got, tolerance))
        for moved in _beside(given) if astray.size else ():
            try:
                answered = answers(estimator, take(moved, astray))
            except InputError:
                continue
            there = {key: array[astray] for key, array in got.items()}
            astray = astray[~rows_alike(*_without_shared_nan(answered, there), tolerance)]
            if not astray.size:
                break
        return [_astray(difference, int(astray[0])) for difference in found] if astray.size else found

    return judge


def _astray(difference: Difference, row: int) -> Difference:
    if not difference.detail:
        return difference
    detail = f"{difference.detail}; row {row} lies next to no threshold that could excuse it"
    return replace(difference, ok=False, detail=detail)


def _tied(expected: Mapping[str, Array], got: Mapping[str, Array], tolerance: Tolerance) -> NDArray[np.bool_]:
    """Which rows differ in their label alone, between classes that are as probable as each other."""
    key = next((key for key in ("probabilities", "scores") if key in expected), None)
    if key is None:
        return np.zeros(len(next(iter(expected.values()))), dtype=np.bool_)
    values = expected[key]
    single = values.shape[-1] == 1
    best = np.sort(np.concatenate([values, np.zeros_like(values)], axis=-1) if single else values, axis=-1)[..., -2:]
    near = best[..., 1] - best[..., 0] <= 2 * tolerance.atol
    if single:
        near = np.abs(values[..., 0]) <= 2 * tolerance.atol
    tied: NDArray[np.bool_] = near.reshape(len(values), -1).any(axis=1) & rows_within(values, got[key], tolerance)
    return tied


def _without_shared_nan(
    expected: Mapping[str, Array], got: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Both, with 0 where both are NaN: there they agree."""
    pairs = {}
    for key, array in expected.items():
        other = got[key]
        if is_float(array) and is_float(other) and array.shape == other.shape:
            shared = np.isnan(array) & np.isnan(other)
            array, other = np.where(shared, 0, array), np.where(shared, 0, other)
        pairs[key] = array, other
    return {key: pair[0] for key, pair in pairs.items()}, {key: pair[1] for key, pair in pairs.items()}


def _lacking(held_out: Any) -> Any:
    """Copies of held-out rows with NaN in one column each; None if no column could have it."""
    columns = float_columns(held_out)
    if not columns:
        return None
    chosen = sorted({int(place) for place in np.linspace(0, len(columns) - 1, _COLUMNS)})
    rows = take(held_out, np.arange(len(chosen) * _ROWS) % len(held_out))
    for number, place in enumerate(chosen):
        lines = slice(number * _ROWS, (number + 1) * _ROWS)
        if hasattr(rows, "iloc"):
            rows.iloc[lines, columns[place]] = np.nan
        else:
            rows[lines, columns[place]] = np.nan
    return rows


def _beside(given: Any) -> Iterator[Any]:
    """Rows with every float moved a little: all up, all down, and by chance."""
    columns = float_columns(given)
    if not columns:
        return
    generator = np.random.default_rng(0)
    frame = hasattr(given, "iloc")
    values = np.column_stack([given.iloc[:, place] if frame else given[:, place] for place in columns])
    largest = np.max(np.abs(np.where(np.isfinite(values), values, 0)), axis=0)
    for ulps in _ULPS:
        by_chance = generator.choice([-1.0, 1.0], size=(6, *values.shape))
        for signs in (np.ones_like(values), -np.ones_like(values), *by_chance):
            moved = values + signs * ulps * np.spacing(largest.astype(np.float32))
            rows = given.copy()
            for place, column in zip(columns, moved.T, strict=True):
                if frame:
                    rows.isetitem(place, column)
                else:
                    rows[:, place] = column
            yield rows
