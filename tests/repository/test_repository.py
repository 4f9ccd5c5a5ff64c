"""What is in a repository on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tritium.client import InputError
from tritium.repository import Candidate, ConfigError, Repository, publish


@pytest.fixture
def filled(repository: Repository) -> Repository:
    """`digits` with the versions 1, 2 and 10, `empty` with none; and what is neither model nor version."""
    for version in ("1", "2", "10"):
        (repository.path / "digits" / version).mkdir(parents=True)
    (repository.path / "digits" / "config.pbtxt").write_text('name: "digits"', encoding="utf-8")
    (repository.path / "empty").mkdir()
    (repository.path / ".staging" / "1").mkdir(parents=True)
    (repository.path / "README").touch()
    return repository


def test_models_are_the_folders_with_versions(filled: Repository) -> None:
    assert filled.models() == ["digits"]


def test_versions_are_numbers_in_order(filled: Repository) -> None:
    assert filled.versions("digits") == [1, 2, 10]


# Triton passes over some of these and stumbles over others; lint finds those.
@pytest.mark.parametrize("name", ["0", "01", "-1", "1.0", "v1", "latest", ".1", "²", "٣"])
def test_folder_that_is_no_version_is_passed_over(name: str, filled: Repository) -> None:
    (filled.path / "digits" / name).mkdir()
    assert filled.versions("digits") == [1, 2, 10]


def test_file_that_is_called_like_a_version_is_passed_over(filled: Repository) -> None:
    (filled.path / "digits" / "3").touch()
    assert filled.versions("digits") == [1, 2, 10]


@pytest.mark.parametrize("model", ["empty", "absent"])
def test_model_without_versions_has_none(model: str, filled: Repository) -> None:
    assert filled.versions(model) == []


def test_latest_version_is_the_highest_number(filled: Repository) -> None:
    assert filled.version_folder("digits") == filled.path / "digits" / "10"


@pytest.mark.parametrize("version", [2, "2"])
def test_version_is_found_by_number_or_text(version: str | int, filled: Repository) -> None:
    assert filled.version_folder("digits", version) == filled.path / "digits" / "2"


def test_unknown_version_is_refused_with_those_there_are(filled: Repository) -> None:
    with pytest.raises(InputError, match=r"There is no version 3 of 'digits' in .*; it has 1, 2, 10$"):
        filled.version_folder("digits", 3)


def test_unknown_version_of_a_known_model_suggests_no_other_model(filled: Repository) -> None:
    (filled.path / "digits_cnn" / "3").mkdir(parents=True)
    with pytest.raises(InputError, match=r"it has 1, 2, 10$"):
        filled.version_folder("digits", 3)


def test_version_of_an_unknown_model_is_refused_with_the_closest(filled: Repository) -> None:
    with pytest.raises(InputError, match=r"'digit' .*Did you mean 'digits'\?"):
        filled.version_folder("digit", 1)


@pytest.mark.parametrize("model", ["empty", "digit"])
def test_latest_version_where_there_is_none_is_refused_in_plain_words(model: str, filled: Repository) -> None:
    with pytest.raises(InputError) as caught:
        filled.version_folder(model)
    assert "None" not in str(caught.value)


def test_unknown_model_is_refused_with_the_closest(filled: Repository) -> None:
    with pytest.raises(InputError, match=r"There is no model 'digit' in .*Did you mean 'digits'\?"):
        filled.config("digit")


def test_model_without_config_is_an_error(filled: Repository) -> None:
    with pytest.raises(ConfigError, match=r"empty/config\.pbtxt cannot be read"):
        filled.config("empty")


@pytest.mark.parametrize("model", ["..", ".staging", "a/b", ""])
def test_name_that_is_no_name_is_refused(model: str, filled: Repository) -> None:
    with pytest.raises(InputError, match="A model's name must be"):
        filled.version_folder(model)


def test_config_of_a_published_model_is_complete(repository: Repository, candidate: Candidate) -> None:
    publish(repository, candidate)
    assert repository.has_complete_config("plus_one")


@pytest.mark.parametrize(
    "text", ['name: "digits"', 'backend: "onnxruntime"', "nonsense", None], ids=["name", "backend", "broken", "missing"]
)
def test_config_that_leaves_things_out_is_not_complete(text: str | None, filled: Repository) -> None:
    path = filled.path / "digits" / "config.pbtxt"
    path.unlink()
    if text is not None:
        path.write_text(text, encoding="utf-8")
    assert not filled.has_complete_config("digits")


# the folder itself


def test_repository_is_made_where_that_is_asked_for(tmp_path: Path) -> None:
    assert Repository(tmp_path / "a" / "b", create=True).models() == []


def test_repository_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no model repository at .*/absent"):
        Repository(tmp_path / "absent")


@pytest.mark.parametrize("path", ["file", "file/below"])
def test_repository_that_cannot_be_made_is_refused(path: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"The repository .* cannot be made"):
        Repository(tmp_path / path, create=True)


def test_path_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    repository = Repository("models")
    monkeypatch.chdir("/")
    assert repository.models() == []


def test_repository_shows_its_path(repository: Repository) -> None:
    assert repr(repository) == f"Repository({str(repository.path)!r})"
