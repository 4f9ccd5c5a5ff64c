"""Servers that are not there, and golden cases that are wrong."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tritium.repository import GoldenCases, Manifest, Repository, input_specs, load_golden, output_specs

TAMPERED_MODEL = "digits_mlp"


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port at which every connection is refused: taken, so that nobody else gets it, but without a listener."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture
def mute_port() -> Iterator[int]:
    """A port that takes every connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def copy_of(zoo: Repository, tmp_path: Path) -> Callable[[str], Repository]:
    """Makes a repository that holds one of the reference models alone."""

    def copy(model: str) -> Repository:
        shutil.copytree(zoo.path / model, tmp_path / "copy" / model)
        return Repository(tmp_path / "copy")

    return copy


@pytest.fixture
def tampered(copy_of: Callable[[str], Repository]) -> Repository:
    """A copy of the perceptron in whose golden cases one of 32 outputs is not what the model says."""
    repository = copy_of(TAMPERED_MODEL)
    config, folder = repository.config(TAMPERED_MODEL), repository.version_folder(TAMPERED_MODEL)
    golden = load_golden(folder, config)
    outputs = {name: array.copy() for name, array in golden.outputs.items()}
    outputs["probabilities__0"][3] = 0.1
    specs = [*input_specs(config), *output_specs(config)]
    GoldenCases(golden.inputs, outputs).save(folder / "golden.npz", specs)
    Manifest.load(folder).with_files(folder).save(folder)
    return repository
