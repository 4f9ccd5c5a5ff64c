"""A tiny model that is quickly published: it multiplies two numbers by a factor."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from tritium.client import TensorSpec
from tritium.repository import Candidate, GoldenCases, Manifest, Repository, Tolerance, model_config, publish

from .conftest import onnx_bytes

ROW = np.array([[1, 2]], np.float32)


def publish_scaler(repository: Path, factor: int, model: str = "scaler") -> Path:
    """Publish one as the next version; the version's folder."""
    x, y = TensorSpec("x", "FP32", (-1, 2)), TensorSpec("y", "FP32", (-1, 2))
    tensors = [("x", TensorProto.FLOAT, ("batch", 2))], [("y", TensorProto.FLOAT, ("batch", 2))]
    manifest = Manifest(
        model=model,
        source="tests.server",
        created="2026-01-01T00:00:00Z",
        frameworks={},
        data={"name": "none", "rows": 1},
        metrics={},
        parity={},
        tolerance=Tolerance(),
    )
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        file.write(onnx_bytes([helper.make_node("Sum", ["x"] * factor, ["y"])], *tensors))
        file.flush()
        candidate = Candidate(
            config=model_config(model, backend="onnxruntime", inputs=[x], outputs=[y]),
            artifact=Path(file.name),
            golden=GoldenCases({"x": ROW}, {"y": factor * ROW}),
            manifest=manifest,
        )
        return publish(Repository(repository, create=True), candidate).folder
