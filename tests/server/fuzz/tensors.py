"""Tensors as they travel: a name, what is said of the bytes, and the bytes, which need not agree."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
# Triton's names; BF16 is the upper half of a float, which numpy has not.
DTYPES = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BF16": np.uint16,
    "BYTES": np.object_,
}
_LENGTH = struct.Struct("<I")


@dataclass
class Tensor:
    """One input of a request, or one output of an answer."""

    name: str
    dtype: str
    shape: list[int]
    data: bytes

    @classmethod
    def of(cls, name: str, dtype: str, array: Array) -> Tensor:
        """The tensor that says of its bytes what they are."""
        data = packed(array.ravel().tolist()) if dtype == "BYTES" else array.astype(DTYPES[dtype]).tobytes()
        return cls(name, dtype, list(array.shape), data)

    def array(self) -> Array:
        """What the bytes mean.

        Raises:
            ValueError: they are not what is said of them.
        """
        if min(self.shape, default=0) < 0:
            raise ValueError(f"{self.name} has a negative axis")
        if self.dtype not in DTYPES:
            raise ValueError(f"{self.name} has no dtype that exists")
        if self.dtype != "BYTES":
            return np.frombuffer(self.data, DTYPES[self.dtype]).reshape(self.shape)
        strings = unpacked(self.data)
        array = np.empty(len(strings), object)
        array[:] = strings
        return array.reshape(self.shape)


def packed(strings: Sequence[bytes]) -> bytes:
    """Strings as BYTES has them: each with its length before it."""
    return b"".join(_LENGTH.pack(len(string)) + string for string in strings)


def unpacked(data: bytes) -> list[bytes]:
    """The strings of a BYTES tensor.

    Raises:
        ValueError: the lengths lead beyond the end.
    """
    strings, at = [], 0
    while at < len(data):
        if at + 4 > len(data):
            raise ValueError("BYTES end within a length")
        (length,) = _LENGTH.unpack_from(data, at)
        at += 4 + length
        if at > len(data):
            raise ValueError("BYTES end within a string")
        strings.append(data[at - length : at])
    return strings
