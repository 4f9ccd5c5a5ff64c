"""What of the environment Triton gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tritium.server import _environment as environment
from tritium.server._system import libpython


def test_libraries_that_pip_brought_for_gpus_are_on_the_library_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wheels = [tmp_path / part for part in ("nvidia/cu13/lib", "nvidia/cudnn/lib", "tensorrt_libs")]
    for folder in (*wheels, tmp_path / "nvidia/cu13/include"):
        folder.mkdir(parents=True)
    monkeypatch.setattr(environment, "site_folders", lambda: [str(tmp_path)])
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/mine:/opt/other")
    first, python, *brought, mine, other = environment.library_path(Path("/triton")).split(":")
    assert (first, python) == ("/triton", str(libpython().parent))
    assert sorted(brought) == sorted(map(str, wheels))
    assert (mine, other) == ("/opt/mine", "/opt/other")
