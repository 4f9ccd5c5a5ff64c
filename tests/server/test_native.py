"""Compiling the native backend and choosing between it and the Python-based one.

Every test has a cache of its own, and a source of a few lines in the place of the real ones.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from tritium.client import InputError
from tritium.server import (
    NativeBackendError,
    StartError,
    TritonServer,
    install_native_backend,
    install_runtime,
    remove_runtime,
    runtime_info,
)
from tritium.server import _native as native
from tritium.server._backends import backend_directory

from .conftest import DOUBLER_CONFIG, doubler

# It says yes to every model and releases every request; that it links against Triton shows only when it is called.
TINY = """
#include "tiny.h"
#include <string>
extern "C" void* TRITONBACKEND_RequestRelease(void*, uint32_t);
extern "C" __attribute__((visibility("default"))) void* TRITONBACKEND_ModelInstanceExecute(
    void*, void** requests, const uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) TRITONBACKEND_RequestRelease(requests[i], 1);
  return std::to_string(count).empty() ? requests : nullptr;
}
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; and no `$CXX`."""
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("TRITIUM_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sources in the place of the real ones."""
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "tiny.cc").write_text(TINY)
    (folder / "tiny.h").write_text("#include <cstdint>\n")
    monkeypatch.setattr(native, "SOURCES", folder)
    return folder


@pytest.fixture
def no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PATH that has no compiler, only the shell by which Triton starts a backend process."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/bash").symlink_to(str(shutil.which("bash")))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pip that finds nothing."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Callable[[], int]]:
    """Makes `$CXX` a compiler that counts its calls; it works, or it fails."""

    def make(*, works: bool) -> Callable[[], int]:
        calls = tmp_path / "calls"
        script = tmp_path / "my c++"
        then = f'exec {shutil.which("c++")} "$@"' if works else "echo >&2 it is broken; exit 1"
        script.write_text(
            f'#!/bin/sh\ncase "$*" in *--version) echo mine; exit;; esac\necho called >> "{calls}"\n{then}\n'
        )
        script.chmod(0o755)
        monkeypatch.setenv("CXX", f"'{script}' -DANY=1")
        return lambda: len(calls.read_text().splitlines()) if calls.exists() else 0

    return make


@pytest.fixture(scope="session")
def zig_wheel(request: pytest.FixtureRequest) -> Path:
    """A folder with zig's wheel, as somebody without a network would bring it along."""
    store: pytest.Cache = request.config.cache
    target = Path(store.mkdir("zig-wheel"))
    wheel = native.needed_zig()
    if not list(target.glob(wheel.pattern)):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--dest", str(target), f"{wheel.project}=={wheel.version}"]
        subprocess.run(command, check=True, capture_output=True)
    return target


def files(cache: Path) -> set[str]:
    """The names of what was built, and of all that lies about besides."""
    return {path.name for path in cache.rglob("*") if path.is_file() and path.name != "lock"}


BUILT = {native.LIBRARY, "build.json"}


