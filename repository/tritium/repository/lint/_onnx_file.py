"""ONNX files, read without running them: as a protobuf here, and by ONNX Runtime in a process of its own."""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from .._errors import ArtifactError

# ONNX's element types by number, as a config calls them; what Triton has not is not here.
_DTYPES = {
    1: "FP32",
    2: "UINT8",
    3: "INT8",
    4: "UINT16",
    5: "INT16",
    6: "INT32",
    7: "INT64",
    8: "STRING",
    9: "BOOL",
    10: "FP16",
    11: "FP64",
    12: "UINT32",
    13: "UINT64",
    16: "BF16",
}
_RUNTIME_DTYPES = {
    "float": "FP32",
    "double": "FP64",
    "float16": "FP16",
    "bfloat16": "BF16",
    "string": "STRING",
    "bool": "BOOL",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training", "com.microsoft"}
_PATIENCE_S = 120.0


@dataclass(frozen=True)
class FileTensor:
    """An input or an output by the model file.

    Attributes:
        dtype: as a config calls it, without ``TYPE_``; empty if Triton has none such.
        dims: -1 where any length is accepted; None if the file leaves open how many axes there are.
    """

    name: str
    dtype: str
    dims: tuple[int, ...] | None


@dataclass(frozen=True)
class OnnxFile:
    """What an ONNX file says of itself.

    Attributes:
        defaults: inputs that need not be given.
        external: where tensors lie that are not in the file.
        opsets: the operators' versions by domain.
        custom: operators that are neither ONNX's nor ONNX Runtime's own, nor defined in the file.
    """

    inputs: Sequence[FileTensor]
    outputs: Sequence[FileTensor]
    defaults: frozenset[str] = frozenset()
    external: Sequence[str] = ()
    opsets: Mapping[str, int] = field(default_factory=dict)
    custom: Sequence[str] = ()


@dataclass(frozen=True)
class Opening:
    """What came of opening a file with ONNX Runtime.

    Attributes:
        error: why it does not open; empty if it does.
        missing: there is no ONNX Runtime.
    """

    inputs: Sequence[FileTensor] = ()
    outputs: Sequence[FileTensor] = ()
    error: str = ""
    missing: bool = False


def read_onnx(path: Path) -> OnnxFile | None:
    """Read an ONNX file without its external data.

    Returns:
        What it says; None if the package onnx is not there.

    Raises:
        ArtifactError: it is no ONNX file.
    """
    try:
        import onnx
    except ImportError:
        return None
    try:
        model = onnx.ModelProto.FromString(path.read_bytes())
    except Exception as exc:  # protobuf's own error is of no public type
        raise ArtifactError("it is no ONNX file") from exc
    graph = model.graph
    if not graph.node and not graph.output:
        raise ArtifactError("it is no ONNX file: it has no graph")
    defaults = frozenset(tensor.name for tensor in [*graph.initializer]) | {
        tensor.values.name for tensor in graph.sparse_initializer
    }
    external = {
        location
        for tensor in _parts(model, "TensorProto")
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for location in _locations(tensor)
    }
    return OnnxFile(
        inputs=[_declared(value) for value in graph.input],
        outputs=[_declared(value) for value in graph.output],
        defaults=defaults,
        external=sorted(external),
        opsets={entry.domain: entry.version for entry in model.opset_import},
        custom=sorted(_custom(model)),
    )


class Opener:
    """Opens ONNX files with ONNX Runtime, in a process of its own: a file that ends it ends nothing else.

    Nothing of the model runs, because its graph is not optimised and no input is given.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Opener:
        """Nothing is started before the first file."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self._end()

    def open(self, path: Path) -> Opening:
        """Open a file; what there is to say of it."""
        try:
            answer = json.loads(self._asked(json.dumps(str(path))))
        except (BrokenPipeError, ValueError):
            self._end()
            return Opening(error="ONNX Runtime came to an end over it, or did not come to one")
        if "missing" in answer:
            return Opening(missing=True)
        return Opening(
            inputs=[_opened(*tensor) for tensor in answer.get("inputs", ())],
            outputs=[_opened(*tensor) for tensor in answer.get("outputs", ())],
            error=answer.get("error", ""),
        )

    def _asked(self, question: str) -> str:
        """A line for a line; empty if the process has ended, or takes too long."""
        if self._process is None:
            # Not as a module: its packages would take longer to import than all the rest. -P: nor from its folder.
            command = [sys.executable, "-P", str(Path(__file__).with_name("_open_onnx.py"))]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        process = self._process
        if process.stdin is None or process.stdout is None:
            return ""
        print(question, file=process.stdin, flush=True)
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            return process.stdout.readline() if selector.select(_PATIENCE_S) else ""

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _declared(value: Any) -> FileTensor:
    tensor = value.type.tensor_type
    dims = None
    if tensor.HasField("shape"):
        dims = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim)
    return FileTensor(value.name, _DTYPES.get(tensor.elem_type, ""), dims)


def _opened(name: str, kind: str, dims: Sequence[Any]) -> FileTensor:
    dtype = _RUNTIME_DTYPES.get(kind.removeprefix("tensor(").removesuffix(")"), "")
    return FileTensor(name, dtype, tuple(dim if isinstance(dim, int) else -1 for dim in dims))


def _locations(tensor: Any) -> list[str]:
    """All that a tensor says, because of two places a reader takes either; none at all is as bad as a wrong one."""
    return [entry.value for entry in tensor.external_data if entry.key == "location"] or [""]


def _custom(model: Any) -> set[str]:
    defined = {(function.domain, function.name) for function in model.functions}
    return {
        f"{node.domain}.{node.op_type}"
        for node in _parts(model, "NodeProto")
        if node.domain not in _DOMAINS and (node.domain, node.op_type) not in defined
    }


def _parts(message: Any, kind: str) -> Iterator[Any]:
    """Every tensor or node of a protobuf, wherever it is: in a graph, in a node's attribute, in a function."""
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        for part in [value] if hasattr(value, "ListFields") else value:
            if descriptor.message_type.name == kind:
                yield part
            if descriptor.message_type.name != "TensorProto":
                yield from _parts(part, kind)
