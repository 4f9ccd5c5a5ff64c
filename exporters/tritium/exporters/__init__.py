"""From a fitted model to a verified version in a Triton model repository."""

from ._errors import ConversionError, ExportError, ParityError
from ._export import Provenance
from ._file import export_file
from ._onnx import export_onnx, join_onnx
from ._sklearn import export_sklearn, sklearn_to_onnx
from ._torch import export_torch, torch_to_onnx

__all__ = [
    "ConversionError",
    "ExportError",
    "ParityError",
    "Provenance",
    "export_file",
    "export_onnx",
    "export_sklearn",
    "export_torch",
    "join_onnx",
    "sklearn_to_onnx",
    "torch_to_onnx",
]
