"""Building a reference model: only when something has changed, and then always as a new version."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tritium.client import InputError, MissingExtraError
from tritium.exporters import training
from tritium.exporters.zoo import MODELS, _registry, build, built, check_names, digits_mlp, load_digits
from tritium.repository import Manifest, Repository, file_sha256, open_artifact

NAME = "digits_mlp"


def unexpected(line: str) -> None:
    raise AssertionError(f"something was built: {line}")


def ignored(_line: str) -> None: ...


@pytest.fixture
def copied(zoo: Repository, tmp_path: Path) -> Repository:
    """A repository that holds only the perceptron's latest version, as its version 1."""
    target = tmp_path / "models" / NAME
    shutil.copytree(zoo.version_folder(NAME), target / "1")
    for name in ("config.pbtxt", "labels.txt"):
        shutil.copy2(zoo.path / NAME / name, target)
    return Repository(tmp_path / "models")


@pytest.fixture
def one_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training for one epoch, where the test is not about what was learned."""

    def one(*args: Any, **options: Any) -> training.History:
        return training.train(*args, **(options | {"epochs": 1}))

    monkeypatch.setattr(digits_mlp, "train", one)


def digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_sha256(path) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["digits_cnn", "digits_mlp", "digits_svm"])
def test_a_model_that_is_up_to_date_is_left_as_it_is(zoo: Repository, name: str) -> None:
    before = digests(zoo.path / name)
    latest = zoo.versions(name)[-1]
    result = build(name, zoo, progress=unexpected)
    assert (result.fresh, result.version, result.model) == (False, latest, MODELS[name])
    assert digests(zoo.path / name) == before


def test_a_forced_build_publishes_a_second_version_with_the_same_weights(copied: Repository) -> None:
    before = digests(copied.path)
    lines: list[str] = []
    result = build(NAME, copied, force=True, progress=lines.append)
    assert (result.fresh, result.version) == (True, 2)
    assert lines
    assert copied.versions(NAME) == [1, 2]
    after = digests(copied.path)
    assert {name: after[name] for name in before} == before
    pixels = {"pixels__0": load_digits().test_pixels}
    first, second = (
        open_artifact(copied.version_folder(NAME, version) / "model.pt", "pytorch")(pixels, ["probabilities__0"])
        for version in (1, 2)
    )
    np.testing.assert_array_equal(first["probabilities__0"], second["probabilities__0"])


def an_older_recipe(repository: Repository, _patch: pytest.MonkeyPatch) -> None:
    folder = repository.version_folder(NAME)
    replace(Manifest.load(folder), recipe="of a script as it was before").save(folder)


def another_torch(_repository: Repository, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_registry, "package_version", lambda name: "0.0.1" if name == "torch" else package_version(name))


def a_damaged_file(repository: Repository, _patch: pytest.MonkeyPatch) -> None:
    (repository.version_folder(NAME) / "model.pt").write_bytes(b"half a file")


@pytest.mark.usefixtures("one_epoch")
@pytest.mark.parametrize("change", [an_older_recipe, another_torch, a_damaged_file])
def test_a_model_is_built_again_after(
    copied: Repository,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Repository, pytest.MonkeyPatch], None],
) -> None:
    change(copied, monkeypatch)
    result = build(NAME, copied, progress=ignored)
    assert (result.fresh, result.version) == (True, 2)
    again = build(NAME, copied, progress=unexpected)
    assert (again.fresh, again.version) == (False, 2)


@pytest.mark.usefixtures("one_epoch")
def test_a_model_is_built_into_an_empty_repository_as_version_1(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "new", create=True)
    assert built(NAME, repository) is None
    result = build(NAME, repository, progress=ignored)
    assert (result.fresh, result.version) == (True, 1)
    found = built(NAME, repository)
    assert found is not None
    assert (found.fresh, found.version, found.manifest) == (False, 1, result.manifest)


def test_a_model_whose_files_are_damaged_does_not_count_as_built(
    copied: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert built(NAME, copied) is not None
    a_damaged_file(copied, monkeypatch)
    assert built(NAME, copied) is None


@pytest.mark.parametrize(
    "ask",
    [
        lambda repository: build("digits_cnm", repository, progress=unexpected),
        lambda _: check_names(["digits_cnn", "digits_cnm"]),
    ],
    ids=["build", "check_names"],
)
def test_an_unknown_name_is_refused_with_those_there_are(tmp_path: Path, ask: Callable[[Repository], object]) -> None:
    with pytest.raises(InputError, match=r"'digits_cnm'.*digits_cnn, digits_mlp, digits_svm"):
        ask(Repository(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_missing_package_of_the_zoo_is_named_with_the_command_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tritium.exporters.zoo._registry._PACKAGES", ("no-such-package",))
    with pytest.raises(MissingExtraError, match=r"no-such-package.*pip install 'tritium\[zoo\]'"):
        build("digits_mlp", Repository(tmp_path), progress=print)
