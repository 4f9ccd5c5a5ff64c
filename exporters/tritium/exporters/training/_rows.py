"""Arrays as the tensors that a module and its loss take, checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tritium.client import InputError

if TYPE_CHECKING:
    import torch

Array = NDArray[Any]
Inputs = Array | Sequence[Array] | Mapping[str, Array]


@dataclass(frozen=True)
class Rows:
    """What a module is called with, and the targets: each of shape (rows, …).

    Attributes:
        inputs: by the position or the name of ``forward``'s argument.
    """

    inputs: dict[int | str, torch.Tensor]
    targets: torch.Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: Any) -> Rows:
        """Some of the rows, by their numbers."""
        return Rows({key: tensor[rows] for key, tensor in self.inputs.items()}, self.targets[rows])

    def batches(self, batch_size: int, order: torch.Tensor | None = None) -> Iterator[Rows]:
        """All rows in batches, as they stand or in another order."""
        if order is None:
            for start in range(0, len(self), batch_size):
                yield self.take(slice(start, start + batch_size))
        else:
            yield from map(self.take, order.split(batch_size))

    def call(self, module: torch.nn.Module) -> Any:
        """What the module gives for all rows."""
        if 0 in self.inputs:
            return module(*self.inputs.values())
        return module(**{str(key): tensor for key, tensor in self.inputs.items()})

    def __str__(self) -> str:
        named = [f"{key} {form(tensor)}" for key, tensor in self.inputs.items()]
        return f"inputs {', '.join(named)}; targets {form(self.targets)}"


def rows_of(inputs: Inputs, targets: Array, module: torch.nn.Module, *, where: str) -> Rows:
    """Check arrays and make tensors of them, on the module's device; floats take the dtype of its parameters.

    Args:
        inputs: one array, or several by position or by name.
        targets: of shape (rows, …).
        module: what they are for.
        where: what is called, for the messages.

    Raises:
        InputError: there are no rows, their numbers differ, a value is not a finite number, or the module has no
            parameters.
    """
    arrays: dict[int | str, Array] = dict(inputs.items() if isinstance(inputs, Mapping) else enumerate(by_name(inputs)))
    if not arrays:
        raise InputError(f"The 'inputs' parameter of {where} must hold at least one array, got none")
    parameter = next(iter(module.parameters()), None)
    if parameter is None:
        raise InputError(f"This {type(module).__name__} has no parameters: there is nothing to train")
    tensors = {key: _tensor(array, f"'inputs' parameter ({key})", where) for key, array in arrays.items()}
    target = _tensor(targets, "'targets' parameter", where)
    counts = {**{f"input {key}": len(tensor) for key, tensor in tensors.items()}, "targets": len(target)}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{key}: {count}" for key, count in counts.items())
        raise InputError(f"Inputs and targets of {where} must have the same number of rows, got {listed}")
    if not len(target):
        raise InputError(f"{where} needs at least one row, got none")
    place, dtype = parameter.device, parameter.dtype

    def moved(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(place, dtype) if tensor.is_floating_point() else tensor.to(place)

    return Rows({key: moved(tensor) for key, tensor in tensors.items()}, moved(target))


def by_name(inputs: Inputs) -> list[Array]:
    """One array, or several, as a list; a list of plain numbers is one array."""
    if isinstance(inputs, Mapping):
        return list(inputs.values())
    if isinstance(inputs, tuple | list) and inputs and all(hasattr(item, "ndim") and item.ndim for item in inputs):
        return list(inputs)
    return [np.asarray(inputs)]


def _tensor(array: Array, what: str, where: str) -> torch.Tensor:
    import torch

    array = np.asarray(array)
    if array.dtype.kind not in "biuf" or not array.ndim:
        raise InputError(
            f"The {what} of {where} must be an array of numbers with the rows as its first axis, got "
            f"{array.dtype}{array.shape} instead. Encode text and categories first"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))
        raise InputError(
            f"The {what} of {where} has {len(bad)} values that are not finite, the first in row {bad[0][0]}. Fill them "
            "first, with sklearn.impute.SimpleImputer for instance, or leave those rows out"
        )
    return torch.from_numpy(np.ascontiguousarray(array))


def form(tensor: torch.Tensor) -> str:
    """Dtype and shape, for messages."""
    return f"{str(tensor.dtype).removeprefix('torch.')}{tuple(tensor.shape)}"
