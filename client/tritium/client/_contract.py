"""What is known of a model, and what follows from it: how a call becomes a request, and an answer a result.

Pure: nothing here does I/O, so both clients share it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ._encoding import SMALL_BYTES, Data, to_binary
from ._errors import InputError, closest
from ._metadata import ModelMetadata
from ._reading import Reading
from ._request import InferAnswer, InferRequest, InputSlot, Layout, OutputSlot, Parameter, Place
from ._tensors import (
    Array,
    TensorSpec,
    check_shape,
    coerce,
    fit_batch,
    is_castable,
    numpy_dtype,
    triton_dtype,
)

Locate: TypeAlias = Callable[[Array], Place | None]
_bytes_of = np.ndarray.tobytes
# Layouts that are kept: shapes come in few sizes, those of strings in many.
_KEPT_LAYOUTS = 256


@dataclass(slots=True)
class Arguments:
    """A call as the caller wrote it.

    Attributes:
        inputs: by position.
        named: by name.
        outputs: the outputs wanted; empty for all.
        top_k: how many classes of each are wanted instead of its values; 0 for the values.
        out: arrays in shared memory that receive outputs.
        locate: where in shared memory an array lies, if it does; None if there is no such memory.
    """

    inputs: tuple[Any, ...]
    named: Mapping[str, Any]
    outputs: tuple[str, ...]
    request_id: str
    parameters: Mapping[str, Parameter]
    top_k: int = 0
    out: Array | Mapping[str, Array] | None = None
    locate: Locate | None = None


class Contract:
    """What is known of a model on a server.

    Attributes:
        decoupled: whether a request may have any number of answers.
        stateless: whether running a request twice leaves everything as running it once does.

    Args:
        metadata: inputs and outputs.
        config: Triton's configuration; None where the server has none.
        extensions: what the server says that it can do beyond the V2 protocol.
        version: the version that the handle asks for; empty to let the server choose.
        binary: whether tensors always go as bytes, whatever the extensions: gRPC has no other form worth sending.
    """

    def __init__(
        self,
        metadata: ModelMetadata,
        config: dict[str, Any] | None,
        extensions: Iterable[str],
        version: str = "",
        *,
        binary: bool = False,
    ) -> None:
        self.metadata = metadata
        self.config = config or {}
        # Of a server without configs nobody knows whether it only does not say.
        self._takes_none = config is not None and not metadata.inputs
        self.extensions = frozenset(extensions)
        self._name = metadata.name
        self._version = version
        self._binary = binary or "binary_tensor_data" in self.extensions
        self._queue_timeout = "schedule_policy" in self.extensions
        self._versions = metadata.versions
        self._declared = tuple(spec.name for spec in metadata.outputs)
        self._declared_set = frozenset(self._declared)
        self._unchanged: Mapping[str, tuple[int, ...]] | None = None
        self._dtypes = tuple(numpy_dtype(spec.dtype) for spec in metadata.inputs)
        # Strings are looked at one by one, JSON is made of values, and what is not little-endian is turned round: for
        # those a plan would save nothing.
        plain = not any(dtype.kind == "O" for dtype in self._dtypes)
        self._may_plan = plain and self._binary and sys.byteorder == "little"
        self._layouts: dict[Any, Layout] = {}
        self._plans: dict[Any, tuple[Layout, Reading]] = {}
        self.decoupled = bool(self.config.get("model_transaction_policy", {}).get("decoupled"))
        self.stateless = "sequence_batching" not in self.config and not self.decoupled

    def __eq__(self, other: object) -> bool:
        """Whether the same calls would be made the same way."""
        return isinstance(other, Contract) and (self.metadata, self.config, self.extensions) == (
            other.metadata,
            other.config,
            other.extensions,
        )

    __hash__ = None  # type: ignore[assignment]

    def changed(self, request: InferRequest, answer: InferAnswer) -> bool:
        """Whether an answer shows that the model is not the one that is known any more."""
        if answer.shapes is self._unchanged:  # an answer like the one before
            return False
        if not request.reading.wanted and self._declared and answer.arrays.keys() - self._declared_set:
            return True
        version = answer.version
        # Some V2 servers have words there that are no version numbers.
        if not self._version and version not in self._versions and version.isdecimal():
            return any(known.isdecimal() for known in self._versions)
        self._unchanged = answer.shapes
        return False

    def prepare(self, arguments: Arguments) -> InferRequest:
        """Make a request of a call.

        Raises:
            InputError: an input or output is missing or unknown, or a dtype or shape does not fit.
        """
        key = self._plan_key(arguments)
        plan = self._plans.get(key)
        if plan is not None:  # a call like one before: another axis changes nothing about the values
            layout, reading = plan
            arrays: Sequence[Array] = arguments.inputs
            data: list[Data] = list(map(_bytes_of if layout.sent_bytes <= SMALL_BYTES else to_binary, arrays))
        else:
            layout, reading, arrays, data = self._planned(arguments, key)
        return InferRequest(
            layout,
            reading,
            arrays,
            data,
            arguments.request_id,
            arguments.parameters,
            self._binary,
            self._queue_timeout,
            self.stateless,
        )

    def _planned(self, arguments: Arguments, key: Any) -> tuple[Layout, Reading, Sequence[Array], list[Data]]:
        """Look at every value; and keep what follows for calls like this one, if there is a key to them."""
        metadata = self.metadata
        values, chosen = self._by_name(arguments.inputs, arguments.named)
        specs = self._specs(values)
        arrays = {spec.name: coerce(values[spec.name], spec, chosen=chosen) for spec in specs}
        given = {name: array.shape for name, array in arrays.items()}
        arrays = {spec.name: self._of_one(arrays[spec.name], spec) for spec in specs}
        added = False
        if metadata.batched:
            arrays, added = fit_batch(arrays, specs)
        for spec in specs if metadata.inputs else ():
            check_shape(arrays[spec.name], spec, batched=metadata.batched, given=given.get(spec.name))
        rows = len(next(iter(arrays.values()))) if metadata.batched and arrays else 1
        if metadata.max_batch_size and rows > metadata.max_batch_size:
            raise InputError(
                f"{self._name!r} takes at most {metadata.max_batch_size} rows a request, got {rows}; "
                "predict() takes any number and splits them"
            )
        out = self._out(arguments)
        if arguments.top_k and "classification" not in self.extensions:
            raise InputError(f"The server of {self._name!r} ranks no classes: call the model, and rank its output")
        if arguments.top_k and not all(array.size for array in arrays.values()):
            # Triton 2.51 itself dies of classes of nothing.
            raise InputError(f"classify() of {self._name!r} needs at least one row")
        wanted = tuple(out) if out and not arguments.outputs else arguments.outputs
        self.check_outputs(wanted)
        reading = Reading(self._name, self._declared, wanted, added, arguments.top_k, out, empty=rows == 0)
        layout, data = self._laid_out(specs, arrays, reading, arguments)
        if key is not None and rows:
            if len(self._plans) >= _KEPT_LAYOUTS:
                self._plans.clear()
            self._plans[key] = layout, reading
        return layout, reading, [arrays[spec.name] for spec in specs], data

    def _plan_key(self, arguments: Arguments) -> Any:
        """What the way of a call depends on; None if that is more than shapes and the outputs that are wanted.

        Most calls are like one before: arrays of the declared dtypes, by position. Those need no second look.
        """
        inputs, dtypes = arguments.inputs, self._dtypes
        if arguments.named or arguments.top_k or arguments.locate or arguments.out is not None or not self._may_plan:
            return None
        if len(inputs) == len(dtypes) == 1:  # the same in short, for the usual model
            value = inputs[0]
            usual = type(value) is np.ndarray and value.dtype == dtypes[0]
            return (arguments.outputs, value.shape) if usual else None
        if len(inputs) != len(dtypes):
            return None
        for value, dtype in zip(inputs, dtypes, strict=True):
            if type(value) is not np.ndarray or value.dtype != dtype:
                return None
        return arguments.outputs, *(value.shape for value in inputs)

    def nothing(self) -> InferAnswer:
        """The answer to no rows: outputs without any. An axis of any length is taken to be of none."""
        shapes = {spec.name: tuple(max(0, n) for n in spec.shape) for spec in self.metadata.outputs}
        arrays = {spec.name: np.empty(shapes[spec.name], numpy_dtype(spec.dtype)) for spec in self.metadata.outputs}
        return InferAnswer(dict(arrays), shapes)

    def rows(self, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[dict[str, Array], int]:
        """Inputs of any number of rows, by name, of the declared dtypes or such as become them, and that number.

        Raises:
            InputError: an input does not fit, or the model has no batch axis.
        """
        if not self.metadata.batched:
            raise InputError(
                f"{self._name!r} has no batch axis, so rows cannot be sent together: call it for each, or use map()"
            )
        values, chosen = self._by_name(inputs, named)
        specs = self._specs(values)
        arrays = {
            # What only needs a cast gets it in parts, so that there are never two of all rows.
            spec.name: value if is_castable(value := values[spec.name], spec) else coerce(value, spec, chosen=chosen)
            for spec in specs
        }
        for spec in specs if self.metadata.inputs else ():
            check_shape(arrays[spec.name], spec, batched=True)
        counts = {name: len(array) for name, array in arrays.items()}
        if len(set(counts.values())) > 1:
            raise InputError(f"All inputs must have the same number of rows, got {_pairs(counts)}")
        return arrays, next(iter(counts.values()))

    def check_correlation(self, correlation_id: int | str) -> None:
        """Refuse a sequence's name where the model is told a number: Triton would make one up from the name's bytes.

        Raises:
            InputError: it is such a name.
        """
        for control in self.config.get("sequence_batching", {}).get("control_input", ()):
            for item in control.get("control", ()):
                numbered = item.get("data_type") not in ("TYPE_STRING", "TYPE_INVALID", None)
                if item.get("kind") == "CONTROL_SEQUENCE_CORRID" and numbered and isinstance(correlation_id, str):
                    raise InputError(
                        f"{self._name!r} is told the sequence as a {item['data_type']}, so the 'correlation_id' "
                        f"parameter must be a whole number, got {correlation_id!r} instead"
                    )

    def label_output(self, name: str | None) -> str:
        """The output whose classes are meant: the only one, or the only one with a label file.

        Raises:
            InputError: there is no such output, or it is not clear which one is meant.
        """
        if name is not None:
            self.check_outputs((name,))
            return name
        labelled = [item["name"] for item in self.config.get("output", ()) if item.get("label_filename")]
        for candidates in (labelled, self._declared):
            if len(candidates) == 1:
                return candidates[0]
        raise InputError(
            f"The 'output' parameter of classify must name one of the outputs of {self._name!r}: "
            f"{_listed(self.metadata.outputs)}",
            valid=self._declared,
        )

    def _laid_out(
        self,
        specs: Sequence[TensorSpec],
        arrays: Mapping[str, Array],
        reading: Reading,
        arguments: Arguments,
    ) -> tuple[Layout, list[Data]]:
        wanted, out = reading.wanted, reading.out
        data: list[Data] = []
        slots = []
        for spec in specs:
            array = arrays[spec.name]
            place = arguments.locate(array) if arguments.locate is not None else None
            size = 0
            if place is None and self._binary:
                data.append(_encoded(array, spec))
                size = len(data[-1])
            slots.append((array.shape, size, place))
        places = tuple((name, arguments.locate(array) if arguments.locate else None) for name, array in out.items())
        usual = len(specs) == len(self.metadata.inputs)  # no optional one left out, none undeclared
        key = (tuple(slots), wanted, arguments.top_k, places, None if usual else tuple(specs))
        layout = self._layouts.get(key)
        if layout is None:
            inputs = tuple(InputSlot(s.name, s.dtype, *slot) for s, slot in zip(specs, slots, strict=True))
            placed = dict(places)
            outputs = tuple(OutputSlot(name, arguments.top_k, placed.get(name)) for name in wanted)
            if len(self._layouts) >= _KEPT_LAYOUTS:
                self._layouts.clear()
            layout = self._layouts[key] = Layout(self._name, self._version, inputs, outputs)
        return layout, data

    def _by_name(self, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool | None]:
        """The inputs by name, and whether their dtypes were chosen; None where each one shows that itself."""
        specs = self.metadata.inputs
        first = inputs[0] if len(inputs) == 1 else None
        if type(first) is np.ndarray and len(specs) == 1 and not named:
            return {specs[0].name: first}, None
        chosen = None
        if isinstance(first, Mapping) or _is_frame(first):
            columns = first if isinstance(first, Mapping) else self._columns(first, named)
            chosen = None if isinstance(first, Mapping) else False
            both = columns.keys() & named.keys()
            if both:
                raise InputError(f"Input {min(both)!r} of {self._name!r} is given twice, in the mapping and by name")
            inputs, named = (), {**columns, **named}
        if not specs:
            if self._takes_none and (inputs or named):
                raise InputError(f"{self._name!r} takes no inputs")
            if not self._takes_none and (inputs or not named):
                raise InputError(f"{self._name!r} declares no inputs, so they must be given by name")
            return named, chosen
        if len(inputs) > len(specs):
            raise InputError(f"{self._name!r} has {len(specs)} inputs ({_listed(specs)}), got {len(inputs)}")
        positional = {spec.name: value for spec, value in zip(specs, inputs, strict=False)}
        twice = positional.keys() & named.keys()
        if twice:
            raise InputError(f"Input {min(twice)!r} of {self._name!r} is given twice, by position and by name")
        values = {**positional, **named}
        names = [spec.name for spec in specs]
        for name in values:
            if name not in names:
                raise InputError(
                    f"{self._name!r} has no input {name!r}; it has {_listed(specs)}{closest(name, names)}", valid=names
                )
        missing = [name for name in names if name not in values and name not in self._optional]
        if missing:
            raise InputError(
                f"Input {missing[0]!r} of {self._name!r} is missing; the model takes {_listed(specs)}", valid=names
            )
        return values, chosen

    @property
    def _optional(self) -> set[str]:
        return {item["name"] for item in self.config.get("input", ()) if item.get("optional")}

    def _columns(self, frame: Any, named: Mapping[str, Any]) -> dict[str, Any]:
        """A DataFrame as the inputs that are not given by name: a column for each, or all columns for the only one."""
        specs = self.metadata.inputs
        columns = [str(column) for column in frame.columns]
        if specs and all(spec.name in columns or spec.name in named for spec in specs):
            return {
                spec.name: frame.iloc[:, columns.index(spec.name)].to_numpy().reshape((-1, 1)[: len(spec.shape)])
                for spec in specs
                if spec.name in columns
            }
        if len(specs) == 1:
            return {specs[0].name: frame.to_numpy()}
        lacking = [spec.name for spec in specs if spec.name not in columns and spec.name not in named]
        raise InputError(
            f"The DataFrame has no column {lacking[0]!r}, an input of {self._name!r}; it has {', '.join(columns)}"
            f"{closest(lacking[0], columns)}"
            if specs
            else f"{self._name!r} declares no inputs, so a DataFrame cannot be split into them"
        )

    def _of_one(self, array: Array, spec: TensorSpec) -> Array:
        """A scalar as a tensor of one value; a row of one value, where there is a batch."""
        rank = len(spec.shape) - self.metadata.batched
        return array.reshape((1,) * rank) if array.ndim == 0 and rank > 0 else array

    def _specs(self, values: Mapping[str, Any]) -> Sequence[TensorSpec]:
        """The inputs that are given, in the model's order; as the values are where the model declares none."""
        if self.metadata.inputs:
            return [spec for spec in self.metadata.inputs if spec.name in values]
        specs = []
        for name, value in values.items():
            array = np.asarray(value)
            specs.append(TensorSpec(name, triton_dtype(array.dtype), array.shape))
        return specs

    def _out(self, arguments: Arguments) -> dict[str, Array]:
        """The arrays in shared memory that receive outputs, by name."""
        if arguments.out is None:
            return {}
        if isinstance(arguments.out, Mapping):
            out = dict(arguments.out)
        else:
            names = arguments.outputs or self._declared
            if len(names) != 1:
                raise InputError(
                    f"The 'out' parameter must be a mapping from names to arrays: {self._name!r} has the outputs "
                    f"{_listed(self.metadata.outputs)}"
                )
            out = {names[0]: arguments.out}
        self.check_outputs(tuple(out))
        specs = {spec.name: spec for spec in self.metadata.outputs}
        for name, array in out.items():
            if not isinstance(array, np.ndarray) or arguments.locate is None or arguments.locate(array) is None:
                raise InputError(
                    f"The array for the output {name!r} must lie in shared memory of this client, contiguous: make it "
                    "with region.array(shape, dtype)"
                )
            if triton_dtype(array.dtype) != specs[name].dtype or specs[name].dtype == "BYTES":
                raise InputError(f"The array for the output {specs[name]} must have its dtype, got {array.dtype}")
        return out

    def check_outputs(self, names: Sequence[str]) -> None:
        """Refuse outputs that the model has not.

        Raises:
            InputError: one is unknown.
        """
        for name in names:
            if self._declared and name not in self._declared:
                raise InputError(
                    f"{self._name!r} has no output {name!r}; it has {_listed(self.metadata.outputs)}"
                    f"{closest(name, self._declared)}",
                    valid=self._declared,
                )


def _encoded(array: Array, spec: TensorSpec) -> Data:
    try:
        return to_binary(array)
    except UnicodeEncodeError as exc:
        raise InputError(f"Input {spec.name!r} must hold strings that are Unicode, got {exc.object!r}") from exc


def _listed(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(map(str, specs))


def _pairs(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts.items())


def _is_frame(value: Any) -> bool:
    """Whether it is a pandas DataFrame, or behaves as one; pandas itself is not needed to tell."""
    return hasattr(value, "columns") and hasattr(value, "iloc")
