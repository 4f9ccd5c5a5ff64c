"""How a server's answer becomes what the caller gets. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._errors import InputError, ProtocolError
from ._metadata import Classification
from ._tensors import Array, Outputs, decode_strings

if TYPE_CHECKING:
    from ._request import InferAnswer


@dataclass(frozen=True, slots=True)
class Reading:
    """How an answer is read.

    Attributes:
        model: the model's name, for errors.
        declared: the outputs in the model's order.
        wanted: those that were asked for; empty for all.
        added: whether a batch axis was added to the inputs, and is taken away again.
        top_k: whether the values are classes, and how many.
        out: arrays in shared memory, by the output that they receive.
        empty: whether there are no rows, so that nothing need be sent. Triton would refuse it.
    """

    model: str
    declared: tuple[str, ...]
    wanted: tuple[str, ...]
    added: bool
    top_k: int
    out: Mapping[str, Array]
    empty: bool

    def result(self, answer: InferAnswer) -> Any:
        """What the caller gets: one output as an array, several by name.

        Raises:
            ProtocolError: outputs are missing, or are not what was asked for.
            InputError: an array in shared memory has another shape than what it was to receive.
        """
        names = self.wanted or self.declared
        if len(names) == len(answer.arrays) == 1 and not self.top_k and not self.out:
            # Most models have one output; this is what the rest does, in short.
            only = answer.arrays.get(names[0])
            if only is not None and only.dtype.kind != "O":
                return only[0] if self.added else only
        arrays = {}
        for name in names:
            if name in answer.arrays:
                arrays[name] = self._array(name, answer)
            elif self.wanted:
                raise ProtocolError(f"{self.model!r} answered without its output {name!r}")
        if not self.wanted and len(arrays) < len(answer.arrays):  # the model is another one, or declares nothing
            arrays = {name: self._array(name, answer) for name in answer.arrays}
        if not arrays:
            raise ProtocolError(f"{self.model!r} answered without any output")
        if self.top_k:
            (classes,) = arrays.values()
            return _classifications(classes, self.added)
        return next(iter(arrays.values())) if len(arrays) == 1 else Outputs(arrays)

    def _array(self, name: str, answer: InferAnswer) -> Array:
        array = answer.arrays[name]
        if name in self.out:
            given, shape = self.out[name], answer.shapes[name]
            if (shape[1:] if self.added else shape) != given.shape and shape != given.shape:
                raise InputError(f"The output {name!r} of {self.model!r} has shape {shape}, 'out' has {given.shape}")
            return given
        if array is None:
            raise ProtocolError(f"{self.model!r} answered without the values of its output {name!r}")
        if self.top_k:
            return array
        if self.added:
            array = array[0]
        return decode_strings(array) if array.dtype.kind == "O" else array


def _classifications(array: Array, added: bool) -> Any:
    """A list of classes for each row, or for the only one."""
    try:
        if array.ndim == 1:
            return [Classification.parse(item) for item in array]
        rows = [[Classification.parse(item) for item in row.ravel()] for row in array]
    except (ValueError, AttributeError) as exc:
        raise ProtocolError(f"What should be classes is not 'score:index:label': {exc}") from exc
    return rows[0] if added else rows
