"""torch's own converters: to ONNX on top of `torch.export`, and to TorchScript; their failures put into plain words."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._errors import ConversionError
from ._export import Array
from ._torch_call import Call, flat, tensor
from ._torch_rnn import rnn_translations
from ._torch_trace import frozen_values

if TYPE_CHECKING:
    import torch

# For each input and each of its axes that may have any length, the name of that length.
Axes = Mapping[str, Mapping[int, str]]
# Protobuf ends at 2 GiB, and the graph itself needs some of that.
EXTERNAL_DATA_BYTES = 1_900_000_000
BATCH = "batch"
_LOGGERS = (
    "onnx_ir",
    "onnxscript.version_converter",
    "torch.export._trace",
    "torch.fx.experimental.symbolic_shapes",
    "torch.onnx._internal.exporter._compat",
    "torch.onnx._internal.exporter._registration",
)
_TORCHSCRIPT = "export it as TorchScript, with formats='torchscript'"
# What torch says, by a pattern, and what that means; the groups of the pattern are the blanks.
_FAILURES = (
    (
        r"No ONNX function found for <OpOverload\(op='([^']+)'",
        "there is no ONNX operator for {0}. Write forward without it, by other operators; or " + _TORCHSCRIPT,
    ),
    (
        r"(?s)Could not guard on data-dependent expression(?:.*?The following call raised this error:\s+File ([^\n]+)"
        r"\n\s*([^\n]+))?|data-dependent",
        "it branches on the values of its inputs, in `{1}` ({0}). Use torch.where or torch.cond; or "
        + _TORCHSCRIPT
        + " and "
        "script=True",
    ),
    (r"Unsupported FX nodes: ([^\n]+)", "torch.export does not take {0}. Write forward by operators of torch alone"),
)


def to_onnx_program(
    module: torch.nn.Module,
    call: Call,
    example: Mapping[str, Array],
    *,
    axes: Axes,
    opset: int,
) -> torch.onnx.ONNXProgram:
    """Convert a module to ONNX.

    Args:
        module: in eval mode.
        call: how it is called.
        example: two rows by input name; one row would freeze the batch axis.
        axes: those of the inputs and outputs that may have any length, the batch axis included if there is one.
        opset: ONNX's.

    Raises:
        ConversionError: torch's exporter does not take the module; the message says what of it.
    """
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        raise ConversionError(
            f"torch.onnx.export takes no TorchScript. Export the module that it was made of; or {_TORCHSCRIPT}"
        )
    names = [result.name for result in call.results]
    try:
        with warnings.catch_warnings(), _quiet():
            # torch's, about its own internals; what the model does is compared afterwards.
            for category in (DeprecationWarning, FutureWarning, UserWarning):
                warnings.filterwarnings("ignore", category=category)
            program = torch.onnx.export(
                flat(module, call).eval(),
                tuple(tensor(array) for array in example.values()),
                dynamo=True,
                opset_version=opset,
                input_names=list(example),
                output_names=names,
                # Not by their names: torch would hold them to what it believes of an LSTM, which is too little.
                dynamic_shapes=(tuple(dict.fromkeys(axes.get(name, {}), torch.export.Dim.AUTO) for name in example),),
                custom_translation_table=rnn_translations(),
                verbose=False,
            )
    except Exception as exc:
        raise ConversionError(_in_plain_words(module, exc)) from exc
    if program is None:  # only without dynamo
        raise ConversionError("torch.onnx.export returned nothing")
    # torch goes on with another opset where it has no way to the one that was asked for.
    if (made := program.model.opset_imports.get("")) != opset:
        raise ConversionError(
            f"The 'opset' parameter cannot be {opset} for this {type(module).__name__}: torch.onnx.export made opset "
            f"{made}. Use that, or leave it out"
        )
    _name_axes(program.model, axes)
    return program


def _name_axes(model: Any, axes: Axes) -> None:
    """Give free axes their names, all through a graph."""
    symbols = {}
    for value in model.graph.inputs:
        for axis, name in axes.get(value.name, {}).items():
            symbols[str(value.shape[axis])] = name
            value.shape[axis] = name
    for value in (value for node in model.graph for value in node.outputs):
        for axis, length in enumerate(value.shape or ()):
            if not isinstance(length, int):
                value.shape[axis] = symbols.get(str(length), length)
    for value in model.graph.outputs:
        # torch writes the example's length where it does not follow an axis, through an LSTM for one.
        for axis, name in axes.get(value.name, {}).items() if value.shape is not None else ():
            value.shape[axis] = name


def save_onnx(program: torch.onnx.ONNXProgram, path: Path) -> dict[str, Path]:
    """Write a converted model; what protobuf has no room for goes into a file beside it.

    Returns:
        The files beside it, by name.
    """
    weights = sum(value.const_value.nbytes for value in program.model.graph.initializers.values() if value.const_value)
    if weights <= EXTERNAL_DATA_BYTES:
        path.write_bytes(program.model_proto.SerializeToString())
        return {}
    program.save(str(path), external_data=True)
    beside = path.with_name(f"{path.name}.data")
    return {beside.name: beside}


def to_torchscript(
    module: torch.nn.Module, call: Call, example: Mapping[str, Array], path: Path, *, script: bool
) -> None:
    """Write a module as TorchScript, traced with an example or compiled from its source.

    Raises:
        ConversionError: torch does not take the module, or tracing it would freeze what follows the values of the rows.
    """
    import torch

    frozen: Sequence[str] = ()
    compiled = script or isinstance(module, torch.jit.ScriptModule)
    verb = "script" if compiled else "trace"
    try:
        with warnings.catch_warnings():
            # Triton's PyTorch backend takes TorchScript, which torch has deprecated as a whole.
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            if compiled:
                result: Any = _scripted(module, call)
            else:
                tensors = tuple(tensor(array) for array in example.values())
                with torch.no_grad(), frozen_values() as frozen:
                    result = torch.jit.trace(flat(module, call).eval(), tensors)
            result.save(str(path))
    except Exception as exc:
        raise ConversionError(
            f"torch.jit.{verb} does not take this {type(module).__name__}: {_short(exc)}\n"
            + (
                "Scripting compiles forward from its source: annotate arguments that are no tensors, and use what "
                "TorchScript has of Python; or trace it, with script=False"
                if compiled
                else "If it branches on values, compile it from its source, with script=True"
            )
        ) from exc
    if frozen:
        raise ConversionError(
            f"Tracing this {type(module).__name__} would freeze what it did with the first rows: {frozen[0]}\nCompile "
            "it from its source, with script=True, or write forward without it, by torch.where for instance"
        )


def _scripted(module: torch.nn.Module, call: Call) -> torch.jit.ScriptModule:
    import torch

    class Flat(torch.jit.ScriptModule):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.jit.script(module)
            # Here, because a method that is added later belongs to all modules of the same make.
            self.define(call.script())

    return Flat().eval()


def _in_plain_words(module: torch.nn.Module, exc: BaseException) -> str:
    who = f"torch.onnx.export does not take this {type(module).__name__}"
    chain = list(_chain(exc))
    for pattern, meaning in _FAILURES:
        for link in chain:
            if found := re.search(pattern, f"{type(link).__name__}: {link}"):
                return f"{who}: " + meaning.format(
                    *(" ".join((group or "forward").split()) for group in found.groups())
                )
    return (
        f"{who}: {_short(chain[-1])}\nWhat its forward does must be torch's own operators on tensors; or {_TORCHSCRIPT}"
    )


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__


def _short(exc: BaseException) -> str:
    """The gist of an error: torch's go on for pages."""
    text = f"{type(exc).__name__}: {exc}".strip()
    return text if len(text) <= 1500 else f"{text[:1500]} …"


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence loggers: of what fails the error tells, and the rest is about packages that nobody asked for."""
    levels: list[tuple[Any, int]] = [(logging.getLogger(name), logging.getLogger(name).level) for name in _LOGGERS]
    for logger, _ in levels:
        logger.setLevel(logging.CRITICAL)
    try:
        with redirect_stderr(StringIO()):  # where torch prints the graph that it could not finish
            yield
    finally:
        for logger, level in levels:
            logger.setLevel(level)
