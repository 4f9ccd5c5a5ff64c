"""`tritium publish`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

from tritium.repository import Manifest, Repository

Run = Callable[..., Result]
MODEL = "digits_mlp"


def test_version_is_published_in_another_repository(run: Run, zoo: Repository, tmp_path: Path) -> None:
    result = run("publish", zoo.version_folder(MODEL), "--repository", tmp_path / "models")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(f"{MODEL} version 1 in {tmp_path}/models/{MODEL}/1: probabilities__0: ")
    assert Repository(tmp_path / "models").versions(MODEL) == [1]


def test_what_was_published_is_one_document_as_json(run: Run, zoo: Repository, tmp_path: Path) -> None:
    result = run("publish", zoo.version_folder(MODEL), "--repository", tmp_path / "models", "--json")
    document = json.loads(result.stdout)
    folder = Repository(tmp_path / "models").version_folder(MODEL)
    assert (document["model"], document["version"], document["folder"]) == (MODEL, 1, str(folder))
    assert [difference["output"] for difference in document["differences"]] == ["probabilities__0"]
    assert Manifest.load(folder).recipe == Manifest.load(zoo.version_folder(MODEL)).recipe


def test_folder_that_is_no_version_is_wrong_usage(run: Run, zoo: Repository, tmp_path: Path) -> None:
    result = run("publish", zoo.path / MODEL, "--repository", tmp_path / "models")
    assert result.exit_code == 2
    assert "is no prepared version" in result.stderr
    assert not (tmp_path / "models").exists()


def test_version_that_was_changed_is_the_verdict_no(run: Run, tampered: Repository, tmp_path: Path) -> None:
    result = run("publish", tampered.version_folder(MODEL), "--repository", tmp_path / "models", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["kind"] == "GateError"
    assert Repository(tmp_path / "models").models() == []