class TestBuilding:
    def test_the_systems_compiler_builds_it_once(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        lines: list[str] = []
        first = install_native_backend(progress=lines.append)
        assert (first.kind, first.reason) == ("native", None)
        assert first.library is not None
        assert first.compiler is not None
        assert first.compiler in lines[0], "it says what it compiles with"
        assert files(cache) == BUILT
        record = json.loads((first.library.parent / "build.json").read_text())
        assert record["compiler"] == first.compiler
        assert 0 <= record["seconds"] < 100
        monkeypatch.setenv("CXX", "/nonexistent")
        assert install_native_backend() == native.native_backend() == first

    def test_other_sources_are_another_library_and_the_old_one_stays(self, cache: Path, sources: Path) -> None:
        first = install_native_backend()
        (sources / "tiny.h").write_text("#include <cstdint>\n#define ANY 1\n")
        assert "not compiled yet" in (native.native_backend().reason or "")
        second = install_native_backend()
        assert first.library != second.library
        assert first.library is not None
        assert first.library.is_file(), "another environment may have another Tritium"

    def test_cxx_goes_first_with_its_arguments(self, compiler: Callable[..., Callable[[], int]], sources: Path) -> None:
        calls = compiler(works=True)
        (sources / "tiny.h").write_text("#include <cstdint>\n#ifndef ANY\n#error ANY is missing\n#endif\n")
        assert install_native_backend().kind == "native"
        assert calls() == 1

    @pytest.mark.parametrize(
        ("cxx", "words"),
        [("/nonexistent/c++", "/nonexistent/c++ failed: No such file"), ("'", "CXX cannot be read: No closing")],
    )
    @pytest.mark.usefixtures("no_network")
    def test_a_cxx_that_is_none_is_named(self, monkeypatch: pytest.MonkeyPatch, cxx: str, words: str) -> None:
        monkeypatch.setenv("CXX", cxx)
        assert words in (install_native_backend().reason or "")

    @pytest.mark.usefixtures("no_network")
    def test_broken_sources_are_explained_in_the_compilers_words_and_leave_nothing(
        self, cache: Path, sources: Path
    ) -> None:
        (sources / "tiny.cc").write_text(TINY.replace("RequestRelease(requests", "RequestReleese(requests"))
        lines: list[str] = []
        found = install_native_backend(progress=lines.append)
        assert (found.kind, found.library) == ("python", None)
        assert found.reason is not None
        head, *details = found.reason.splitlines()
        assert " failed; pip could not fetch ziglang" in head
        assert any("tiny.cc:" in line and "TRITONBACKEND_RequestReleese" in line for line in details)
        assert found.reason in lines[-1]
        assert files(cache) == {"build.json"}

    @pytest.mark.usefixtures("no_network")
    def test_a_library_that_triton_could_not_use_is_refused(self, cache: Path, sources: Path) -> None:
        (sources / "tiny.cc").write_text(TINY.replace("ModelInstanceExecute", "ModelInstanceExec"))
        reason = install_native_backend().reason or ""
        assert "does not open" in reason
        assert "undefined symbol: TRITONBACKEND_ModelInstanceExecute" in reason
        assert files(cache) == {"build.json"}

    def test_a_failure_is_tried_again_only_when_asked(
        self, cache: Path, compiler: Callable[..., Callable[[], int]], no_network: None
    ) -> None:
        calls = compiler(works=False)
        assert "it is broken" in (native.choose_onnx_backend("auto").reason or "")
        assert calls() == 1
        assert "it is broken" in (native.choose_onnx_backend("auto").reason or "")
        assert calls() == 1, "a later start does not wait for the same failure"
        install_native_backend()
        assert calls() == 2
        with pytest.raises(NativeBackendError, match=r"(?s)it is broken.*apt-get install g"):
            native.choose_onnx_backend("native")
        assert calls() == 3
        compiler(works=True)
        assert native.choose_onnx_backend("auto").kind == "python"
        assert native.choose_onnx_backend("native").kind == "native"
        assert native.choose_onnx_backend("auto").kind == "native"
        assert files(cache) == BUILT

    def test_two_installers_at_once_build_once(
        self, cache: Path, sources: Path, compiler: Callable[..., Callable[[], int]]
    ) -> None:
        calls = compiler(works=True)
        code = (
            "from pathlib import Path; from tritium.server import _native, install_native_backend\n"
            f"_native.SOURCES = Path({str(sources)!r})\n"
            "print(install_native_backend().library)"
        )
        running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
        libraries = {process.communicate(timeout=100)[0] for process in running}
        assert [process.returncode for process in running] == [0, 0, 0]
        assert len(libraries) == 1
        assert calls() == 1
        assert files(cache) == BUILT

    @pytest.mark.parametrize("victim", [native.LIBRARY, "build.json"])
    def test_what_somebody_removed_or_changed_is_built_again(self, victim: str) -> None:
        library = install_native_backend().library
        assert library is not None
        if victim == native.LIBRARY:
            library.unlink()
        else:
            library.with_name(victim).write_text("{}")
        assert native.native_backend().kind == "python"
        assert install_native_backend().library == library
        assert library.is_file()

    def test_removing_the_runtime_removes_it(self, cache: Path) -> None:
        install_native_backend()
        assert remove_runtime() > 0
        assert files(cache) == set()


REAL_SOURCES = native.SOURCES


@pytest.mark.usefixtures("no_compiler")
class TestZig:
    # Zig builds its C++ library first, each time: one build is enough for all that is said of it.
    @pytest.mark.skipif(
        "TRITIUM_SLOW_TESTS" not in os.environ, reason="a minute and a half: TRITIUM_SLOW_TESTS=1 runs it"
    )
    @pytest.mark.timeout(600)
    def test_without_a_compiler_zig_builds_the_real_sources_which_serve_and_nothing_of_zig_stays(
        self,
        cache: Path,
        zig_wheel: Path,
        wheels: Path,
        tmp_path: Path,
        no_network: None,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(native, "SOURCES", REAL_SOURCES)
        lines: list[str] = []
        found = install_native_backend(source=zig_wheel, progress=lines.append)
        assert (found.reason, found.compiler) == (None, f"zig {native.needed_zig().version}")
        assert any("zig" in line for line in lines)
        assert files(cache) == BUILT
        assert {path.name for path in cache.iterdir()} == {"lock", "native"}
        install_runtime(source=wheels)
        (tmp_path / "models/doubler/1").mkdir(parents=True)
        (tmp_path / "models/doubler/1/model.onnx").write_bytes(doubler())
        (tmp_path / "models/doubler/config.pbtxt").write_text(DOUBLER_CONFIG)
        with TritonServer(tmp_path / "models", onnx_backend="native") as server, server.client() as client:
            assert client.model("doubler")([[1.0, 2.0]]).tolist() == [[2.0, 4.0]]

    @pytest.mark.usefixtures("no_network")
    def test_a_wheel_that_is_missing_is_named(self, tmp_path: Path) -> None:
        reason = install_native_backend(source=tmp_path).reason or ""
        assert reason.startswith("there is no C++ compiler ($CXX, c++, g++, clang++); There is no ziglang-")
        assert f"pip download --no-deps ziglang=={native.needed_zig().version}" in reason

    def test_a_damaged_wheel_is_refused(self, cache: Path, zig_wheel: Path, tmp_path: Path) -> None:
        name = next(zig_wheel.glob(native.needed_zig().pattern)).name
        (tmp_path / name).write_bytes(b"half of it")
        assert "checksum of ziglang" in (install_native_backend(source=tmp_path).reason or "")
        assert files(cache) == {"build.json"}

    @pytest.mark.usefixtures("no_network")
    def test_a_full_disk_leaves_the_python_based_backend(
        self, cache: Path, zig_wheel: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("zipfile.ZipFile.extractall", full)
        assert "No space left on device" in (install_native_backend(source=zig_wheel).reason or "")
        assert files(cache) == {"build.json"}


class TestOnnxRuntime:
    def test_its_library_is_found_without_importing_it(self) -> None:
        code = "import sys; from tritium.server._native import ort_library; print(ort_library(), *sys.modules)"
        shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        assert Path(shown[0]).is_file()
        assert "onnxruntime" not in shown

    def test_the_newest_is_taken(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tmp_path / "site/onnxruntime/capi"
        folder.mkdir(parents=True)
        (folder.parent / "__init__.py").touch()
        for version in ("1.9.0", "1.31.0", "1.30.2"):
            (folder / f"libonnxruntime.so.{version}").touch()
        (folder / "libonnxruntime.so.1").symlink_to("libonnxruntime.so.1.9.0")
        monkeypatch.syspath_prepend(tmp_path / "site")
        monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)  # what is imported already would be found first
        assert native.ort_library() == folder / "libonnxruntime.so.1.31.0"

    def test_one_that_is_too_old_is_the_reason_for_the_python_based_backend(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(native, "ort_library", lambda: tmp_path / "libonnxruntime.so.1.14.1")
        found = native.choose_onnx_backend("auto")
        assert (found.kind, found.reason) == ("python", "libonnxruntime.so.1.14.1 is older than 1.15")

    def test_without_it_nothing_is_compiled_and_the_reason_names_the_package(
        self, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(native, "find_spec", lambda _: None)
        found = native.choose_onnx_backend("auto")
        assert found.reason == "this environment has no libonnxruntime.so.1"
        assert files(cache) == set()
        with pytest.raises(NativeBackendError, match=r"pip install .* onnxruntime-gpu"):
            native.choose_onnx_backend("native")


class TestServing:
    @pytest.fixture(autouse=True)
    def runtime(self, wheels: Path) -> None:
        install_runtime(source=wheels)

    @pytest.fixture
    def repository(self, tmp_path: Path) -> Path:
        version = tmp_path / "models" / "doubler" / "1"
        version.mkdir(parents=True)
        (version / "model.onnx").write_bytes(doubler())
        (version.parent / "config.pbtxt").write_text(DOUBLER_CONFIG)
        return tmp_path / "models"

    def test_triton_is_given_the_library_and_where_onnx_runtime_lies(self, repository: Path) -> None:
        with TritonServer(repository) as server:
            assert (server.onnx_backend, server.onnx_backend_reason) == ("native", None)
            command = psutil.Process(server.pid).cmdline()
            assert psutil.Process(server.pid).children() == [], "no backend process"
        settings = [part for part in command if part.startswith("--backend-config=")]
        assert f"--backend-config=onnxruntime,ort-library={native.ort_library()}" in settings
        assert [setting for setting in settings if "shm-region" in setting and "onnxruntime" in setting] == []
        (folder,) = (part.partition("=")[2] for part in command if part.startswith("--backend-directory="))
        assert (Path(folder) / "onnxruntime" / native.LIBRARY).is_file()

    def test_python_takes_the_python_based_one_and_compiles_nothing(self, cache: Path, repository: Path) -> None:
        with TritonServer(repository, onnx_backend="python") as server, server.client() as client:
            assert (server.onnx_backend, server.onnx_backend_reason) == ("python", "asked for")
            np.testing.assert_array_equal(client.model("doubler")([1.0, 2.0]), [2.0, 4.0])
        assert not (cache / "native").exists()
        assert native.LIBRARY not in files(cache)

    @pytest.mark.usefixtures("no_compiler", "no_network")
    def test_without_a_compiler_and_a_network_it_serves_and_says_why(self, cache: Path, repository: Path) -> None:
        lines: list[str] = []
        with TritonServer(repository, progress=lines.append) as server, server.client() as client:
            assert server.onnx_backend == "python"
            assert "there is no C++ compiler" in (server.onnx_backend_reason or "")
            np.testing.assert_array_equal(client.model("doubler")([1.0, 2.0]), [2.0, 4.0])
        assert any("Python-based backend will run ONNX models: there is no C++" in line for line in lines)
        info = runtime_info()
        assert info["backends"]["onnxruntime"] == "python"
        assert info["native"]["library"] is info["native"]["compiler"] is None
        assert "could not fetch ziglang" in info["native"]["reason"]
        with pytest.raises(NativeBackendError, match=r"(?s)there is no C.. compiler.*'python'"):
            TritonServer(repository, onnx_backend="native").start()

    def test_a_library_is_left_out_where_there_is_no_onnx_runtime(
        self, repository: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Triton would take it."""
        library = install_native_backend().library
        assert library is not None
        runtime = install_runtime()
        assert (backend_directory(runtime, library) / "onnxruntime" / native.LIBRARY).is_file()
        monkeypatch.setattr(native, "find_spec", lambda _: None)
        with TritonServer(repository) as server:  # the backend processes have an onnxruntime all the same
            (folder,) = (
                part.partition("=")[2]
                for part in psutil.Process(server.pid).cmdline()
                if part.startswith("--backend-directory=")
            )
            assert (Path(folder) / "onnxruntime/model.py").is_file()
            assert not (Path(folder) / "onnxruntime" / native.LIBRARY).exists()

    def test_another_name_is_refused_with_those_there_are(self, repository: Path) -> None:
        with pytest.raises(InputError, match="must be one of auto, native, python, got 'cpp' instead"):
            TritonServer(repository, onnx_backend="cpp")

    def test_what_runs_is_known_once_it_has_started(self, repository: Path) -> None:
        server = TritonServer(repository)
        with pytest.raises(StartError, match="has not been started"):
            _ = server.onnx_backend
