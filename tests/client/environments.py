"""Environments of their own for software that Tritium is tested with or measured beside and must not mix with."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from tritium.server._cache import locked_cache, made_aside


class InstallError(Exception):
    """An environment could not be made."""


def environment(name: str, requirements: Path) -> Path:
    """The Python of an environment that holds those packages and nothing else; it stays in the cache for the next time.

    Args:
        name: what the environment is for.
        requirements: every package with its exact version, dependencies included.

    Raises:
        InstallError: pip failed; nothing of the environment is left.
    """
    # Another Python, or other packages, are another environment.
    key = hashlib.sha256(f"{sys.base_prefix} {sys.version} {requirements.read_text()}".encode()).hexdigest()[:12]
    with locked_cache() as cache:
        folder = cache / "peers" / f"{name}-{key}"
        if not (folder / "bin/python").exists():
            shutil.rmtree(folder, ignore_errors=True)
            with made_aside(folder) as aside:
                _install(aside, requirements)
    return folder / "bin/python"


def _install(folder: Path, requirements: Path) -> None:
    venv.create(folder, symlinks=True)
    command = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python"), "install", "--quiet"]
    # The list is whole, so nothing need be resolved; and of what is installed little is ever imported and so compiled.
    command += ["--disable-pip-version-check", "--no-deps", "--no-compile", "--only-binary", ":all:"]
    done = subprocess.run([*command, "--requirement", str(requirements)], capture_output=True, text=True)
    if done.returncode:
        raise InstallError(f"pip cannot install {requirements}:\n{done.stderr or done.stdout}")
