"""Environments of their own: made once, and whole or not at all."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .environments import InstallError, environment


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that nobody else has."""
    monkeypatch.setenv("TRITIUM_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_environment_is_made_once_and_sees_none_of_our_packages(cache: Path, tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# nothing\n")
    python = environment("bare", requirements)
    found = subprocess.run([python, "-c", "import numpy"], capture_output=True, text=True)
    assert "No module named 'numpy'" in found.stderr
    made = python.parent.stat().st_mtime_ns
    assert (environment("bare", requirements), python.parent.stat().st_mtime_ns) == (python, made)
    assert python.is_relative_to(cache)


def test_environment_without_its_python_is_made_anew(cache: Path, tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# nothing\n")
    python = environment("bare", requirements)
    python.unlink()
    assert environment("bare", requirements) == python
    assert python.exists()


def test_install_that_fails_says_why_and_leaves_nothing(cache: Path, tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"{tmp_path}/absent-1.0-py3-none-any.whl\n")
    with pytest.raises(InstallError, match=r"absent-1\.0-py3-none-any\.whl"):
        environment("broken", requirements)
    assert list((cache / "peers").iterdir()) == []
