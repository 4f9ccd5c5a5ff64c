"""What `diagnose` finds, with each fault put in its way."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tritium.server import (
    Finding,
    TritonServer,
    UnsupportedSystemError,
    diagnose,
    install_native_backend,
    install_runtime,
    runtime_info,
)
from tritium.server import _doctor as doctor
from tritium.server import _environment as environment
from tritium.server import _system as system
from tritium.server._stub_env import stub_environment


def found(check: str, ports: dict[str, int] | None = None) -> Finding:
    """The finding of one check."""
    return next(finding for finding in diagnose(ports or {}) if finding.check == check)


def test_this_machine_is_well(server: object) -> None:
    findings = list(diagnose({}))
    assert [finding for finding in findings if finding.status != "ok"] == []
    assert {"system", "glibc", "libpython", "runtime", "backend numpy", "onnx backend", "/dev/shm"} <= {
        f.check for f in findings
    }


@pytest.mark.parametrize(
    ("check", "patch", "words"),
    [
        ("system", ("sys.platform", "darwin"), "needs Linux"),
        ("processor", ("platform.machine", lambda: "riscv64"), "riscv64"),
        ("python", ("sys.version_info", (3, 14, 0)), "needs CPython 3.11 or 3.12"),
        ("glibc", ("platform.libc_ver", lambda: ("glibc", "2.31")), "glibc 2.35 or newer, and this is glibc 2.31"),
        ("glibc", ("platform.libc_ver", lambda: ("", "")), "glibc 2.35 or newer"),
    ],
)
def test_an_unsupported_system_is_a_problem_with_a_way_out(
    monkeypatch: pytest.MonkeyPatch, check: str, patch: tuple[str, Any], words: str
) -> None:
    monkeypatch.setattr(*patch)
    with pytest.raises(UnsupportedSystemError, match=words):
        system.CHECKS[check]()
    finding = found(check)
    assert finding.status == "problem"
    assert finding.fix


def test_a_python_without_libpython_names_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    monkeypatch.setattr("sysconfig.get_config_var", lambda _: str(tmp_path))
    finding = found("libpython")
    assert finding.status == "problem"
    assert "apt-get install libpython3." in finding.fix


def test_a_port_in_use_is_a_warning_that_names_the_flag() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        finding = found(f"port {port}", {"http": port})
    assert finding.status == "warning"
    assert "--http-port 0" in finding.fix


def test_two_onnxruntimes_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_installed", lambda package: "1.31.0")
    finding = found("onnxruntime")
    assert finding.status == "problem"
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in finding.fix


@pytest.mark.parametrize("package", ["onnxruntime", "torch"])
def test_a_missing_framework_is_a_warning(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setattr(doctor, "_installed", lambda name: None)
    assert found(package).status == "warning"


def with_gpu(
    monkeypatch: pytest.MonkeyPatch, folder: Path, script: str = "echo 'NVIDIA H100 80GB HBM3, 580.159.04'"
) -> None:
    """A machine whose `nvidia-smi` says that."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


