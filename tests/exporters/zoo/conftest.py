"""Reference models one by one, so that a test of one waits for no other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from tritium.exporters.zoo import Built
from tritium.repository import Manifest, Repository, open_artifact, output_specs

Array = NDArray[Any]


def texts(array: Array) -> list[str]:
    """Strings, which a runtime gives as text or as bytes."""
    return [item.decode() if isinstance(item, bytes) else item for item in array.ravel()]


@dataclass(frozen=True)
class Reference:
    """The latest version of a reference model in the project's own repository."""

    name: str
    repository: Repository
    folder: Path
    manifest: Manifest

    @property
    def artifact(self) -> Path:
        (found,) = (path for path in self.folder.glob("model.*") if path.suffix in (".onnx", ".pt"))
        return found

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        """What the published artifact answers."""
        config = self.repository.config(self.name)
        run = open_artifact(self.artifact, config.backend)
        return run(inputs, [spec.name for spec in output_specs(config)])

    def weights(self) -> dict[str, Array]:
        """What the ONNX file has learned, by name."""
        import onnx

        return {
            tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(self.artifact).graph.initializer
        }

    def layers(self) -> list[tuple[int, ...]]:
        """The sizes of its linear layers from first to last, as (inputs, outputs)."""
        import onnx

        weights, found = self.weights(), []
        for node in onnx.load(self.artifact).graph.node:
            if node.op_type in ("Gemm", "MatMul") and node.input[1] in weights:
                shape = weights[node.input[1]].shape
                transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
                found.append(shape[::-1] if transposed else shape)
        return found


@pytest.fixture(scope="session")
def reference(built: Callable[[str], Built]) -> Callable[[str], Reference]:
    """A reference model by name, built if it is not up to date."""
    repository = Repository(Path(__file__).resolve().parents[3] / "model_repository")

    def get(name: str) -> Reference:
        made = built(name)
        return Reference(name, repository, repository.version_folder(name, made.version), made.manifest)

    return get
