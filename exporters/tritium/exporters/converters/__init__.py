"""Converters for estimators that skl2onnx lacks or gets wrong.

A converter is a function that writes an estimator's graph with the help of `Ops`, registered under the entry-point
group ``tritium.sklearn_converters``: ours in the same way as anybody's. An entry point is a `Converter` or a list of
them; its name is free.
"""

from ._ops import Ops
from ._registry import GROUP, Converter

__all__ = ["GROUP", "Converter", "Ops"]
