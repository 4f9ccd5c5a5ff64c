"""How a module takes its inputs and what it gives, found by calling it; converters see tensors in, tensors out."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tritium.client import InputError, numpy_dtype, triton_dtype

from ._errors import ExportError
from ._export import Array

if TYPE_CHECKING:
    import torch

# Rows that `forward` is given at once; more would only take memory.
_CHUNK = 256
# The dtypes of weights to which rows of float32 are cast.
_REDUCED = ("float16", "bfloat16")


@dataclass(frozen=True)
class Result:
    """One tensor of what `forward` returns.

    Attributes:
        name: the output's name.
        key: its key or index in what is returned; None if that is the tensor itself.
        cast: the dtype that clients get it in; empty for its own.
    """

    name: str
    key: str | int | None
    cast: str = ""


@dataclass(frozen=True)
class Call:
    """How a module is called.

    Attributes:
        style: ``positions``, ``keywords``, or ``dict`` for a forward that takes one dict of tensors.
        inputs: for each input, in order, the dtype that the module takes it in; empty for its own.
        results: what it returns.
    """

    style: str
    inputs: Mapping[str, str]
    results: Sequence[Result] = ()

    def __call__(self, module: torch.nn.Module, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Tensors in the order of the inputs to tensors in the order of the results."""
        returned = self.returned(module, tensors)
        picked = (returned if result.key is None else returned[result.key] for result in self.results)
        return tuple(_cast(tensor, result.cast) for tensor, result in zip(picked, self.results, strict=True))

    def returned(self, module: torch.nn.Module, tensors: Sequence[torch.Tensor]) -> Any:
        """What the module itself returns."""
        cast = [_cast(tensor, dtype) for tensor, dtype in zip(tensors, self.inputs.values(), strict=True)]
        if self.style == "positions":
            return module(*cast)
        named = dict(zip(self.inputs, cast, strict=True))
        return module(**named) if self.style == "keywords" else module(named)

    def script(self) -> str:
        """The same as a TorchScript method of a module that has the called one as `inner`."""
        names = [f"input{place}" for place in range(len(self.inputs))]
        cast = [_cast_text(name, dtype) for name, dtype in zip(names, self.inputs.values(), strict=True)]
        given = {
            "positions": ", ".join(cast),
            "keywords": ", ".join(f"{key}={value}" for key, value in zip(self.inputs, cast, strict=True)),
            "dict": "{" + ", ".join(f"{key!r}: {value}" for key, value in zip(self.inputs, cast, strict=True)) + "}",
        }[self.style]
        picked = [
            _cast_text("returned" if result.key is None else f"returned[{result.key!r}]", result.cast)
            for result in self.results
        ]
        arguments = ", ".join(f"{name}: Tensor" for name in names)
        return (
            f"def forward(self, {arguments}):\n"
            f"    returned = self.inner.forward({given})\n"
            f"    return {picked[0] if len(picked) == 1 else '(' + ', '.join(picked) + ')'}\n"
        )


def flat(module: torch.nn.Module, call: Call) -> torch.nn.Module:
    """A module that takes and gives tensors by position: one if there is one, else a tuple."""
    import torch

    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, *tensors: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
            results = call(self.inner, tensors)
            return results[0] if len(results) == 1 else results

    return Flat()


def find_call(module: torch.nn.Module, arrays: Mapping[str, Array], outputs: Sequence[str] | None) -> Call:
    """Find out how a module takes these inputs and what it returns, by calling it once.

    Args:
        module: in eval mode, on the CPU.
        arrays: a few rows by input name.
        outputs: the names of what it returns; None if it says them itself, as a dict or a named tuple does.

    Raises:
        InputError: it does not take the inputs, or what it returns cannot be named.
    """
    call = Call(_style(module, list(arrays)), dict.fromkeys(arrays, ""))
    try:
        returned = _try(call, module, arrays)
    except Exception as exc:
        dtype = _precision(module).removeprefix("torch.")
        wide = {key for key, array in arrays.items() if array.dtype == np.float32}
        if dtype not in _REDUCED or not wide:
            raise _not_taken(module, arrays, exc) from exc
        call = replace(call, inputs={key: dtype if key in wide else "" for key in arrays})
        try:
            returned = _try(call, module, arrays)
        except Exception:
            raise _not_taken(module, arrays, exc) from exc
        return replace(call, results=[_widened(result, returned) for result in _results(module, returned, outputs)])
    return replace(call, results=_results(module, returned, outputs))


