"""Held-out rows for scikit-learn: arrays, texts and DataFrames, and the inputs that a model has for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tritium.client import InputError

from ._export import Array
from ._sklearn_outputs import answers

_NUMBERS = "biuf"
_LARGEST = np.iinfo(np.int64).max


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Held-out rows, seen from three sides.

    Attributes:
        given: as the estimator takes them, floats rounded to float32; those that it takes only in the dtype that they
            came in are in that.
        exact: as they came.
        inputs: as the model takes them, by input name.
        variables: as the converter sees them, by variable name: columns, or a matrix of them.
        columns: for each input that holds several columns, their names.
    """

    given: Any
    exact: Any
    inputs: Mapping[str, Array]
    variables: Mapping[str, Array]
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)


def read_rows(
    estimator: Any, held_out: Any, input_name: str, column_groups: Mapping[str, Sequence[str]] | None = None
) -> Rows:
    """Take held-out rows as they come.

    Raises:
        InputError: they cannot be the input of a model, or the estimator was fitted on others.
    """
    _check_fitted(estimator)
    if hasattr(held_out, "iloc") and hasattr(held_out, "columns"):
        rows = _read_frame(estimator, held_out, input_name, column_groups or {})
    elif column_groups:
        raise InputError("The 'column_groups' parameter needs held-out rows as a DataFrame, whose columns have names")
    else:
        exact = np.asarray(held_out) if hasattr(held_out, "__array__") else held_out
        array = _read_array(estimator, held_out)
        rows = Rows(given=array, exact=exact, inputs={input_name: array}, variables={input_name: _plain(array)})
    try:
        answers(estimator, take(rows.given, np.arange(1)))
    except InputError:
        # Such as centres that were fitted on float64.
        return replace(rows, given=_in_dtype_of(rows.exact, rows.given))
    return rows


def parts(estimator: Any) -> Iterator[Any]:
    """An estimator and every fitted estimator inside it."""
    from sklearn.base import BaseEstimator

    seen: set[int] = set()
    waiting: list[Any] = [estimator]
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Mapping):
            waiting += item.values()
        elif isinstance(item, list | tuple) or (isinstance(item, np.ndarray) and item.dtype == object):
            waiting += list(item)
        elif isinstance(item, BaseEstimator):
            yield item
            waiting += vars(item).values()


def take(rows: Any, places: Array) -> Any:
    """A copy of some rows."""
    return rows.iloc[places].copy() if hasattr(rows, "iloc") else np.asarray(rows)[places].copy()


def _in_dtype_of(exact: Any, given: Any) -> Any:
    """Rounded rows in the float that they came in."""
    if not hasattr(given, "iloc"):
        return given.astype(np.asarray(exact).dtype) if given.dtype.kind == "f" else given
    restored = given.copy()
    for place in float_columns(exact):
        restored.isetitem(place, given.iloc[:, place].astype(_values(exact.iloc[:, place]).dtype))
    return restored


def float_columns(rows: Any) -> list[int]:
    """The places of the columns of floats, in a DataFrame or a matrix."""
    if hasattr(rows, "iloc"):
        return [place for place, dtype in enumerate(rows.dtypes) if getattr(dtype, "kind", "") == "f"]
    array = np.asarray(rows)
    return list(range(array.shape[1])) if array.ndim == 2 and array.dtype.kind == "f" else []


def lost_by_rounding(rows: Rows) -> dict[str, float]:
    """By how much of its standard deviation each column is moved by rounding to float32, if it is."""
    frame = hasattr(rows.exact, "iloc")
    lost = {}
    for place in float_columns(rows.exact):
        column = _values(rows.exact.iloc[:, place]) if frame else np.asarray(rows.exact)[:, place]
        moved = np.nan_to_num(np.abs(column - column.astype(np.float32)))
        if moved.any():
            name = f"The column {str(rows.exact.columns[place])!r}" if frame else f"Column {place}"
            lost[name] = float(moved.max() / max(np.nanstd(column), np.finfo(np.float64).tiny))
    return lost


