"""ONNX's own backend tests as plain data: a model, what goes in and what must come out."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.backend.test import loader
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.runner import Runner

Array = NDArray[Any]

# As onnx names them. The real models come without their weights, and with the answers that these then give.
KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator", "real")
_LIGHT = Path(loader.DATA_DIR, "light")
_TENTH = 10


@dataclass(frozen=True)
class Case:
    """One model with its inputs and outputs.

    Attributes:
        name: as onnx calls it; no two have the same.
        kind: one of `KINDS`.
        inputs: by name; what is no tensor stays as onnx has it, in lists and ``None``.
        outputs: likewise.
        rtol: how far an output may be from the one expected, relative to it.
        atol: how far besides that.
    """

    name: str
    kind: str
    model: onnx.ModelProto
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    rtol: float
    atol: float

    @property
    def in_tenth(self) -> bool:
        """Whether it is one of the fixed tenth that runs where all would take too long."""
        return zlib.crc32(self.name.encode()) % _TENTH == 0

    def check(self, outputs: Sequence[Array]) -> None:
        """Compare outputs with those expected as onnx's own runner does.

        Raises:
            AssertionError: a shape, a dtype or a value is another one.
        """
        Runner.assert_similar_outputs(list(self.outputs.values()), outputs, self.rtol, self.atol)


@cache
def collect() -> tuple[Case, ...]:
    """Every test that onnx brings along, in a stable order."""
    # The reference answers of some tests are infinite or not a number, and numpy warns while they are made.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tests = [test for kind in KINDS for test in loader.load_model_tests(kind=kind)]
        return tuple(sorted(map(_case, tests), key=lambda case: (KINDS.index(case.kind), case.name)))


def _case(test: TestCase) -> Case:
    model = test.model or onnx.load(_model_file(test))
    # A model of the old form lists its weights as inputs too; nobody sends those.
    weights = {tensor.name for tensor in model.graph.initializer}
    given = [value for value in model.graph.input if value.name not in weights]
    inputs, outputs = _data(test, given, list(model.graph.output))
    return Case(
        name=test.name,
        kind=test.kind,
        model=model,
        inputs=dict(zip([value.name for value in given], inputs, strict=True)),
        outputs=dict(zip([value.name for value in model.graph.output], outputs, strict=True)),
        rtol=test.rtol,
        atol=test.atol,
    )


def _model_file(test: TestCase) -> Path:
    return Path(test.model_dir, "model.onnx") if test.model_dir else _LIGHT / f"light_{test.model_name}.onnx"


def _data(
    test: TestCase, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]
) -> tuple[list[Any], list[Any]]:
    if test.data_sets is not None:
        [(given, expected)] = test.data_sets
        return [_plain(item) for item in given], [_plain(item) for item in expected]
    if test.model_dir is not None:
        [folder] = Path(test.model_dir).glob("test_data_set_*")
        return list(_read(folder, "input", inputs)), list(_read(folder, "output", outputs))
    made = [Runner.generate_dummy_data(value, name=test.model_name) for value in inputs]
    return made, list(_read(_LIGHT, f"light_{test.model_name}_output", outputs))


def _plain(item: Any) -> Any:
    if isinstance(item, onnx.TensorProto):
        return numpy_helper.to_array(item)
    return np.asarray(item) if isinstance(item, np.generic) else item


def _read(folder: Path, stem: str, values: Sequence[onnx.ValueInfoProto]) -> Iterator[Any]:
    for number, value in enumerate(values):
        content = (folder / f"{stem}_{number}.pb").read_bytes()
        if value.type.HasField("tensor_type"):
            yield numpy_helper.to_array(onnx.TensorProto.FromString(content))
        else:
            yield numpy_helper.to_list(onnx.SequenceProto.FromString(content))
