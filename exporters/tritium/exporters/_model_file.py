"""Model files that exist: told apart by their content, and read for what they say of themselves."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritium.client import InputError, TensorSpec, numpy_dtype

from ._errors import ConversionError
from ._export import need
from ._onnx import opset_of

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

# By the name that onnx has for an element type; what is missing here Triton does not have.
_TRITON_DTYPES = {
    "FLOAT": "FP32",
    "FLOAT16": "FP16",
    "BFLOAT16": "BF16",
    "DOUBLE": "FP64",
    "INT8": "INT8",
    "INT16": "INT16",
    "INT32": "INT32",
    "INT64": "INT64",
    "UINT8": "UINT8",
    "UINT16": "UINT16",
    "UINT32": "UINT32",
    "UINT64": "UINT64",
    "BOOL": "BOOL",
    "STRING": "BYTES",
}
_LOAD_IT = (
    "A pickle runs whatever is in it, so that it is not even looked at. Load it where you trust it, and write "
    "torch.jit.script(module).save('model.pt'), or call tritium.exporters.export_torch or export_sklearn"
)
# How other files begin, and what to do with them.
_OTHERS = (
    (b"\x80", "a Python pickle. " + _LOAD_IT),
    (b"\x89HDF", "HDF5, as Keras writes it. Convert it to ONNX with tf2onnx, or model.export(…, format='onnx')"),
    (b"\x1f\x8b", "compressed by gzip. Unpack it first"),
)


@dataclass(frozen=True)
class Declared:
    """An input or output as a file declares it.

    Attributes:
        dtype: Triton's name of its element type.
        shape: one number an axis, -1 where any length is accepted; None if the file does not say.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class ModelFile:
    """What a model file says of itself.

    Attributes:
        backend: ``onnxruntime`` or ``pytorch``.
        inputs: what it takes; none if it does not say, as TorchScript.
        outputs: what it gives; likewise.
        files: the files that belong beside it, by name.
        opset: of ONNX.
        arguments: of TorchScript, the arguments of ``forward`` with their types.
        symbols: for each input the name of its first axis, if that has one.
    """

    path: Path
    backend: str
    inputs: Sequence[Declared] = ()
    outputs: Sequence[Declared] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    opset: int | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)
    symbols: Sequence[str] = ()


def read_model_file(path: Path) -> ModelFile:
    """Find out what a file is, and what it says of itself. Nothing in it is run.

    Raises:
        InputError: it is missing, or neither ONNX nor TorchScript; the message says what it is.
        ConversionError: Triton does not have a type of its inputs or outputs, or its data leaves its folder.
    """
    if not path.is_file():
        raise InputError(f"There is no model file {path}" + (", only a folder" if path.is_dir() else ""))
    if zipfile.is_zipfile(path):
        return _read_zip(path)
    with path.open("rb") as file:
        start = file.read(16)
    for magic, what in _OTHERS:
        if start.startswith(magic):
            raise InputError(f"{path} is {what}")
    return _read_onnx(path)


def _read_zip(path: Path) -> ModelFile:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("/constants.pkl") for name in names) and any("/code/" in name for name in names):
        return _read_torchscript(path)
    if any(name.endswith("/data.pkl") for name in names):
        raise InputError(f"{path} is a pickle that torch.save wrote: weights, or a whole module. {_LOAD_IT}")
    if any("archive_format" in name or name.endswith(".pt2") for name in names):
        raise InputError(
            f"{path} is a program of torch.export. Triton runs ONNX or TorchScript: call "
            "tritium.exporters.export_torch with torch.export.load(path).module()"
        )
    raise InputError(f"{path} is a zip file without a TorchScript module in it; it must be ONNX or TorchScript")


def _read_torchscript(path: Path) -> ModelFile:
    need("torch")
    import torch

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
            module = torch.jit.load(str(path), map_location="cpu")
        schema = module.forward.schema
    except Exception as exc:
        raise ConversionError(f"{path} does not load in torch {torch.__version__}: {exc}") from exc
    arguments = [item for item in schema.arguments if item.name != "self"]
    odd = {
        item.name: str(item.type)
        for item in arguments
        if str(item.type) not in ("Tensor", "List[str]") and not item.has_default_value()
    }
    if odd:
        raise ConversionError(
            f"Triton gives tensors to a TorchScript module, and the forward of {path} takes "
            + ", ".join(f"{key} of type {kind}" for key, kind in odd.items())
            + ". Script a module around it whose forward takes tensors only"
        )
    return ModelFile(path, "pytorch", arguments={item.name: str(item.type) for item in arguments})


def _read_onnx(path: Path) -> ModelFile:
    need("onnx")
    import onnx

    try:
        # What lies outside of the file is looked at before anything reads it.
        model = onnx.load(path, load_external_data=False)
    except Exception as exc:
        raise InputError(f"{path} is neither ONNX nor TorchScript: {exc}") from exc
    if not model.ir_version or not model.opset_import or not model.graph.output:
        raise InputError(f"{path} is neither ONNX nor TorchScript: it has no graph with outputs")
    initial = {tensor.name for tensor in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in initial]
    if not inputs:
        raise ConversionError(f"{path} has no inputs, and Triton serves no model without any")
    return ModelFile(
        path,
        "onnxruntime",
        inputs=[_declared("input", item) for item in inputs],
        outputs=[_declared("output", item) for item in model.graph.output],
        files=_external_files(path, model),
        opset=opset_of(model),
        symbols=[_first_symbol(item) for item in inputs],
    )


