"""Between the arrays of the caller and the tensors that a model declares. Pure: nothing here does I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

from ._errors import InputError

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class TensorSpec:
    """What a model says of one input or output.

    Attributes:
        name: the tensor's name.
        dtype: Triton's name of the element type, such as ``FP32``, ``INT64`` or ``BYTES``.
        shape: one number an axis, -1 where any length is accepted; the batch axis, if the model has one, comes first.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        """As in ``image FP32[-1,1,28,28]``."""
        return f"{self.name} {self.dtype}[{','.join(map(str, self.shape))}]"


class Outputs(Mapping[str, Array]):
    """Several named arrays: ``result["label"]``, or ``result.label`` where the name is a Python name."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._arrays = dict(arrays)

    def __getitem__(self, name: str) -> Array:
        """The array of that name."""
        return self._arrays[name]

    def __getattr__(self, name: str) -> Array:
        """The array of that name."""
        # Copying and unpickling ask for attributes before there are any.
        arrays: dict[str, Array] = self.__dict__.get("_arrays", {})
        try:
            return arrays[name]
        except KeyError:
            raise AttributeError(f"no output is called {name!r}; there are {', '.join(arrays)}") from None

    def __iter__(self) -> Iterator[str]:
        """The names, in the model's order."""
        return iter(self._arrays)

    def __len__(self) -> int:
        """How many outputs there are."""
        return len(self._arrays)

    def __repr__(self) -> str:
        """The arrays with their shapes, and their values in short, one a line."""
        lines = [f"  {name} {a.dtype}{a.shape}: {_short(a)}" for name, a in self._arrays.items()]
        return "\n".join(["Outputs(", *lines, ")"])


def _short(array: Array) -> str:
    return np.array2string(array, precision=4, suppress_small=True, threshold=12, edgeitems=2, separator=", ").replace(
        "\n", ""
    )


@cache
def numpy_dtype(triton_dtype: str) -> np.dtype[Any]:
    """The numpy dtype that carries a Triton dtype (``BYTES`` as object, ``BF16`` as ``ml_dtypes.bfloat16``).

    Raises:
        InputError: there is no such Triton dtype.
    """
    found = triton_to_np_dtype(triton_dtype)
    if found is None:
        raise InputError(f"{triton_dtype!r} is not a Triton dtype")
    dtype: np.dtype[Any] = np.dtype(found)
    return dtype


def triton_dtype(dtype: np.dtype[Any]) -> str:
    """The Triton dtype of a numpy dtype: ``float32`` gives ``FP32``, every kind of string gives ``BYTES``.

    Raises:
        InputError: Triton has no such dtype (dates, complex numbers, …).
    """
    if dtype.kind in "UT":
        return "BYTES"
    found = np_to_triton_dtype(dtype)
    if found is None:
        raise InputError(f"Triton has no dtype for numpy's {dtype}")
    return str(found)


def coerce(value: Any, spec: TensorSpec, *, chosen: bool | None = None) -> Array:
    """Turn a caller's value into an array of the dtype that the model declares.

    An array is cast only where no value can change (numpy's ``safe`` casting); a list or a scalar, whose dtype
    nobody chose, also where its kind stays the same (floats to FP32, ints to INT32). `chosen` says which it is where
    the value itself does not show it: the columns of a DataFrame have the dtypes that pandas chose.

    Raises:
        InputError: the dtype cannot be used without changing values.
    """
    wanted = numpy_dtype(spec.dtype)
    # Most calls: the dtype is the declared one, in native byte order.
    if type(value) is np.ndarray and value.dtype == wanted and wanted.kind != "O":
        return value
    array, has_dtype = _as_array(value, spec)
    chosen = has_dtype if chosen is None else chosen
    if not chosen and not array.size:
        return array.astype(wanted)
    if isinstance(value, np.ma.MaskedArray) and value.mask.any():
        raise InputError(f"Input {spec.name!r} has masked values, which a model cannot see; fill them first")
    if spec.dtype == "BYTES":
        array = array.astype(object) if array.dtype.kind == "T" else array
        items = array.ravel() if array.dtype == object else ()
        strange = {type(item).__name__ for item in items if not isinstance(item, str | bytes)}
        if array.dtype.kind not in "USTO" or strange:
            got = min(strange) if strange else array.dtype
            raise InputError(f"Input {spec.name!r} must hold strings or bytes, got {got} instead")
        return array.astype(object, copy=False)
    # astype(copy=False) also makes a big-endian array native; equal dtypes pass untouched.
    if np.can_cast(array.dtype, wanted, "safe") or (not chosen and _same_values(array, wanted)):
        return array.astype(wanted, copy=False)
    raise InputError(
        f"Input {spec.name!r} must be {spec.dtype} ({wanted}), got {array.dtype} instead; "
        f"if losing precision is fine, pass x.astype({str(wanted)!r})"
    )


