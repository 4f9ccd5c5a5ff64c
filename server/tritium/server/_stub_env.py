"""A tiny Python environment for the backend processes: an old numpy in front of the user's own packages."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

from ._cache import locked_cache, made_aside
from ._errors import RuntimeInstallError
from ._runtime import Runtime, content_key
from ._system import site_folders


def stub_environment(runtime: Runtime) -> Path:
    """The environment that belongs to the running one; made at the first use. Its `bin` goes first on Triton's PATH.

    Raises:
        RuntimeInstallError: it cannot be made, or the numpy that a backend process would import is not the right one.
    """
    folders = site_folders()
    with locked_cache() as cache:
        target = cache / "stubs" / content_key(runtime.numpy_wheel.name, sys.base_prefix, sys.version, *folders)
        if not target.is_dir():
            with made_aside(target) as aside:
                _make(aside, runtime.numpy_wheel, folders)
    return target


def stub_numpy(environment: Path) -> tuple[str, str]:
    """The version and the place of the numpy that a backend process imports.

    Raises:
        RuntimeInstallError: it imports none.
    """
    code = "import json, numpy; print(json.dumps([numpy.__version__, numpy.__file__]))"
    # Triton's stub starts Python without these, so the answer must not depend on them.
    done = subprocess.run([environment / "bin/python3", "-E", "-c", code], capture_output=True, text=True, cwd="/")
    if done.returncode:
        raise RuntimeInstallError(f"The backend environment {environment} imports no numpy:\n{done.stderr.strip()}")
    version, place = json.loads(done.stdout)
    return str(version), str(place)


def _make(folder: Path, numpy_wheel: Path, folders: list[str]) -> None:
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    packages = folder / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    with zipfile.ZipFile(numpy_wheel) as archive:
        archive.extractall(packages)
    # addsitedir, not bare paths: it also reads the .pth files there, which editable installs live by.
    lines = [f"import site; site.addsitedir({folder!r})" for folder in folders]
    (packages / "user_packages.pth").write_text("\n".join(lines) + "\n")