def _declared(kind: str, item: ValueInfoProto) -> Declared:
    from onnx import TensorProto

    which = item.type.WhichOneof("value")
    if which != "tensor_type":
        what = (which or "unknown").removesuffix("_type").replace("_", " ")
        hint = "; a classifier of scikit-learn is converted with zipmap=False" if what in ("sequence", "map") else ""
        raise ConversionError(
            f"The {kind} {item.name!r} is of the ONNX type {what}, and Triton has tensors only. Export the model with "
            f"tensors as inputs and outputs{hint}"
        )
    tensor = item.type.tensor_type
    dtype = TensorProto.DataType.Name(tensor.elem_type)
    if dtype not in _TRITON_DTYPES:
        raise ConversionError(
            f"The {kind} {item.name!r} has elements of the ONNX type {dtype}, which Triton does not have. Cast it in "
            f"the graph to one of {', '.join(_TRITON_DTYPES)}"
        )
    shape = None
    if tensor.HasField("shape"):
        shape = tuple(axis.dim_value if axis.HasField("dim_value") else -1 for axis in tensor.shape.dim)
    return Declared(item.name, _TRITON_DTYPES[dtype], shape)


def _first_symbol(item: ValueInfoProto) -> str:
    axes = item.type.tensor_type.shape.dim
    return str(axes[0].dim_param) if axes else ""


def _external_files(path: Path, model: ModelProto) -> dict[str, Path]:
    """The files that hold a model's weights, which must be plain files beside it."""
    found = {}
    for location in sorted({entry.value for entry in _locations(model)}):
        beside = path.parent / location
        fault = ""
        if not location or Path(location).name != location:
            fault = "must be the name of a file in the same folder, without a path"
        elif beside.is_symlink():
            fault = "is a link, which could lead anywhere"
        elif not beside.is_file():
            fault = f"is not in {path.parent}"
        if fault:
            raise ConversionError(
                f"{path} has weights in {location!r}, which {fault}. Write the model again with all of them beside it: "
                "onnx.save_model(model, path, save_as_external_data=True, location='model.onnx.data')"
            )
        found[location] = beside
    return found


def _locations(message: Any) -> Iterator[Any]:
    """The places of external data anywhere in a model: in its graph, in graphs of its nodes, in its functions."""
    from onnx import TensorProto

    if isinstance(message, TensorProto):
        if message.data_location == TensorProto.EXTERNAL:
            yield from (entry for entry in message.external_data if entry.key == "location")
        return
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            for item in value if _is_repeated(value) else (value,):
                yield from _locations(item)


def _is_repeated(value: Any) -> bool:
    return not hasattr(value, "ListFields")


def script_inputs(file: ModelFile, inputs: Sequence[TensorSpec]) -> ModelFile:
    """A TorchScript file with the inputs that its caller gives.

    Raises:
        InputError: they are missing, or none of its arguments; the message says what to pass.
    """
    known = ", ".join(f"{key}: {kind}" for key, kind in file.arguments.items())
    if not inputs:
        example = " ".join(f"--input {key}:FP32:-1,4" for key in file.arguments)
        raise InputError(
            f"TorchScript does not say the dtypes and shapes of its inputs. The forward of {file.path} takes "
            f"({known}). Pass real inputs as `samples`, or `inputs` with a TensorSpec for each argument; on the "
            f"command line --samples inputs.npz, or for instance {example}, where the first -1 is the batch axis"
        )
    places = tuple(f"__{place}" for place in range(len(file.arguments)))
    by_name = all(spec.name in file.arguments for spec in inputs)
    for spec in inputs:
        if not by_name and not spec.name.endswith(places):
            raise InputError(
                f"The inputs must be arguments of the forward of {file.path} ({known}), or all end in their places, as "
                f"in {spec.name}__0; got {spec.name!r} instead"
            )
        numpy_dtype(spec.dtype)
    return replace(file, inputs=[Declared(spec.name, spec.dtype, spec.shape) for spec in inputs])


def script_outputs(file: ModelFile, outputs: Sequence[str], found: Sequence[str]) -> ModelFile:
    """A TorchScript file with its outputs.

    Args:
        file: with its inputs.
        outputs: what they are to be called; none for the names that were found.
        found: the keys of the dict that its forward returns, or ``output__0`` and so on.

    Raises:
        InputError: they are not as many, or none of the keys.
    """
    names = list(outputs or found)
    if all(name == f"output__{place}" for place, name in enumerate(found)):
        if len(names) != len(found):
            raise InputError(f"{file.path} returns {len(found)} tensors, and the outputs {names} were named")
        names = [name if name.endswith(f"__{place}") else f"{name}__{place}" for place, name in enumerate(names)]
    elif unknown := sorted(set(names) - set(found)):
        raise InputError(f"{file.path} returns {', '.join(found)}, and the output {unknown[0]!r} was named")
    return replace(file, outputs=[Declared(name, "", None) for name in names])