def _check_fitted(estimator: Any) -> None:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    name = type(estimator).__name__
    try:
        check_is_fitted(estimator)
    except NotFittedError as exc:
        raise InputError(f"This {name} is not fitted; call its fit, and then export it") from exc
    except TypeError as exc:
        raise InputError(
            f"The 'estimator' parameter must be a fitted scikit-learn estimator or Pipeline, got {name} instead"
        ) from exc


def _read_array(estimator: Any, held_out: Any) -> Array:
    if hasattr(held_out, "tocsr"):
        raise InputError("Held-out rows must be dense, as requests are: pass held_out.toarray()")
    if isinstance(held_out, Sequence) and len(held_out) and isinstance(held_out[0], Mapping | list | tuple | set):
        ragged = isinstance(held_out[0], Mapping | set) or len({len(row) for row in held_out}) > 1
        if ragged or any(isinstance(value, str) for value in held_out[0]):
            raise InputError(
                f"Held-out rows must be an array or a DataFrame, got {type(held_out[0]).__name__} rows instead, which "
                "no tensor holds; fit on an array, in which every row has the same columns"
            )
    array = np.asarray(held_out)
    if array.ndim == 0 or not array.size:
        raise InputError(f"Held-out rows must be at least one, got an array of shape {array.shape} instead")
    expected = getattr(estimator, "n_features_in_", None)
    if array.ndim == 1 and array.dtype.kind in _NUMBERS and expected is not None:
        raise InputError(
            f"Held-out rows must have the shape (rows, {expected}), got ({len(array)},) instead; one row is "
            "rows.reshape(1, -1)"
        )
    if expected is not None and array.ndim == 2 and array.shape[1] != expected:
        raise InputError(
            f"This {type(estimator).__name__} was fitted on {expected} features, and the held-out rows have "
            f"{array.shape[1]}"
        )
    return _tensor(array, "Held-out rows")


def _tensor(array: Array, what: str) -> Array:
    """Values as the tensor of a request has them."""
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            single = np.ascontiguousarray(array, dtype=np.float32)
        if not np.array_equal(np.isfinite(single), np.isfinite(array)):
            raise InputError(
                f"{what} must fit into float32, got {np.nanmax(np.abs(array)):g}; scale them before fitting"
            )
        return single
    if array.dtype.kind == "b":
        return np.ascontiguousarray(array)
    if array.dtype.kind in "iu":
        if array.dtype.kind == "u" and array.max(initial=0) > _LARGEST:
            raise InputError(
                f"{what} must fit into int64, which ends at {_LARGEST}, got {array.max()} instead; give such numbers "
                "as text if they are names, or as floats"
            )
        return np.ascontiguousarray(array, dtype=np.int64)
    strings = np.asarray(array, dtype=object)
    odd = [item for item in strings.ravel() if not isinstance(item, str)]
    if odd:
        missing = odd[0] is None or odd[0] != odd[0] or type(odd[0]).__name__ == "NAType"
        raise InputError(
            f"{what} must be numbers or text, got {odd[0]!r} among {array.dtype} values instead. "
            + (
                "ONNX has no missing text: fill it with a word of its own, such as 'missing', before fitting"
                if missing
                else "Give each column one type"
            )
        )
    return strings


def _plain(array: Array) -> Array:
    """What the converter sees: skl2onnx knows no booleans worth the name."""
    return array.astype(np.int64) if array.dtype.kind == "b" else array


