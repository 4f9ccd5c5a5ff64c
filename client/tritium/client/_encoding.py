"""Tensors as the bytes that the V2 protocol sends, and back. Pure: nothing here does I/O.

Numbers go in row-major order and little-endian; a string as its length in four bytes and then itself. What can be
pointed to is not copied, in either direction, unless it is small.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from ._errors import InputError
from ._tensors import Array, TensorSpec, numpy_dtype

# What a socket takes as it is: bytes, one after the other.
Data: TypeAlias = bytes | memoryview

# A tensor of no more is copied: that takes less time than pointing to it.
SMALL_BYTES = 16 * 1024

# What tensors raise that are not what they say they are.
NONSENSE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)

_LITTLE = sys.byteorder == "little"


def to_binary(array: Array) -> Data:
    """An array's bytes in Triton's binary form: the array itself where it has them already."""
    if array.dtype.kind in "OSUT":
        return _pack_strings(array)
    if not _LITTLE:
        array = array.astype(array.dtype.newbyteorder("<"))
    if array.nbytes <= SMALL_BYTES:
        return array.tobytes()
    if array.flags.c_contiguous:
        with suppress(TypeError, ValueError):  # Python has no name for BF16, and no view of nothing
            return array.data.cast("B")
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def from_binary(data: Array, dtype: str, shape: Sequence[int]) -> Array:
    """An array over received bytes, which are a uint8 array; strings as an object array of ``bytes``.

    Raises:
        ValueError: the bytes are not those of such a tensor.
    """
    if dtype == "BYTES":
        return _unpack_strings(data.data, math.prod(shape)).reshape(shape)
    wanted = wire_dtype(dtype)
    if data.size != math.prod(shape) * wanted.itemsize:
        raise ValueError(f"{data.size} bytes for {dtype}{list(shape)}")
    return data.view(wanted).reshape(shape)


@cache
def wire_dtype(dtype: str) -> np.dtype[Any]:
    """The numpy dtype of received bytes, which are little-endian whatever this machine is."""
    wanted = numpy_dtype(dtype)
    return wanted if _LITTLE else wanted.newbyteorder("<")


def to_json_list(array: Array, spec: TensorSpec) -> list[Any]:
    """A tensor's values in row-major order, as the JSON form has them.

    Raises:
        InputError: bytes that are no UTF-8 have no such form.
    """
    if spec.dtype != "BYTES":
        wide = array.astype(np.float32) if spec.dtype == "BF16" else array
        values: list[Any] = wide.ravel().tolist()
        if wide.dtype.kind != "f" or np.isfinite(wide).all():
            return values
        if np.isinf(wide).any():
            raise InputError(
                f"Input {spec.name!r} has infinite values, which JSON cannot carry, and the server takes no binary "
                "tensors over HTTP; use gRPC"
            )
        return [None if value != value else value for value in values]
    try:
        return [(item if isinstance(item, bytes) else item.encode()).decode() for item in array.ravel().tolist()]
    except UnicodeError as exc:
        raise InputError(
            f"Input {spec.name!r} must hold UTF-8 text: the server takes no binary tensors over HTTP; use gRPC"
        ) from exc


def from_json_list(values: Any, dtype: str, shape: Sequence[int]) -> Array:
    """An array from the JSON form, flat or nested; null is NaN.

    Raises:
        ValueError: the values are not those of such a tensor.
        TypeError: likewise.
    """
    wanted = numpy_dtype(dtype)
    if any(n < 0 for n in shape):
        raise ValueError(f"a tensor of shape {tuple(shape)}")
    if dtype == "BYTES":
        flat = list(_flat(values))
        array = np.empty(len(flat), dtype=object)
        array[:] = [item.encode() if isinstance(item, str) else json.dumps(item).encode() for item in flat]
        return array.reshape(shape)
    if wanted.kind not in "iub":
        values = [math.nan if item is None else item for item in _flat(values)]
    try:
        with np.errstate(over="ignore"):  # what is too large for the dtype is infinite in it
            return np.array(values, dtype=wanted).reshape(shape)
    except OverflowError as exc:
        raise ValueError(exc) from exc


def _flat(values: Any) -> Iterator[Any]:
    if isinstance(values, list):
        for item in values:
            yield from _flat(item)
    else:
        yield values


def _pack_strings(array: Array) -> bytes:
    parts: list[bytes] = []
    for item in array.ravel().tolist():
        text = item if isinstance(item, bytes) else item.encode()
        parts += (len(text).to_bytes(4, "little"), text)
    return b"".join(parts)


def _unpack_strings(data: memoryview, count: int) -> Array:
    if count < 0 or 4 * count > len(data):
        raise ValueError(f"{count} strings in {len(data)} bytes")
    array, place = np.empty(count, dtype=object), 0
    for index in range(count):
        start = place + 4
        place = start + int.from_bytes(data[place:start], "little")
        if place > len(data) or start > len(data):
            raise ValueError(f"strings that are cut short at {len(data)} bytes")
        array[index] = bytes(data[start:place])
    if place != len(data):
        raise ValueError(f"{len(data) - place} bytes after the last string")
    return array
