"""From a fitted model to a verified version in a Triton model repository."""

from ._errors import ConversionError, ExportError, ParityError
from ._export import Provenance, export_sklearn, export_torch

__all__ = ["ConversionError", "ExportError", "ParityError", "Provenance", "export_sklearn", "export_torch"]
