"""A repository in which nothing is wrong, to plant faults into."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tritium.repository import Candidate, Repository, lint, publish
from tritium.repository.lint._onnx_file import Opener, Opening

from .planting import BARE, PAIR, SCRIPT, file, plus_one_onnx


class _Shared(Opener):
    """One that stays open, because each start of ONNX Runtime takes longer than all the rest of a test."""

    _opener = Opener()

    def open(self, path: Path) -> Opening:
        return self._opener.open(path)

    @classmethod
    def close(cls) -> None:
        cls._opener._end()


@pytest.fixture(scope="session")
def shared() -> Iterator[type[Opener]]:
    """It."""
    yield _Shared
    _Shared.close()


@pytest.fixture(autouse=True)
def quick(shared: type[Opener], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test here shares one process that opens files."""
    monkeypatch.setattr(lint, "Opener", shared)


@pytest.fixture
def good(tmp_path: Path, candidate: Candidate, torchscript_file: Path) -> Path:
    """One model as it was published, two by hand (ONNX, TorchScript), and an ensemble."""
    path = tmp_path / "models"
    file("bare/1/model.onnx", plus_one_onnx())(path)
    file("bare/config.pbtxt", BARE)(path)
    file("script/1/model.pt", torchscript_file.read_bytes())(path)
    file("script/config.pbtxt", SCRIPT)(path)
    file("pair/config.pbtxt", PAIR)(path)
    (path / "pair/1").mkdir()
    publish(Repository(path), candidate)
    return path
