"""Small models that show one behaviour each, and a server that runs them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from tritium.server._runtime import needed_wheels

# A graph's tensors: name, ONNX element type, shape.
Tensor = tuple[str, int, Sequence[int | str]]
WriteModel = Callable[..., Path]


def onnx_bytes(
    nodes: Sequence[Any], inputs: Sequence[Tensor], outputs: Sequence[Tensor], initializers: Sequence[Any] = ()
) -> bytes:
    """A whole ONNX file."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(*tensor) for tensor in inputs],
        [helper.make_tensor_value_info(*tensor) for tensor in outputs],
        list(initializers),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def doubler(dims: Sequence[int | str] = ("batch", 2)) -> bytes:
    """y = x + x, in float32."""
    tensors = [("x", TensorProto.FLOAT, dims)], [("y", TensorProto.FLOAT, dims)]
    return onnx_bytes([helper.make_node("Add", ["x", "x"], ["y"])], *tensors)


DOUBLER_CONFIG = """
backend: "onnxruntime"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: 2 }
output { name: "y" data_type: TYPE_FP32 dims: 2 }
instance_group { count: 1 kind: KIND_CPU }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository for the tests of one module."""
    return tmp_path_factory.mktemp("repository")


@pytest.fixture(scope="module")
def write_model(folder: Path) -> WriteModel:
    """Put a model into the module's repository: its name, its file's content, its config (None: none)."""

    def write(name: str, content: bytes, config: str | None, *, file: str = "model.onnx") -> Path:
        version = folder / name / "1"
        version.mkdir(parents=True)
        (version / file).write_bytes(content)
        if config is not None:
            (folder / name / "config.pbtxt").write_text(config, encoding="utf-8")
        return version

    return write


@pytest.fixture(scope="session")
def wheels(request: pytest.FixtureRequest) -> Path:
    """A folder with the runtime's two wheels, as somebody without a network would bring them along."""
    cache: pytest.Cache = request.config.cache
    target = Path(cache.mkdir(f"runtime-wheels-{sys.version_info.major}.{sys.version_info.minor}"))
    wanted = needed_wheels()
    if not all(list(target.glob(wheel.pattern)) for wheel in wanted):
        names = [f"{wheel.project}=={wheel.version}" for wheel in wanted]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        subprocess.run([*command, "--dest", str(target), *names], check=True, capture_output=True)
    return target