def is_castable(value: Any, spec: TensorSpec) -> bool:
    """Whether a value is an array of numbers that :func:`coerce` would only cast: the declared dtype holds them all."""
    return (
        type(value) is np.ndarray
        and value.dtype.kind in "fiub"
        and np.can_cast(value.dtype, numpy_dtype(spec.dtype), "safe")
    )


def _as_array(value: Any, spec: TensorSpec) -> tuple[Array, bool]:
    """Anything as an array, and whether its dtype was somebody's choice."""
    if hasattr(value, "dtype") or hasattr(value, "__array__"):
        try:
            return np.asarray(value), True
        except Exception as exc:
            # Tensors of frameworks refuse in their own ways: on a GPU, with gradients, of a dtype numpy has not.
            raise InputError(f"Input {spec.name!r} cannot be read as an array: {exc}") from exc
    if hasattr(value, "__dlpack__"):
        try:
            return np.from_dlpack(value), True
        except Exception as exc:
            raise InputError(f"Input {spec.name!r} cannot be read through DLPack: {exc}") from exc
    try:
        return np.asarray(value), False
    except ValueError as exc:
        raise InputError(f"Input {spec.name!r} is not rectangular: its rows have different lengths") from exc
    except Exception as exc:  # a list of such tensors
        raise InputError(f"Input {spec.name!r} cannot be read as an array: {exc}") from exc


def _same_values(array: Array, wanted: np.dtype[Any]) -> bool:
    if wanted.kind in "iu" and array.dtype.kind in "iu":
        limits = np.iinfo(wanted)
        return not array.size or (array.min() >= limits.min and array.max() <= limits.max)
    if not (wanted.kind == "f" or wanted.name == "bfloat16") or array.dtype.kind not in "iuf":
        return False
    if array.dtype.kind in "iu":
        return bool((array.astype(wanted).astype(array.dtype) == array).all())
    with np.errstate(over="ignore"):
        return bool((np.isfinite(array.astype(wanted)) == np.isfinite(array)).all())


def fit_batch(arrays: Mapping[str, Array], specs: Sequence[TensorSpec]) -> tuple[dict[str, Array], bool]:
    """Give every array the batch axis that the model wants.

    Returns:
        The arrays, and whether the axis was missing and added (so that it can be removed from the outputs).

    Raises:
        InputError: some inputs have the axis and some do not, or their numbers of rows differ.
    """
    ranks = {spec.name: len(spec.shape) for spec in specs}
    missing = {name for name, array in arrays.items() if array.ndim == ranks[name] - 1}
    if missing and len(missing) == len(arrays):
        return {name: array[np.newaxis] for name, array in arrays.items()}, True
    rows = {name: array.shape[0] if array.ndim else None for name, array in arrays.items()}
    if len(set(rows.values())) > 1:
        raise InputError(
            "All inputs must have the same number of rows, got "
            + ", ".join(f"{name}: {count}" for name, count in rows.items())
        )
    return dict(arrays), False


def check_shape(array: Array, spec: TensorSpec, *, batched: bool, given: tuple[int, ...] | None = None) -> None:
    """Compare a shape with what the model declares; `given` is the caller's, where an axis was added to it.

    Raises:
        InputError: the rank or the length of an axis does not fit.
    """
    fits = array.ndim == len(spec.shape) and all(
        want in (-1, have) for want, have in zip(spec.shape, array.shape, strict=True)
    )
    if not fits:
        want = ["any" if n == -1 else str(n) for n in spec.shape]
        if batched:
            want[0] = "rows"
        hint = f" (or one row, ({', '.join(want[1:])}{',' if len(want) == 2 else ''}))" if batched else ""
        raise InputError(
            f"Input {spec.name!r} must have shape ({', '.join(want)}{',' if len(want) == 1 else ''}){hint}, "
            f"got {array.shape if given is None else given} instead"
        )


def decode_strings(array: Array) -> Array:
    """Object arrays of bytes as object arrays of ``str``, if all of it is UTF-8; else untouched."""
    if array.dtype != object:
        return array
    try:
        decoded = [item.decode() if isinstance(item, bytes) else item for item in array.ravel()]
    except UnicodeDecodeError:
        return array
    result = np.empty(len(decoded), dtype=object)
    result[:] = decoded
    return result.reshape(array.shape)
