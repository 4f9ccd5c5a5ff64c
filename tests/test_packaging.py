"""One wheel holds every root of the namespace, and nothing that would hide them."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tritium.server._native import SOURCES

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("client", "repository", "exporters", "server", "loadtest", "cli")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("tritium-*.whl"))


def test_the_wheel_holds_every_root_and_no_module_that_hides_them(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "tritium/__init__.py" not in names
    for package in PACKAGES:
        assert f"tritium/{package}/__init__.py" in names
        assert f"tritium/{package}/py.typed" in names
    assert {name.split("/")[0] for name in names} == {
        "tritium",
        wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info",
    }


def test_the_wheel_is_pure_and_carries_the_backends(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.name.endswith("-py3-none-any.whl")
    for part in ("batching.py", "onnxruntime/model.py", "pytorch/model.py"):
        assert f"tritium/server/backends/{part}" in names
    sources = {path.name for path in SOURCES.iterdir() if path.suffix in (".cc", ".h")}
    assert {"backend.cc", "instance.cc", "triton_api.h"} <= sources
    assert {f"tritium/server/backends/onnxruntime/native/{name}" for name in sources} <= set(names)


def test_the_wheel_works_from_where_pip_puts_it(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)
    code = (
        f"import sys; sys.path.insert(0, {str(target)!r})\n"
        + "".join(f"import tritium.{package}\n" for package in PACKAGES)
        + "import tritium; print(list(tritium.__path__)[0], tritium.client.__file__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.split() == [str(target / "tritium"), str(target / "tritium/client/__init__.py")], done.stderr
