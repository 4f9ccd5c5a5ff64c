"""Lint while others publish, retire and restore: what is only so for a moment is no finding."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tritium.repository import Repository, restore, retire
from tritium.repository import lint as package
from tritium.repository.lint import lint
from tritium.repository.lint._onnx_file import Opener, Opening

from .planting import config, file, folder, gone, more

Change = Callable[[Path], object]
Meanwhile = Callable[[str, Change], list[str]]


@pytest.fixture
def meanwhile(good: Path, shared: type[Opener], monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Does something just before a model's file is opened, every time, and returns which were opened."""

    def install(model: str, change: Change) -> list[str]:
        opened: list[str] = []

        class Changing(shared):  # type: ignore[valid-type, misc]
            def open(self, path: Path) -> Opening:
                opened.append(path.relative_to(good).as_posix())
                if path.is_relative_to(good / model):
                    change(good)
                answer: Opening = super().open(path)
                return answer

        monkeypatch.setattr(package, "Opener", Changing)
        return opened

    return install


@pytest.fixture
def two(good: Path) -> Path:
    """The same, with two versions of a model, of which the second is served."""
    shutil.copytree(good / "plus_one/1", good / "plus_one/2")
    return good


def test_version_that_is_retired_under_the_look_is_no_finding(two: Path, meanwhile: Meanwhile) -> None:
    opened = meanwhile("plus_one/1", lambda path: retire(Repository(path), "plus_one", 1))
    assert lint(two) == []
    assert "plus_one/1/model.onnx" in opened


def test_version_that_is_retired_after_the_look_is_no_finding(good: Path, meanwhile: Meanwhile) -> None:
    folder("bare/2")(good)
    meanwhile("plus_one", gone("bare/2"))
    assert lint(good) == []


def test_version_that_is_restored_under_the_look_is_no_finding(two: Path, meanwhile: Meanwhile) -> None:
    def change(path: Path) -> None:
        repository = Repository(path)
        if opened[-1] == "plus_one/1/model.onnx":
            retire(repository, "plus_one", 1)
        else:
            restore(repository, "plus_one", 1)

    opened = meanwhile("plus_one", change)
    assert lint(two) == []
    assert opened.count("plus_one/1/model.onnx") == 1
    assert (two / "plus_one/1").is_dir()


def test_version_that_is_moved_away_and_back_is_looked_at_again(two: Path, meanwhile: Meanwhile) -> None:
    def change(path: Path) -> None:
        retire(Repository(path), "plus_one", 1)
        restore(Repository(path), "plus_one", 1)

    opened = meanwhile("plus_one/1", change)
    (two / "plus_one/1/notes.txt").touch()
    (finding,) = lint(two)
    assert finding.code == "file-unnamed"
    assert opened.count("plus_one/1/model.onnx") == 4


def test_config_that_is_mended_under_the_look_is_no_finding(good: Path, meanwhile: Meanwhile) -> None:
    config(lambda found: found.input[0].dims.__setitem__(0, 3))(good)

    def change(path: Path) -> None:
        made = path / "bare/.bare-staging-x"
        shutil.copytree(path / "bare", made)
        config(lambda found: found.input[0].dims.__setitem__(0, 2), f"bare/{made.name}")(path)
        (made / "config.pbtxt").rename(path / "bare/config.pbtxt")
        shutil.rmtree(made)

    meanwhile("bare", change)
    assert lint(good) == []


def test_model_that_is_gone_in_the_end_is_no_finding(good: Path, meanwhile: Meanwhile) -> None:
    more('model_repository_agents { agents { name: "x" } }')(good)
    meanwhile("plus_one", gone("bare"))
    assert lint(good) == []


def test_folder_that_a_publisher_works_in_is_not_looked_into(good: Path) -> None:
    file("bare/.bare-staging-x/version/model.onnx", "half of it")(good)
    (good / "bare/.bare-staging-x/link").symlink_to("/etc")
    os.mkfifo(good / "bare/.bare-staging-x/pipe")
    assert lint(good) == []


def test_folder_that_is_only_called_like_a_publishers_further_down_is_looked_into(good: Path) -> None:
    folder("bare/1/.bare-staging-x")(good)
    (good / "bare/1/.bare-staging-x/link").symlink_to("/etc")
    assert {finding.code for finding in lint(good)} == {"link"}