def _read_frame(estimator: Any, frame: Any, input_name: str, groups: Mapping[str, Sequence[str]]) -> Rows:
    names = [str(name) for name in frame.columns]
    if not len(frame) or not names:
        raise InputError(f"Held-out rows must be at least one, got a DataFrame of shape {frame.shape} instead")
    if len(set(names)) < len(names):
        raise InputError(f"The columns of held-out rows must have names of their own, got {names} instead")
    fitted_on = getattr(estimator, "feature_names_in_", None)
    if fitted_on is not None and list(fitted_on) != list(frame.columns):
        raise InputError(
            f"This {type(estimator).__name__} was fitted on the columns {list(fitted_on)}, and the held-out rows have "
            f"{names}"
        )
    columns = {
        name: _tensor(_values(frame.iloc[:, place]), f"The column {name!r}")[:, np.newaxis]
        for place, name in enumerate(names)
    }
    given = frame.copy()
    for place, column in enumerate(columns.values()):
        if column.dtype.kind == "f" and not hasattr(frame.dtypes.iloc[place], "categories"):
            given.isetitem(place, column[:, 0])
    _check_groups(groups, columns)
    kinds = {column.dtype.kind for column in columns.values()}
    numbers = not kinds - set(_NUMBERS)
    by_name = any(type(part).__name__ == "ColumnTransformer" for part in parts(estimator))
    if not groups and len(kinds) == 1 and numbers and not by_name:
        matrix = np.hstack(list(columns.values()))
        return Rows(
            given=given,
            exact=frame,
            inputs={input_name: matrix},
            variables={input_name: _plain(matrix)},
            columns={input_name: names},
        )
    variables: Mapping[str, Array] = {name: _plain(column) for name, column in columns.items()}
    if "f" in kinds:
        # skl2onnx joins columns only of one dtype.
        variables = {
            name: _as_float(column, name) if column.dtype.kind == "i" else column for name, column in variables.items()
        }
    if numbers and not by_name:
        variables = {input_name: np.hstack(list(variables.values()))}
    grouped = {name: group for group, members in groups.items() for name in members}
    inputs: dict[str, Array] = {}
    for name, column in columns.items():
        if name not in grouped:
            inputs[name] = column
        elif grouped[name] not in inputs:
            inputs[grouped[name]] = np.hstack([columns[member] for member in groups[grouped[name]]])
    return Rows(
        given=given,
        exact=frame,
        inputs=inputs,
        variables=variables,
        columns={key: list(groups[key]) for key in groups},
    )


def _as_float(column: Array, name: str) -> Array:
    """Whole numbers as float32, which counts up to 2**24 one by one."""
    single = column.astype(np.float32)
    with np.errstate(invalid="ignore"):
        changed = single.astype(np.int64) != column
    if changed.any():
        raise InputError(
            f"The column {name!r} has whole numbers beside columns of floats, with which it is joined as float32, and "
            f"that changes them: {column[changed][0]} becomes {single[changed][0]:.0f}. Subtract an offset before "
            "fitting, or give it in a coarser unit, or as text if its numbers are names"
        )
    return single


def _values(series: Any) -> Array:
    """A column's values, categories as what they stand for."""
    dtype = getattr(getattr(series.dtype, "categories", None), "dtype", series.dtype)
    if dtype.kind not in _NUMBERS:
        return np.asarray(series.astype(object))
    if dtype.kind != "f" and series.isna().any():
        dtype = np.dtype(np.float64)
    return np.asarray(series.to_numpy(dtype=np.dtype(f"{dtype.kind}{dtype.itemsize}"), na_value=np.nan))


def _check_groups(groups: Mapping[str, Sequence[str]], columns: Mapping[str, Array]) -> None:
    members = [name for names in groups.values() for name in names]
    if unknown := sorted(set(members) - set(columns)):
        raise InputError(f"The 'column_groups' parameter names the column {unknown[0]!r}; there are {list(columns)}")
    if len(set(members)) != len(members) or not all(groups.values()):
        raise InputError(f"The 'column_groups' parameter must name each column once, got {dict(groups)} instead")
    if taken := sorted(set(groups) & set(columns)):
        raise InputError(f"The column group {taken[0]!r} must have a name that no column has")
    for group, names in groups.items():
        dtypes = {name: str(columns[name].dtype) for name in names}
        if len(set(dtypes.values())) > 1:
            raise InputError(f"The columns of the group {group!r} must have one dtype, got {dtypes} instead")
