"""What the benchmarks share: models that are untrained and the same each time, servers, spreads and tables."""

from __future__ import annotations

import shutil
import socket
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn
from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup

from tritium.exporters import export_torch
from tritium.exporters.zoo import MODELS as REFERENCE_MODELS
from tritium.exporters.zoo import build
from tritium.exporters.zoo.digits_cnn import DigitsCnn
from tritium.repository import Manifest, Repository, Tolerance, config_text, load_golden, read_config, rows_within
from tritium.server import TritonServer

Array = NDArray[Any]
PROJECT_MODELS = Path(__file__).resolve().parents[1] / "model_repository"
INPUT, OUTPUT = "features", "scores"


@dataclass(frozen=True)
class Model:
    """A published model, one row to ask it with, and the right answer: ONNX Runtime's own, or the golden case's."""

    name: str
    repository: Path
    file: Path
    row: Array
    expected: Array
    input: str = INPUT
    output: str = OUTPUT
    tolerance: Tolerance = Tolerance(atol=1e-6, rtol=1e-4)

    def check(self, answer: Array, asked: str) -> None:
        """Refuse an answer that is not right: its figures would be worth nothing."""
        if answer.shape != self.expected.shape or not rows_within(self.expected, answer, self.tolerance).all():
            raise BenchError(f"{asked} answers {self.name} with {answer} instead of {self.expected}")


class BenchError(Exception):
    """The run proves nothing: an answer is wrong, or a server did not start or answer."""


def cnn(repository: Path, name: str = "cnn", *, seed: int = 0) -> Model:
    """The architecture of `digits_cnn`: 28×28 pixels, 32 and 64 channels, 128 units, 10 classes."""
    return _publish(repository, name, DigitsCnn, (1, 28, 28), seed)


def mlp(repository: Path, name: str = "mlp", *, seed: int = 0) -> Model:
    """A perceptron so small that what is measured is the way to it: 100-64-32-10."""
    return _publish(repository, name, _mlp, (100,), seed)


MODELS: Mapping[str, Callable[[Path], Model]] = {"cnn": cnn, "mlp": mlp}


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(100, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def _publish(repository: Path, name: str, build: Callable[[], nn.Module], shape: Sequence[int], seed: int) -> Model:
    torch.manual_seed(seed)
    rows = np.random.default_rng(seed).normal(size=(4, *shape)).astype(np.float32)
    published = export_torch(build(), {INPUT: rows}, outputs=[OUTPUT], name=name, repository=repository)
    keep_on_cpu(repository / name / "config.pbtxt")
    file = repository / name / str(published.version) / "model.onnx"
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    return Model(name, repository, file, rows[:1], session.run([OUTPUT], {INPUT: rows[:1]})[0])


def zoo() -> Repository:
    """The project's own repository; reference models that are not there are trained first."""
    repository = Repository(PROJECT_MODELS)
    for name in REFERENCE_MODELS:
        build(name, repository, progress=lambda line: print(line, file=sys.stderr))
    return repository


def reference(name: str, repository: Path) -> Model:
    """A reference model in a repository of the benchmark's own, with its first golden case."""
    folder = copied(name, repository)
    config = read_config(repository / name / "config.pbtxt")
    golden = load_golden(folder, config)
    source, result = config.input[0].name, config.output[0].name
    return Model(
        name,
        repository,
        next(folder.glob("model.*")),
        golden.inputs[source][:1],
        golden.outputs[result][:1],
        source,
        result,
        Manifest.load(folder).tolerance,
    )


def copied(name: str, repository: Path) -> Path:
    """A reference model's latest version in another repository, on the CPU; the version's folder."""
    project = Repository(PROJECT_MODELS)
    built = build(name, project, progress=lambda line: print(line, file=sys.stderr))
    folder = repository / name
    shutil.copytree(project.version_folder(name), folder / str(built.version))
    for beside in (project.path / name).iterdir():
        if beside.is_file():
            shutil.copy2(beside, folder)
    keep_on_cpu(folder / "config.pbtxt")
    return folder / str(built.version)


def keep_on_cpu(path: Path) -> None:
    """What the model is compared with runs on the CPU, whatever the machine has; all else is as the exporters say."""
    config = read_config(path)
    config.instance_group[0].kind = ModelInstanceGroup.KIND_CPU
    path.write_text(config_text(config), encoding="utf-8")


@contextmanager
def serving(repository: Path, backend: str) -> Iterator[TritonServer]:
    """A Triton with that ONNX Runtime backend, and no other in its place."""
    with TritonServer(repository, onnx_backend=backend) as server:
        if server.onnx_backend != backend:
            raise BenchError(f"Triton was to run the {backend} backend and runs the {server.onnx_backend} one instead")
        yield server


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median, and between what the values lie."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def print_columns(cells: Sequence[Sequence[str]]) -> None:
    """A table on standard error; every line has as many cells as the first, the heads."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip(), file=sys.stderr)


def free_port() -> int:
    """A port on loopback that nothing listens on."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
