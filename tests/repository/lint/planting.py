"""Faults that are planted into a good repository, and the codes by which they must be found."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf import text_format
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tritium.repository import config_text, read_config

Plant = Callable[[Path], object]
Array = NDArray[Any]

BARE = """
name: "bare"
backend: "onnxruntime"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: 2 }
output { name: "y" data_type: TYPE_FP32 dims: 2 }
version_policy { latest { num_versions: 1 } }
instance_group { count: 1 }
"""
SCRIPT = BARE.replace("bare", "script").replace("onnxruntime", "pytorch").replace('"y"', '"y__0"')
PAIR = """
name: "pair"
platform: "ensemble"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: 2 }
output { name: "y" data_type: TYPE_FP32 dims: 2 }
version_policy { latest { num_versions: 1 } }
ensemble_scheduling {
  step {
    model_name: "plus_one"
    model_version: -1
    input_map { key: "x" value: "x" }
    output_map { key: "y" value: "between" }
  }
  step {
    model_name: "plus_one"
    model_version: -1
    input_map { key: "x" value: "between" }
    output_map { key: "y" value: "y" }
  }
}
"""


@dataclass(frozen=True)
class Fault:
    """What is done to a good repository, and every code that lint must then find, no more and no less."""

    name: str
    plant: Plant
    codes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {', '.join(self.codes)}"


def fault(name: str, plant: Plant, *codes: str) -> Fault:
    """A fault; see there."""
    return Fault(name, plant, codes)


def config(change: Callable[[ModelConfig], object], model: str = "bare") -> Plant:
    """Change a model's config."""

    def plant(repository: Path) -> None:
        path = repository / model / "config.pbtxt"
        found = read_config(path)
        change(found)
        path.write_text(config_text(found), encoding="utf-8")

    return plant


def more(text: str, model: str = "bare") -> Plant:
    """Add fields to a model's config; single ones replace those that are there."""
    return config(lambda found: text_format.Merge(text, found), model)


def instead(old: str, new: str, model: str = "bare") -> Plant:
    """Replace a piece of a config's text."""

    def plant(repository: Path) -> None:
        path = repository / model / "config.pbtxt"
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    return plant


def file(path: str, content: bytes | str = b"") -> Plant:
    """Write a file, by its path in the repository."""

    def plant(repository: Path) -> None:
        target = repository / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)

    return plant


def graph(change: Callable[[onnx.ModelProto], object]) -> Plant:
    """Change the ONNX file of the model that was written by hand."""

    def plant(repository: Path) -> None:
        path = repository / "bare/1/model.onnx"
        model = onnx.ModelProto.FromString(path.read_bytes())
        change(model)
        path.write_bytes(model.SerializeToString())

    return plant


def both(*plants: Plant) -> Plant:
    """One after the other."""

    def plant(repository: Path) -> None:
        for each in plants:
            each(repository)

    return plant


def outside(location: str) -> Callable[[onnx.ModelProto], None]:
    """Say that a weight lies in another file."""

    def change(model: onnx.ModelProto) -> None:
        weight = model.graph.initializer.add(name="outside", data_type=TensorProto.FLOAT, dims=[1])
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=location)

    return change


def plus_one_onnx(**dims: Any) -> bytes:
    """`y = x + 1`; the shapes of `x` and `y` can be given."""
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, dims.get(name, ["batch", 2])) for name in ("x", "y")
    ]
    one = helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])
    made = helper.make_graph(
        [helper.make_node("Add", ["x", "one"], ["y"])], "plus_one", tensors[:1], tensors[1:], [one]
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


WARM_UP = "model_warmup {{ name: 'w' batch_size: 1 inputs {{ key: '{}' value {{ data_type: {} dims: {} {} }} }} }}"


def warm_up(name: str = "x", dtype: str = "TYPE_FP32", dims: int = 2, data: str = "zero_data: true") -> str:
    """A warm-up that fits, but for what is given."""
    return WARM_UP.format(name, dtype, dims, data)


def manifest(change: Callable[[dict[str, Any]], object]) -> Plant:
    """Change the manifest of the published model."""

    def plant(repository: Path) -> None:
        path = repository / "plus_one/1/manifest.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        change(content)
        path.write_text(json.dumps(content), encoding="utf-8")

    return plant


def golden(name: str, change: Callable[[Array], Array]) -> Plant:
    """Change a golden array of the published model, and its checksum with it."""

    def plant(repository: Path) -> None:
        path = repository / "plus_one/1/golden.npz"
        with np.load(path) as file:
            arrays = dict(file)
        arrays[name] = change(arrays[name])
        np.savez(path, **arrays)
        unsigned(repository)

    return plant


def unsigned(repository: Path) -> None:
    """Make the manifest say what is there now."""
    version = repository / "plus_one/1"
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in version.iterdir()}
    files.pop("manifest.json")
    manifest(lambda content: content.update(files=files))(repository)


def renamed(old: str, new: str) -> Plant:
    """Move a file or a folder."""
    return lambda repository: (repository / old).rename(repository / new)


def folder(path: str) -> Plant:
    """Make an empty folder."""
    return lambda repository: (repository / path).mkdir(parents=True)


def gone(path: str) -> Plant:
    """Remove a file or a folder."""

    def plant(repository: Path) -> None:
        target = repository / path
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink()

    return plant


def aged(path: str) -> Plant:
    """Make a folder of long ago."""

    def plant(repository: Path) -> None:
        (repository / path).mkdir(parents=True)
        os.utime(repository / path, (1, 1))

    return plant


def archive(**members: bytes) -> bytes:
    """A zip archive, as torch writes them."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        for name, content in members.items():
            made.writestr(f"model/{name.replace('_', '.')}", content)
    return stream.getvalue()


def set_type(tensors: str, number: int) -> Callable[[onnx.ModelProto], None]:
    """Give the first input or output of a graph another element type."""

    def change(model: onnx.ModelProto) -> None:
        getattr(model.graph, tensors)[0].type.tensor_type.elem_type = number

    return change