def answers(module: torch.nn.Module, call: Call, arrays: Mapping[str, Array], *, batched: bool) -> dict[str, Array]:
    """What a module says of all rows, by output name; without a batch axis it is asked for one row at a time.

    Raises:
        InputError: an output has no numpy or Triton dtype, or not one entry a row.
        ExportError: two runs on the same rows differ.
    """
    import torch

    rows = len(next(iter(arrays.values())))
    size = _CHUNK if batched else 1
    parts: list[tuple[torch.Tensor, ...]] = []
    with torch.inference_mode():
        for start in range(0, rows, size):
            places = slice(start, start + size) if batched else start
            some = [array[places] for array in arrays.values()]
            parts.append(_called(module, call, some))
            if start == 0:
                _check_repeats(module, call, parts[0], _called(module, call, some))
        found = {}
        for place, result in enumerate(call.results):
            pieces = [part[place] for part in parts]
            try:
                if not pieces[0].ndim:
                    raise TypeError("it has no axis; y.unsqueeze(0) gives it one")
                joined = (torch.cat if batched else torch.stack)(pieces)
                found[result.name] = array_of(joined)
                triton_dtype(found[result.name].dtype)
                if len(joined) != rows:
                    raise TypeError(f"it has {len(joined)} entries for {rows} rows")
            except (RuntimeError, TypeError, InputError) as exc:
                raise InputError(
                    f"The output {result.name!r} of {type(module).__name__} ({pieces[0].dtype}, shape "
                    f"{tuple(pieces[0].shape)} for {min(rows, size)} rows) cannot be served: {exc}. An output must "
                    f"be a dense tensor of numbers{' with one entry a row along its first axis' if batched else ''}"
                ) from exc
    return found


def tensor(array: Array) -> torch.Tensor:
    """An array as a tensor; bfloat16, which torch does not take from numpy, by its bits."""
    import torch

    array = np.array(array, order="C")  # a copy, because torch takes no array that is read-only
    if array.dtype == numpy_dtype("BF16"):
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def array_of(value: torch.Tensor) -> Array:
    """A tensor as an array; bfloat16 as ``ml_dtypes.bfloat16``."""
    import torch

    array: Array = value.contiguous().view(torch.int16).numpy() if value.dtype == torch.bfloat16 else value.numpy()
    return array.view(numpy_dtype("BF16")) if value.dtype == torch.bfloat16 else array


