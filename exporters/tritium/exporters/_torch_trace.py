"""What tracing a module writes down as a constant, although it was computed from the rows of the example."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# What of a tensor is known without its values.
_OF_SHAPE = frozenset(
    f"aten::{name}"
    for name in (
        *("size", "sym_size", "dim", "numel"),
        *("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like"),
        *("new_zeros", "new_ones", "new_empty", "new_full"),
    )
)
# Torch says it of every constant; of those made of tensors the listener below hears, of numpy arrays torch says more.
_HARMLESS = "results are registered as constants in the trace"


@contextmanager
def frozen_values() -> Iterator[list[str]]:
    """Listen while a module is traced, and fill a list with what the trace keeps as a constant, in torch's words.

    Torch warns where a tensor becomes a Python value, except in ``torch.equal`` and its like. In its own layers it
    warns without need, because these branch on shapes, which are compared at other lengths; so there, as in
    ``torch.equal``, what counts is whether a value was computed from the values of an input.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    read = _readers(torch)
    layers = str(Path(torch.nn.__file__).parent)
    found: list[str] = []

    class Listener(TorchFunctionMode):
        def __torch_function__(
            self,
            func: Callable[..., Any],
            types: Sequence[type],
            args: Sequence[Any] = (),
            kwargs: Mapping[str, Any] | None = None,
        ) -> Any:
            file, line = _caller()
            given = _tensors([*args, *(kwargs or {}).values()])
            # Not in the run beside the trace that torch compares it with: its tensors are of no graph.
            if func in read and torch.jit.is_tracing() and any(map(_follows_values, given)):
                found.append(f"{read[func]} (in {file}:{line})")
            before = len(heard)
            result = func(*args, **(kwargs or {}))
            for warning in heard[before:]:
                if warning.filename == __file__:  # torch takes the listener for who it warns
                    warning.filename, warning.lineno = file, line
            return result

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", torch.jit.TracerWarning)
        with Listener():
            yield found
    silent = found.copy()
    found.clear()
    for warning in heard:
        text = " ".join(str(warning.message).split())
        if not issubclass(warning.category, torch.jit.TracerWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        elif _HARMLESS not in text and not warning.filename.startswith(layers):
            found.append(f"{text} (in {warning.filename}:{warning.lineno})")
    found += silent


def _caller() -> tuple[str, int]:
    """Where a function of torch was called, by file and line."""
    frame = sys._getframe(2)
    while frame.f_back and frame.f_code.co_filename.endswith("/torch/overrides.py"):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def _readers(torch: Any) -> dict[Any, str]:
    """What makes a Python value or a constant of a tensor, with what is to be said of it."""
    one = torch.Tensor
    python = (one.__bool__, one.__int__, one.__float__, one.__index__, one.item, one.tolist)
    compared = (torch.equal, one.equal, torch.allclose, one.allclose, torch.is_nonzero, one.is_nonzero)
    made = (torch.tensor, torch.as_tensor)
    return (
        dict.fromkeys(python, "Converting a tensor to a Python value")
        | {item: f"torch.{item.__name__} of tensors" for item in compared}
        | {item: f"torch.{item.__name__} of a tensor" for item in made}
    )


def _tensors(values: Sequence[Any]) -> Iterator[torch.Tensor]:
    import torch

    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _follows_values(tensor: torch.Tensor) -> bool:
    """Whether a traced tensor is computed from the values of an input, and not only from its shape or from weights."""
    import torch

    value_of: Any = torch._C._get_value_trace  # type: ignore[attr-defined]  # its stubs forget it
    try:
        waiting = [value_of(tensor)]
    except RuntimeError:  # a weight, which the trace does not know yet
        return False
    seen = set()
    while waiting:
        value = waiting.pop()
        if (name := value.debugName()) in seen:
            continue
        seen.add(name)
        node = value.node()
        if node.kind() == "prim::Param" and value.type().kind() == "TensorType":
            return True
        if node.kind() not in _OF_SHAPE:
            waiting.extend(node.inputs())
    return False
