"""Golden cases: real inputs with the framework's own outputs, which travel with every version of a model."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from tritium.client import TensorSpec, numpy_dtype

from ._compare import is_float
from ._errors import GoldenError

Array = NDArray[Any]
MAX_GOLDEN_BYTES = 4 * 1024 * 1024
# Real inputs compress well, up to a point: what unpacks to more is no golden cases.
_MAX_UNPACKED_BYTES = 64 * MAX_GOLDEN_BYTES


@dataclass(frozen=True)
class GoldenCases:
    """Inputs and outputs by name. The first axis of every array counts the cases, also where the model has no batch.

    BYTES tensors are object arrays of ``str`` or ``bytes``, BF16 tensors have the dtype ``ml_dtypes.bfloat16``.
    """

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]

    def __len__(self) -> int:
        """How many cases there are."""
        return len(next(iter(self.inputs.values())))

    def check(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], *, batched: bool) -> None:
        """Compare the cases with what a model declares (whole shapes, batch axis included).

        Raises:
            GoldenError: a tensor is missing, unknown, not finite, or of another dtype or shape.
        """
        for kind, arrays, specs in (("input", self.inputs, inputs), ("output", self.outputs, outputs)):
            if set(arrays) != {spec.name for spec in specs}:
                raise GoldenError(
                    f"The golden {kind}s must be {sorted(spec.name for spec in specs)}, got {sorted(arrays)} instead"
                )
            for spec in specs:
                _check_array(kind, arrays[spec.name], spec, batched)
        counts = {name: len(array) for name, array in [*self.inputs.items(), *self.outputs.items()]}
        if len(set(counts.values())) != 1 or not len(self):
            raise GoldenError(f"All golden arrays must have the same number of cases, at least one, got {counts}")

    def batches(self, rows: int) -> Iterator[GoldenCases]:
        """The cases in runs of at most `rows`."""
        for start in range(0, len(self), rows):
            yield GoldenCases(
                {name: array[start : start + rows] for name, array in self.inputs.items()},
                {name: array[start : start + rows] for name, array in self.outputs.items()},
            )

    def save(self, path: Path, specs: Sequence[TensorSpec]) -> None:
        """Write the cases; `specs` are the model's inputs and outputs.

        Raises:
            GoldenError: the file would be larger than 4 MiB.
        """
        dtypes = {spec.name: spec.dtype for spec in specs}
        members: dict[str, Array] = {}
        for key, name, array in self._members():
            if name not in dtypes:
                raise GoldenError(f"The golden tensor {name!r} is none of the model's {sorted(dtypes)}")
            if (array.dtype == object) != (dtypes[name] == "BYTES"):
                raise GoldenError(f"The golden tensor {name!r} must be {dtypes[name]}, got {array.dtype} instead")
            if dtypes[name] in _UNPACK:
                members[key] = np.frombuffer(packed(array), dtype=np.uint8)
                members[f"{key}.shape"] = np.array(array.shape, dtype=np.int64)
            else:
                members[key] = array
        np.savez_compressed(path, **members)  # type: ignore[arg-type]
        if path.stat().st_size > MAX_GOLDEN_BYTES:
            size_mib = path.stat().st_size / 2**20
            raise GoldenError(f"The golden cases must fit into 4 MiB, and {len(self)} take {size_mib:.1f}: use fewer")

    @classmethod
    def load(cls, path: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> GoldenCases:
        """Read the cases of a model with these inputs and outputs.

        Raises:
            GoldenError: the file is missing, is no such file, or lacks a tensor.
        """
        try:
            if path.stat().st_size > MAX_GOLDEN_BYTES:
                raise GoldenError(f"{path} is larger than the 4 MiB that golden cases may take")
            with path.open("rb") as stream, _archive(stream) as file:
                return cls(
                    {spec.name: _read(file, f"inputs/{spec.name}", spec) for spec in inputs},
                    {spec.name: _read(file, f"outputs/{spec.name}", spec) for spec in outputs},
                )
        except FileNotFoundError as exc:
            raise GoldenError(f"There are no golden cases at {path}") from exc
        except KeyError as exc:
            raise GoldenError(f"{path} lacks the tensor {exc.args[0]}") from exc
        except (
            OSError,
            ValueError,
            zipfile.BadZipFile,
            EOFError,
            zlib.error,
            struct.error,
            NotImplementedError,
        ) as exc:
            raise GoldenError(f"{path} holds no golden cases: {exc}") from exc

    def _members(self) -> Iterator[tuple[str, str, Array]]:
        for kind, arrays in (("inputs", self.inputs), ("outputs", self.outputs)):
            for name, array in arrays.items():
                yield f"{kind}/{name}", name, array


def packed(array: Array) -> bytes:
    """A tensor in Triton's own binary form."""
    if array.dtype != object:
        return array.tobytes()
    strings = serialize_byte_tensor(array)
    return bytes(strings.item()) if strings.size else b""


# The dtypes that a numpy file cannot hold travel in Triton's own binary form.
_UNPACK: Mapping[str, Callable[[bytes], Array]] = {
    "BYTES": deserialize_bytes_tensor,
    "BF16": lambda packed: np.frombuffer(packed, numpy_dtype("BF16")),
}


def _archive(stream: BinaryIO) -> Any:
    # numpy would close a file that it opened itself only where it likes it.
    loaded = np.load(stream, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        raise zipfile.BadZipFile("it is a single array")
    unpacked_bytes = sum(member.file_size for member in loaded.zip.infolist())
    if unpacked_bytes > _MAX_UNPACKED_BYTES:
        loaded.close()
        raise zipfile.BadZipFile(f"it unpacks to {unpacked_bytes} bytes")
    return loaded


def _read(file: Mapping[str, Array], key: str, spec: TensorSpec) -> Array:
    array = _member(file, key)
    if spec.dtype not in _UNPACK:
        return array
    return _UNPACK[spec.dtype](array.tobytes()).reshape(_member(file, f"{key}.shape"))


def _member(file: Mapping[str, Array], key: str) -> Array:
    if key not in file:
        raise KeyError(key)
    return file[key]


def _check_array(kind: str, array: Array, spec: TensorSpec, batched: bool) -> None:
    shape = spec.shape if batched else (-1, *spec.shape)
    wanted = numpy_dtype(spec.dtype)
    if array.dtype != wanted:
        raise GoldenError(f"The golden {kind} {spec.name!r} must be {spec.dtype} ({wanted}), got {array.dtype} instead")
    if array.ndim != len(shape) or any(want not in (-1, have) for want, have in zip(shape, array.shape, strict=True)):
        raise GoldenError(f"The golden {kind} {spec.name!r} must have shape {shape}, got {array.shape} instead")
    # An input may well be NaN: that is how a missing value reaches a model that imputes it.
    if kind == "output" and is_float(array) and not np.isfinite(array).all():
        case = int(np.argwhere(~np.isfinite(array))[0][0])
        raise GoldenError(
            f"The golden output {spec.name!r} is not finite in case {case}; what cannot be compared "
            "proves nothing: choose other inputs, or mend the model"
        )