class TestGpu:
    """What is said of a GPU, with an `nvidia-smi` of our own."""

    def test_a_machine_without_one_is_well(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert found("gpu") == Finding("gpu", "ok", "no NVIDIA driver answers: models run on the CPU")

    def test_a_driver_that_fails_is_a_warning(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        with_gpu(monkeypatch, tmp_path, "echo Driver/library version mismatch; exit 18")
        finding = found("gpu")
        assert finding.status == "warning"
        assert "Driver/library version mismatch" in finding.detail

    def test_an_onnxruntime_for_cpus_only_is_a_warning(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        with_gpu(monkeypatch, tmp_path)
        monkeypatch.setattr(doctor, "ort_library", lambda: tmp_path / "libonnxruntime.so.1.31.0")
        finding = found("gpu")
        assert finding.status == "warning"
        assert "NVIDIA H100 80GB HBM3, driver 580.159.04" in finding.detail
        assert "pip uninstall -y onnxruntime`" in finding.fix

    def test_libraries_of_cuda_that_are_not_there_are_named(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        with_gpu(monkeypatch, tmp_path)
        provider = linked(tmp_path / "capi", "libonnxruntime_providers_cuda.so", needs="libcublasLt.so.13")
        monkeypatch.setattr(doctor, "ort_library", lambda: provider.with_name("libonnxruntime.so.1.31.0"))
        finding = found("gpu")
        assert finding.status == "warning"
        assert "finds no libcublasLt.so.13, so" in finding.detail
        assert "onnxruntime-gpu[cuda,cudnn]" in finding.fix

    def test_libraries_of_cuda_that_pip_brought_are_found(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        with_gpu(monkeypatch, tmp_path)
        provider = linked(tmp_path / "capi", "libonnxruntime_providers_cuda.so", needs="libcublasLt.so.13")
        brought = tmp_path / "site-packages/nvidia/cu13/lib"
        brought.mkdir(parents=True)
        shutil.copy2(tmp_path / "capi/libcublasLt.so.13.away", brought / "libcublasLt.so.13")
        monkeypatch.setattr(doctor, "ort_library", lambda: provider.with_name("libonnxruntime.so.1.31.0"))
        monkeypatch.setattr(environment, "site_folders", lambda: [str(tmp_path / "site-packages")])
        assert found("gpu") == Finding(
            "gpu", "ok", "NVIDIA H100 80GB HBM3, driver 580.159.04; onnxruntime finds CUDA's libraries"
        )


def linked(folder: Path, name: str, *, needs: str) -> Path:
    """An empty library that needs another one, which lies beside it under a name that nobody looks for."""
    compiler = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    folder.mkdir()
    away = f"{folder}/{needs}.away"
    for command in (
        [f"-Wl,-soname,{needs}", "-o", away],
        ["-x", "none", "-Wl,--no-as-needed", away, "-o", f"{folder}/{name}"],
    ):
        empty = [compiler, "-shared", "-x", "c", os.devnull]
        subprocess.run([*empty, *command], check=True, capture_output=True)
    return folder / name


def test_little_shared_memory_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs("/dev/shm")
    small = os.statvfs_result((real.f_bsize, 4096, 100, 10, 10, 100, 10, 10, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: small)
    finding = found("/dev/shm")
    assert finding.status == "problem"
    assert "--shm-size" in finding.fix


def test_a_numpy_2_in_the_stub_is_a_problem(monkeypatch: pytest.MonkeyPatch, server: object) -> None:
    monkeypatch.setattr(doctor, "stub_numpy", lambda _: ("2.4.6", "/somewhere/numpy/__init__.py"))
    finding = found("backend numpy")
    assert finding.status == "problem"
    assert "empty outputs" in finding.detail


def test_a_stub_environment_without_numpy_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wheels: Path
) -> None:
    monkeypatch.setenv("TRITIUM_CACHE_DIR", str(tmp_path))
    environment = stub_environment(install_runtime(source=wheels))
    shutil.rmtree(next(environment.glob("lib/python*/site-packages/numpy")))
    monkeypatch.setattr(system, "site_folders", list)
    finding = found("backend numpy")
    assert finding.status == "problem"


def test_what_compiled_the_native_backend_is_named(server: TritonServer) -> None:
    finding = found("onnx backend")
    assert finding.status == "ok"
    assert finding.detail == f"native, compiled by {runtime_info()['native']['compiler']}"


def test_a_native_backend_that_was_not_compiled_yet_is_no_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRITIUM_CACHE_DIR", str(tmp_path / "empty"))
    finding = found("onnx backend")
    assert (finding.status, finding.fix) == ("ok", "")
    assert "not compiled yet" in finding.detail
    assert not (tmp_path / "empty").exists(), "looking must not change anything"


def test_a_native_backend_that_cannot_be_had_is_a_warning_with_the_reason_and_a_fix(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRITIUM_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("CXX", "/nonexistent/c++")
    install_native_backend(source=tmp_path)
    finding = found("onnx backend")
    assert finding.status == "warning"
    assert finding.detail.startswith("Python-based: /nonexistent/c++ failed: No such file or directory; There is no")
    assert "apt-get install g++" in finding.fix


def test_no_network_for_the_first_download_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRITIUM_CACHE_DIR", str(tmp_path / "empty"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    finding = found("runtime")
    assert finding.status == "problem"
    assert "runtime install --from" in finding.fix


def test_a_reachable_download_is_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRITIUM_CACHE_DIR", str(tmp_path / "empty"))
    finding = found("runtime")
    assert (finding.status, finding.detail.split(";")[0]) == ("ok", "not installed yet")
    assert not (tmp_path / "empty").exists(), "looking must not change anything"


def test_a_cache_without_space_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRITIUM_CACHE_DIR", str(tmp_path / "empty"))
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert found("cache").status == "problem"


def test_platform_is_read_and_not_guessed() -> None:
    assert system.check_processor() == platform.machine()
    assert system.libpython().exists()
