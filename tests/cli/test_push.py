"""`tritium push`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tritium.repository import Repository, S3Repository

Run = Callable[..., Result]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Two models that nobody published."""
    for name in ("first", "second"):
        (tmp_path / "models" / name / "1").mkdir(parents=True)
        (tmp_path / "models" / name / "1" / "model.py").write_text(f"# {name}\n")
        (tmp_path / "models" / name / "config.pbtxt").write_text('backend: "python"\n')
    return Repository(tmp_path / "models")


def test_models_are_pushed_with_progress_for_people(
    run: Run, repository: Repository, s3_url: str, tmp_path: Path
) -> None:
    result = run("push", s3_url, "--repository", repository.path)
    assert result.exit_code == 0, result.stderr
    assert result.stderr.splitlines()[0] == f"{s3_url}/first/1/model.py (0.0 kB)"
    assert result.stdout.splitlines() == [
        f"{name} version 1 in {s3_url}/{name}: 2 objects sent (0.0 kB), 0 were there" for name in ("first", "second")
    ]
    assert S3Repository(s3_url).pull(tmp_path / "mirror") == ["first", "second"]


def test_what_was_pushed_is_one_document_as_json(run: Run, repository: Repository, s3_url: str) -> None:
    run("push", s3_url, "--repository", repository.path, "--model", "second")
    result = run("push", s3_url, "--repository", repository.path, "--json")
    document = json.loads(result.stdout)
    assert document["url"] == s3_url
    assert [(model["model"], model["versions"], model["sent"], model["kept"]) for model in document["models"]] == [
        ("first", [1], ["first/1/model.py", "first/config.pbtxt"], 0),
        ("second", [1], [], 2),
    ]


def test_another_version_there_is_the_verdict_no(run: Run, repository: Repository, s3_url: str) -> None:
    run("push", s3_url, "--repository", repository.path)
    (repository.path / "first" / "1" / "model.py").write_text("# other\n")
    result = run("push", s3_url, "--repository", repository.path, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["kind"] == "StoreError"
    assert "model.py has other content" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["models"], "must be s3://bucket/prefix"), (["{url}", "--model", "frist"], "Did you mean 'first'")],
    ids=["no URL", "no model"],
)
def test_what_cannot_be_pushed_is_wrong_usage(
    run: Run, repository: Repository, s3_url: str, arguments: list[str], message: str
) -> None:
    result = run("push", *(text.format(url=s3_url) for text in arguments), "--repository", repository.path)
    assert result.exit_code == 2
    assert message in result.stderr
