"""Installing, showing and removing the runtime. Every test has a cache of its own."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tritium.client import InputError
from tritium.server import RuntimeInstallError, install_runtime, installed_runtime, remove_runtime, runtime_info
from tritium.server._backends import backend_directory
from tritium.server._stub_env import stub_environment, stub_numpy


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, with a space in its path."""
    folder = tmp_path / "the cache"
    monkeypatch.setenv("TRITIUM_CACHE_DIR", str(folder))
    return folder


def tree(folder: Path) -> set[str]:
    """The files of a cache, the lock excepted."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != "lock"}


def test_installed_from_a_folder_the_runtime_runs_and_is_found_again(cache: Path, wheels: Path) -> None:
    runtime = install_runtime(source=wheels)
    assert installed_runtime() == runtime
    assert os.access(runtime.binary, os.X_OK)
    assert os.access(runtime.stub, os.X_OK)
    env = {"LD_LIBRARY_PATH": str(runtime.libraries)}
    shown = subprocess.run([runtime.binary, "--help"], env=env, capture_output=True, text=True)
    assert "--model-repository" in shown.stdout + shown.stderr


def test_installing_again_fetches_nothing(cache: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = install_runtime(source=wheels)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert install_runtime() == first


def test_info_names_versions_hashes_and_size(cache: Path, wheels: Path) -> None:
    assert runtime_info()["installed"] is False
    runtime = install_runtime(source=wheels)
    info = runtime_info()
    assert info["installed"] is True
    assert info["path"] == str(runtime.root)
    assert info["triton_version"] == "2.51.0"
    assert info["cache_bytes"] > 100_000_000
    assert info["backends"] == {"onnxruntime": "python", "pytorch": "python"}
    assert info["native"]["library"] is info["native"]["compiler"] is None
    assert "not compiled yet" in info["native"]["reason"]
    for wheel in info["wheels"]:
        file = next(wheels.glob(f"{wheel['project'].replace('-', '_')}-{wheel['version']}-*.whl"))
        assert hashlib.sha256(file.read_bytes()).hexdigest() == wheel["sha256"]
        assert file.stat().st_size == wheel["size_bytes"]


def test_removing_leaves_an_empty_cache(cache: Path, wheels: Path) -> None:
    stub_environment(install_runtime(source=wheels))
    assert remove_runtime() > 100_000_000
    assert tree(cache) == set()
    assert installed_runtime() is None
    assert remove_runtime() == 0


def test_without_a_network_the_error_says_how_to_do_without(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(cache))
    with pytest.raises(
        RuntimeInstallError, match=r"(?s)could not fetch nvidia-pytriton.*runtime install --from FOLDER"
    ):
        install_runtime()
    assert tree(cache) == set()


@pytest.mark.parametrize("project", ["nvidia_pytriton", "numpy"])
@pytest.mark.parametrize("damage", ["truncated", "changed", "missing"])
def test_a_damaged_wheel_is_refused_and_leaves_nothing(
    cache: Path, wheels: Path, tmp_path: Path, project: str, damage: str
) -> None:
    source = tmp_path / "wheels"
    source.mkdir()
    for wheel in wheels.glob("*.whl"):
        (source / wheel.name).hardlink_to(wheel)
    victim = next(source.glob(f"{project}-*.whl"))
    content = victim.read_bytes()
    victim.unlink()
    if damage == "truncated":
        victim.write_bytes(content[:1000])
    elif damage == "changed":
        victim.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    expected = "There is no" if damage == "missing" else "checksum of .* does not hold"
    with pytest.raises(RuntimeInstallError, match=expected):
        install_runtime(source=source)
    assert tree(cache) == set()


def test_a_full_disk_leaves_nothing(cache: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zipfile.ZipFile.extractall", full)
    with pytest.raises(RuntimeInstallError, match=r"No space left.*TRITIUM_CACHE_DIR"):
        install_runtime(source=wheels)
    assert tree(cache) == set()


def test_a_cache_that_is_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    monkeypatch.setenv("TRITIUM_CACHE_DIR", str(file / "cache"))
    with pytest.raises(RuntimeInstallError, match="cannot be used"):
        install_runtime()
    assert file.read_text() == "mine"


def test_two_installers_at_once_share_one_result(cache: Path, wheels: Path) -> None:
    code = (
        "from pathlib import Path; from tritium.server import install_runtime; "
        f"print(install_runtime(source=Path({str(wheels)!r})).root)"
    )
    command = [sys.executable, "-c", code]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    roots = {process.communicate(timeout=100)[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(roots) == 1
    assert len(list((cache / "runtime").iterdir())) == 1


def test_what_a_killed_installer_left_is_removed(cache: Path, wheels: Path) -> None:
    for stale in (cache / ".download-x", cache / "runtime" / ".2.51.0-x"):
        stale.mkdir(parents=True)
        (stale / "half").write_text("x")
    install_runtime(source=wheels)
    assert not [name for name in tree(cache) if "/." in f"/{name}" and "half" in name]


def test_the_stub_has_its_own_numpy_and_the_users_packages(cache: Path, wheels: Path) -> None:
    import numpy

    environment = stub_environment(install_runtime(source=wheels))
    version, place = stub_numpy(environment)
    assert version == "1.26.4"
    assert Path(place).is_relative_to(environment)
    assert numpy.__version__.startswith("2.")
    code = "import onnxruntime, tritium.client; print(onnxruntime.__file__)"
    # The editable install of this project and the user's packages are seen behind that numpy.
    done = subprocess.run([environment / "bin/python3", "-E", "-c", code], capture_output=True, text=True, cwd="/")
    assert Path(done.stdout.strip()).is_relative_to(sys.prefix), done.stderr


def test_the_backend_directory_is_made_once_and_holds_copies_only(cache: Path, wheels: Path) -> None:
    runtime = install_runtime(source=wheels)
    folder = backend_directory(runtime)
    assert backend_directory(runtime) == folder
    assert {path.name for path in folder.iterdir()} == {"python", "onnxruntime", "pytorch"}
    assert not [path for path in folder.rglob("*") if path.is_symlink()]
    shutil.rmtree(folder)
    assert backend_directory(runtime).is_dir()


def test_a_native_library_lies_beside_the_python_based_backend(cache: Path, wheels: Path, tmp_path: Path) -> None:
    runtime = install_runtime(source=wheels)
    library = tmp_path / "libtriton_onnxruntime.so"
    library.write_bytes(b"one")
    first = backend_directory(runtime, library)
    assert (first / "onnxruntime" / library.name).read_bytes() == b"one"
    assert (first / "onnxruntime/model.py").is_file()
    library.write_bytes(b"another")
    second = backend_directory(runtime, library)
    assert (second / "onnxruntime" / library.name).read_bytes() == b"another"
    assert not (backend_directory(runtime) / "onnxruntime" / library.name).exists()


@pytest.mark.parametrize("problem", ["no home", "a home that cannot be read"])
def test_a_user_without_a_usable_home_is_told_which_variable_helps(
    monkeypatch: pytest.MonkeyPatch, problem: str
) -> None:
    for name in ("TRITIUM_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def fail(*_: object) -> None:
        raise RuntimeError("no home") if problem == "no home" else PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "expanduser" if problem == "no home" else "is_dir", fail)
    if problem != "no home":
        monkeypatch.setattr(Path, "glob", lambda *_: iter([Path("numpy.whl")]))
    expected = InputError if problem == "no home" else RuntimeInstallError
    with pytest.raises(expected, match="TRITIUM_CACHE_DIR"):
        installed_runtime()
