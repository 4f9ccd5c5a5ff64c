"""`tritium lint`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tritium.repository import Repository

Run = Callable[..., Result]


@pytest.fixture
def copy(zoo: Repository, tmp_path: Path) -> Path:
    """A repository with one model of the project's own."""
    models = tmp_path / "models"
    shutil.copytree(zoo.path / "digits_mlp", models / "digits_mlp")
    (models / "digits_mlp" / zoo.version_folder("digits_mlp").name).rename(models / "digits_mlp/1")
    return models


def test_good_repository_is_the_verdict_yes(run: Run, copy: Path) -> None:
    result = run("lint", copy)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"{copy}: nothing is wrong\n"


def test_good_repository_is_the_verdict_yes_as_json(run: Run, copy: Path) -> None:
    result = run("lint", copy, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"ok": True, "repository": str(copy), "findings": []}


def test_people_get_each_finding_with_its_fix(run: Run, copy: Path) -> None:
    (copy / "digits_mlp/1/notes.txt").touch()
    result = run("lint", copy)
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"error file-unnamed: {copy}/digits_mlp/1/notes.txt: the manifest does not name it",
        "    → remove it, or publish a version that has it",
    ]
    assert result.stderr == f"{copy}: 1 error\n"


def test_json_has_each_finding_whole(run: Run, copy: Path) -> None:
    (copy / "digits_mlp/1/notes.txt").touch()
    result = run("lint", copy, "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["ok"] is False
    assert document["findings"] == [
        {
            "code": "file-unnamed",
            "severity": "error",
            "place": f"{copy}/digits_mlp/1/notes.txt",
            "message": "the manifest does not name it",
            "fix": "remove it, or publish a version that has it",
        }
    ]


def test_warning_alone_is_the_verdict_no(run: Run, copy: Path) -> None:
    (copy / "digits_mlp/2").touch()
    result = run("lint", copy)
    assert result.exit_code == 1
    assert result.stdout.startswith("warning version-file: ")


def test_note_alone_is_the_verdict_yes(run: Run, tmp_path: Path) -> None:
    result = run("lint", tmp_path)
    assert result.exit_code == 0
    assert result.stdout.startswith("note repository-empty: ")
    assert result.stderr == f"{tmp_path}: 1 note\n"


@pytest.mark.parametrize("folder", ["absent", "models/digits_mlp"])
def test_what_is_no_repository_is_wrong_usage(folder: str, run: Run, copy: Path) -> None:
    result = run("lint", copy.parent / folder)
    assert result.exit_code == 2
    assert "Error: " in result.stderr


def test_what_is_no_repository_is_wrong_usage_as_json(run: Run, tmp_path: Path) -> None:
    result = run("lint", tmp_path / "absent", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["kind"] == "InputError"
