"""Lint as a whole: what it says of good repositories, what it takes, and what is written of it."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from tritium.client import InputError
from tritium.repository import Repository
from tritium.repository import lint as package
from tritium.repository.lint import RULES, Finding, Severity, lint
from tritium.repository.lint._onnx_file import Opener
from tritium.repository.lint._rules import rule
from tritium.repository.lint._subjects import ModelFolder

from .planting import config, file, gone, plus_one_onnx

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/lint.md").read_text(encoding="utf-8")


def test_nothing_is_found_in_a_good_repository(good: Path) -> None:
    assert lint(good) == []


def test_nothing_is_found_in_the_projects_own_repository(zoo: Repository) -> None:
    # Of a reference model that is not built there is the config alone.
    assert [finding for finding in lint(ROOT / "model_repository") if finding.code != "no-version"] == []
    assert lint(zoo) == []


def test_repository_may_be_given_as_one_or_as_a_path(good: Path) -> None:
    gone("bare/1")(good)
    assert lint(good) == lint(str(good)) == lint(Repository(good)) != []


@pytest.mark.parametrize("folder", ["bare", "bare/1"])
def test_backend_that_the_model_brings_is_no_finding(folder: str, good: Path) -> None:
    config(lambda found: setattr(found, "backend", "minimal"))(good)
    (finding,) = lint(good)
    assert (finding.code, finding.severity) == ("backend-unknown", Severity.WARNING)
    file(f"{folder}/libtriton_minimal.so", b"\x7fELF")(good)
    assert lint(good) == []


def test_finding_says_which_version_it_is_of(good: Path) -> None:
    for number in ("2", "3"):
        shutil.copytree(good / "bare/1", good / "bare" / number)
    file("bare/3/model.onnx", plus_one_onnx(x=["batch", 3], y=["batch", 3]))(good)
    assert {finding.code for finding in lint(good)} == {"tensor-shape-differs"}
    assert {finding.place for finding in lint(good)} == {good / "bare/3/model.onnx"}


def test_findings_come_by_place(good: Path) -> None:
    for model in ("script", "plus_one", "bare"):
        config(lambda found: setattr(found, "name", "other"), model)(good)
    assert [finding.place.parent.name for finding in lint(good)] == ["bare", "plus_one", "script"]


def test_finding_shows_everything(good: Path) -> None:
    config(lambda found: setattr(found, "name", "other"))(good)
    (finding,) = lint(good)
    assert isinstance(finding, Finding)
    assert str(finding) == (
        f"error name-differs: {good}/bare/config.pbtxt: the config says 'other' and the folder is 'bare'; "
        "call both alike, or leave the name out of the config"
    )


def test_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no model repository at"):
        lint(tmp_path / "absent")


def test_model_instead_of_a_repository_is_refused(good: Path) -> None:
    with pytest.raises(InputError, match=rf"bare is a model; lint its repository, {re.escape(str(good))}"):
        lint(good / "bare")


def test_disk_that_cannot_be_read_is_an_error_of_its_own(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Path) -> bytes:
        raise OSError(5, "Input/output error")

    file("bare/labels.txt", "a\nb\n")(good)
    config(lambda found: setattr(found.output[0], "label_filename", "labels.txt"))(good)
    monkeypatch.setattr(Path, "read_bytes", broken)
    found = {(finding.code, finding.severity) for finding in lint(good)}
    assert ("unreadable", Severity.ERROR) in found


def test_onnx_file_is_not_looked_into_without_onnx(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    found = lint(good)
    assert {finding.code for finding in found} == {"not-checked"}
    assert {finding.message for finding in found} == {"the package onnx is not here to look into it"}


def test_onnx_file_is_not_opened_without_onnx_runtime(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden/onnxruntime.py").write_text("raise ImportError", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hidden"))
    monkeypatch.setattr(package, "Opener", Opener)
    assert {finding.message for finding in lint(good)} == {"ONNX Runtime is not here to open it"}


def test_file_that_ends_the_process_that_opens_it_ends_nothing_else(good: Path) -> None:
    with Opener() as opener:
        assert opener.open(good / "bare/1/model.onnx").error == ""
        process = opener._process
        assert process is not None
        process.kill()
        process.wait()
        assert "came to an end" in opener.open(good / "bare/1/model.onnx").error
        assert opener.open(good / "bare/1/model.onnx").error == ""
    assert opener._process is None


def test_code_that_is_taken_is_refused() -> None:
    with pytest.raises(ValueError, match="'name-differs' must have a code and a docstring of its own"):
        rule(ModelFolder, "name-differs", Severity.NOTE)(lambda model: iter(()))


@pytest.mark.parametrize("code", RULES)
def test_code_is_documented_as_the_rule_says(code: str) -> None:
    found = RULES[code]
    about = found.about.replace("``", "`")
    assert f"| `{code}` | {found.severity} | {about} |" in PAGE


def test_page_has_no_other_codes() -> None:
    documented = re.findall(r"^\| `([a-z-]+)` \| (?:error|warning|note) \|", PAGE, re.MULTILINE)
    assert sorted(documented) == sorted({*RULES, "unreadable"})
