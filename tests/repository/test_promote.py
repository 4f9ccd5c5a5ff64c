"""A version of one repository becomes the next version of another."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tritium.client import InputError
from tritium.repository import (
    Candidate,
    ConfigError,
    GateError,
    Manifest,
    ManifestError,
    Repository,
    add_warm_up,
    config_text,
    publish,
)
from tritium.repository._operations import VersionPolicy, retire, set_version_policy
from tritium.repository._promote import promote
from tritium.repository.lint import lint

MODEL = "plus_one"


@pytest.fixture
def staged(repository: Repository, candidate: Candidate, tmp_path: Path) -> Path:
    """A version with all that a version can have: labels, companions, a warm-up."""
    notes = tmp_path / "notes.txt"
    notes.write_text("one a line\n", encoding="utf-8")
    warm_up = add_warm_up(candidate.config, candidate.golden)
    return publish(repository, replace(candidate, files={"vocabulary.txt": notes}, warm_up=warm_up)).folder


@pytest.fixture
def target(tmp_path: Path) -> Repository:
    """Another repository."""
    return Repository(tmp_path / "production", create=True)


def test_promoted_version_is_as_it_was(staged: Path, target: Repository) -> None:
    published = promote(staged, target)
    assert (published.model, published.version) == (MODEL, 1)
    for path in sorted(staged.parent.rglob("*")):
        copy = target.path / MODEL / path.relative_to(staged.parent)
        if path.is_file():
            assert copy.read_bytes() == path.read_bytes(), path
    assert lint(target) == []


def test_promoted_version_keeps_its_provenance(staged: Path, target: Repository) -> None:
    before, after = Manifest.load(staged), Manifest.load(promote(staged, target).folder)
    assert after == before


def test_promoted_version_gets_the_next_number_of_the_target(
    staged: Path, target: Repository, candidate: Candidate
) -> None:
    publish(target, candidate)
    assert promote(staged, target).version == 2


def test_target_is_made_where_it_is_not_there(staged: Path, tmp_path: Path) -> None:
    assert promote(staged, tmp_path / "new" / "models").folder == tmp_path / "new/models" / MODEL / "1"


def test_version_that_is_served_by_its_number_there_is_the_latest_here(
    staged: Path, repository: Repository, target: Repository, candidate: Candidate
) -> None:
    publish(repository, candidate)
    set_version_policy(repository, MODEL, VersionPolicy(specific=[1]))
    promote(staged, target)
    assert str(VersionPolicy.of(target.config(MODEL))) == "latest 1"


def test_retired_version_can_be_promoted_once_it_is_restored_only(
    staged: Path, repository: Repository, target: Repository, candidate: Candidate
) -> None:
    publish(repository, candidate)
    with pytest.raises(InputError, match="is no prepared version"):
        promote(retire(repository, MODEL, 1), target)


@pytest.mark.parametrize("missing", ["manifest.json", "golden.npz", "../config.pbtxt"])
def test_folder_that_is_no_prepared_version_is_refused(missing: str, staged: Path, tmp_path: Path) -> None:
    (staged / missing).unlink()
    with pytest.raises(InputError, match=r"is no prepared version: there is no .*must be the folder of a version"):
        promote(staged, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_changed_version_is_refused(staged: Path, target: Repository) -> None:
    (staged / "vocabulary.txt").write_text("another", encoding="utf-8")
    with pytest.raises(ManifestError, match=r"vocabulary\.txt was changed"):
        promote(staged, target)
    assert target.models() == []


def test_version_of_another_model_is_refused(staged: Path, target: Repository) -> None:
    path = staged / "manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | {"model": "other"}), encoding="utf-8")
    with pytest.raises(ManifestError, match="is of the model 'other', not of 'plus_one'"):
        promote(staged, target)


@pytest.mark.parametrize("name", ["labels.txt", "warmup"])
def test_version_without_what_its_config_names_is_refused(name: str, staged: Path, target: Repository) -> None:
    shutil.move(staged.parent / name, staged.parents[2] / "elsewhere")
    with pytest.raises(ConfigError, match="of the config is not there"):
        promote(staged, target)
    assert target.models() == []


def test_label_file_outside_the_model_is_not_taken_along(
    staged: Path, repository: Repository, target: Repository
) -> None:
    config = repository.config(MODEL)
    config.output[0].label_filename = "../../secret"
    (staged.parent / "config.pbtxt").write_text(config_text(config), encoding="utf-8")
    with pytest.raises(ConfigError, match="must be the name of a file of its own"):
        promote(staged, target)


def test_version_that_does_not_answer_as_it_says_is_refused(
    staged: Path, target: Repository, frozen_onnx_file: Path
) -> None:
    shutil.copy(frozen_onnx_file, staged / "model.onnx")
    Manifest.load(staged).with_files(staged).save(staged)
    with pytest.raises(GateError):
        promote(staged, target)
    assert target.models() == []