@contextmanager
def as_served(module: torch.nn.Module) -> Iterator[None]:
    """Put a module into eval mode, and every part of it back into its own afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@dataclass(frozen=True)
class _Parameter:
    name: str
    is_dict: bool
    required: bool = True
    stars: str = ""


def _style(module: torch.nn.Module, names: Sequence[str]) -> str:
    parameters = _parameters(module)
    known = [parameter.name for parameter in parameters]
    needed = [parameter for parameter in parameters if parameter.required]
    alone = needed if len(needed) == 1 else parameters if len(parameters) == 1 else []
    if alone and (alone[0].is_dict or (len(parameters) == 1 and len(names) > 1 and not alone[0].stars)):
        return "dict"
    if all(name in known for name in names) or any(parameter.stars == "**" for parameter in parameters):
        return "keywords"
    if any(name in known and known.index(name) != place for place, name in enumerate(names)):
        raise InputError(
            f"The 'held_out' parameter must name its inputs as the forward of {type(module).__name__} names its "
            f"arguments ({', '.join(known)}), or be in their order, got {', '.join(names)} instead"
        )
    return "positions"


def _parameters(module: torch.nn.Module) -> list[_Parameter]:
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        schema: Any = module.forward.schema  # type: ignore[attr-defined]
        arguments = [item for item in schema.arguments if item.name != "self"]
        return [
            _Parameter(item.name, item.type.kind() == "DictType", not item.has_default_value()) for item in arguments
        ]
    stars: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return [
        _Parameter(
            item.name,
            _says_dict(item.annotation),
            item.default is inspect.Parameter.empty and item.kind not in stars,
            stars.get(item.kind, ""),
        )
        for item in inspect.signature(module.forward).parameters.values()
    ]


def _says_dict(annotation: Any) -> bool:
    if isinstance(annotation, str):  # as they all are under `from __future__ import annotations`
        return re.match(r"([\w.]+\.)?(dict|Dict|Mapping)\b", annotation) is not None
    found = typing.get_origin(annotation) or annotation
    return isinstance(found, type) and issubclass(found, Mapping)


def _try(call: Call, module: torch.nn.Module, arrays: Mapping[str, Array]) -> Any:
    import torch

    with torch.inference_mode():
        return call.returned(module, [tensor(array) for array in arrays.values()])


def _called(module: torch.nn.Module, call: Call, arrays: Sequence[Array]) -> tuple[torch.Tensor, ...]:
    """Its answers, kept apart from what it may change in place: its inputs, and a buffer that it returns each time."""
    return tuple(result.clone() for result in call(module, [tensor(array) for array in arrays]))


def _not_taken(module: torch.nn.Module, arrays: Mapping[str, Array], exc: Exception) -> InputError:
    given = ", ".join(f"{key} {array.dtype}{array.shape}" for key, array in arrays.items())
    weights = f"; its weights are {precision}" if (precision := _precision(module)) else ""
    return InputError(
        f"{type(module).__name__} does not take the 'held_out' parameter (rows of {given}{weights}): "
        f"{type(exc).__name__}: {exc}"
    )


def _precision(module: torch.nn.Module) -> str:
    """The dtype of the weights, if all floating ones have the same."""
    found = {str(weight.dtype) for weight in [*module.parameters(), *module.buffers()] if weight.is_floating_point()}
    return found.pop() if len(found) == 1 else ""


def _results(module: torch.nn.Module, returned: Any, outputs: Sequence[str] | None) -> list[Result]:
    """The names and keys of what was returned."""
    import torch

    who = type(module).__name__
    if isinstance(returned, torch.Tensor):
        return _named(who, {None: returned}, outputs)
    if isinstance(returned, Mapping):
        keys = list(returned) if outputs is None else list(outputs)
        if not keys or any(key not in returned or not isinstance(key, str) for key in keys) or _repeated(keys):
            raise InputError(
                f"The 'outputs' parameter must name what {who} returns, each once, any of {list(returned)}, "
                f"got {keys} instead"
            )
        _check_tensors(who, {key: returned[key] for key in keys})
        return [Result(key, key) for key in keys]
    if isinstance(returned, tuple | list) and returned:
        items = dict(enumerate(returned))
        _check_tensors(who, items)
        return _named(who, items, getattr(returned, "_fields", None) if outputs is None else outputs)
    raise InputError(
        f"{who} must return a tensor, or a tuple, list or dict of tensors, got "
        f"{'an empty one' if isinstance(returned, tuple | list) else type(returned).__name__} instead"
    )


def _named(who: str, items: Mapping[Any, torch.Tensor], names: Sequence[str] | None) -> list[Result]:
    if isinstance(names, str):
        raise InputError(f"The 'outputs' parameter must be a list of names, as in [{names!r}], got a string instead")
    if names is None or len(names) != len(items) or _repeated(names):
        shapes = ", ".join(str(tuple(item.shape)) for item in items.values())
        raise InputError(
            f"The 'outputs' parameter must name {len(items)} tensors, each once, because {who} returns as many (for "
            f"two rows, of shape {shapes}), got {None if names is None else list(names)} instead"
        )
    return [Result(name, key) for name, key in zip(names, items, strict=True)]


def _check_tensors(who: str, items: Mapping[Any, Any]) -> None:
    import torch

    for key, item in items.items():
        if not isinstance(item, torch.Tensor):
            raise InputError(
                f"{who} must return tensors only, and what it returns at {key!r} is of type {type(item).__name__}. "
                "Wrap it in a module whose forward returns the tensors that clients want, side by side"
            )


def _repeated(names: Sequence[Any]) -> bool:
    return len(set(names)) != len(names)


def _widened(result: Result, returned: Any) -> Result:
    """A result of reduced precision comes back as float32, as the rows went in."""
    value = returned if result.key is None else returned[result.key]
    return replace(result, cast="float32") if str(value.dtype).removeprefix("torch.") in _REDUCED else result


def _cast(value: torch.Tensor, dtype: str) -> torch.Tensor:
    import torch

    return value.to(getattr(torch, dtype)) if dtype else value


def _cast_text(value: str, dtype: str) -> str:
    return f"{value}.to(torch.{dtype})" if dtype else value


def _check_repeats(
    module: torch.nn.Module, call: Call, first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]
) -> None:
    import torch

    for result, one, two in zip(call.results, first, second, strict=True):
        alike = one.shape == two.shape
        if alike and one.is_floating_point():
            if torch.allclose(one, two, rtol=1e-4, atol=1e-5, equal_nan=True):
                continue
        elif alike and torch.equal(one, two):
            continue
        apart = f" by up to {float((one.double() - two.double()).abs().max()):.2g}" if alike else ""
        raise ExportError(
            f"{type(module).__name__} itself differs between two runs on the same rows: its {result.name!r}{apart}. "
            "Nothing was published. Take the randomness out of forward: dropout that stays on in eval mode "
            "(nn.functional.dropout without training=self.training), noise, or a state that each call changes"
        )
