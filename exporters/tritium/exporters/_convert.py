"""One converter for each pair of framework and format. Each writes a file, or raises ConversionError."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._errors import ConversionError

if TYPE_CHECKING:
    import torch

Array = NDArray[Any]


def sklearn_to_onnx(estimator: Any, inputs: Mapping[str, Array], outputs: Sequence[str], path: Path) -> int:
    """Write a fitted estimator or Pipeline as ONNX; probabilities come as one array, without a ZipMap.

    Args:
        estimator: fitted on numbers.
        inputs: float32 arrays by input name; their first axis is the batch.
        outputs: what the outputs are called, in the converter's order.
        path: the file to write.

    Returns:
        The opset.
    """
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.base import is_classifier

    types = [(name, FloatTensorType([None, *array.shape[1:]])) for name, array in inputs.items()]
    options = {id(estimator): {"zipmap": False}} if is_classifier(estimator) else None
    try:
        with warnings.catch_warnings():
            # skl2onnx reads attributes that scikit-learn 1.9 has deprecated.
            warnings.filterwarnings("ignore", message="Attribute `prob[AB]_` was deprecated", category=FutureWarning)
            # The types of the outputs are the converter's business; only their names are ours.
            model = to_onnx(
                estimator, initial_types=types, options=options, final_types=[(name, None) for name in outputs]
            )
    except Exception as exc:
        raise ConversionError(
            f"skl2onnx does not convert this {type(estimator).__name__}: {exc}\nIts documentation lists the estimators "
            "that it supports; a custom transformer needs a converter of its own"
        ) from exc
    path.write_bytes(model.SerializeToString())
    return next(int(opset.version) for opset in model.opset_import if opset.domain == "")


def torch_to_onnx(module: torch.nn.Module, inputs: Mapping[str, Array], outputs: Sequence[str], path: Path) -> int:
    """Write a module as ONNX with a dynamic batch axis, by torch's exporter on top of `torch.export`.

    Returns:
        The opset.
    """
    import torch

    batch = torch.export.Dim("batch")
    try:
        with warnings.catch_warnings(), _quiet("torch.onnx._internal.exporter._registration"):
            # Of torch's own making, and about its own internals.
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=FutureWarning)
            # One name for the batch axis of several inputs is what is meant.
            warnings.filterwarnings("ignore", message="# The axis name: batch will not be used", category=UserWarning)
            program = torch.onnx.export(
                module.eval(),
                tuple(_example(inputs).values()),
                dynamo=True,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=tuple({0: batch} for _ in inputs),
                verbose=False,
            )
        if program is None:  # only without dynamo
            raise ConversionError("torch's exporter returned nothing")
        # One file: external data is for models of more than 2 GB.
        program.save(path, external_data=False)
    except Exception as exc:
        raise ConversionError(
            f"torch.onnx.export does not take this {type(module).__name__}: {exc}\nIf it branches on values, use "
            "torch.where or torch.cond; or export it as TorchScript, with format='torchscript'"
        ) from exc
    return int(program.model.opset_imports[""])


def torch_to_torchscript(module: torch.nn.Module, inputs: Mapping[str, Array], path: Path) -> None:
    """Write a module as TorchScript, traced with the inputs."""
    import torch

    try:
        with warnings.catch_warnings():
            # Triton's PyTorch backend takes TorchScript, which torch has deprecated as a whole.
            warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
            traced = torch.jit.trace(module.eval(), tuple(_example(inputs).values()))
            traced.save(str(path))
    except Exception as exc:
        raise ConversionError(f"torch.jit.trace does not take this {type(module).__name__}: {exc}") from exc


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Silence a logger that complains of optional packages nobody asked for."""
    target = logging.getLogger(logger)
    level = target.level
    target.setLevel(logging.ERROR)
    try:
        yield
    finally:
        target.setLevel(level)


def _example(inputs: Mapping[str, Array]) -> dict[str, torch.Tensor]:
    """Two rows: an example of one would freeze the batch axis."""
    import torch

    return {name: torch.from_numpy(np.ascontiguousarray(array[:2])) for name, array in inputs.items()}
