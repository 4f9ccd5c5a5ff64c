"""What `tritium.server` publishes."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tritium.server


def test_all_is_pinned_and_sorted() -> None:
    assert tritium.server.__all__ == [
        "ADMIN_GROUPS",
        "DEFAULT_PORTS",
        "Finding",
        "ModelLoadError",
        "ModelReport",
        "ModelState",
        "NativeBackend",
        "NativeBackendError",
        "PortInUseError",
        "ReloadError",
        "RunningServer",
        "Runtime",
        "RuntimeInstallError",
        "StartError",
        "Supervisor",
        "TritonServer",
        "UnsupportedSystemError",
        "admin_headers",
        "diagnose",
        "install_native_backend",
        "install_runtime",
        "installed_runtime",
        "model_report",
        "reload_model",
        "remove_runtime",
        "running_servers",
        "runtime_info",
    ]
    for name in tritium.server.__all__:
        assert hasattr(tritium.server, name)
    assert set(tritium.server.__all__) <= set(dir(tritium.server))


def test_a_name_that_it_has_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'tritium\.server' has no attribute 'Server'"):
        _ = tritium.server.Server  # type: ignore[attr-defined]


def test_importing_it_loads_no_framework() -> None:
    heavy = ("torch", "onnxruntime", "sklearn", "locust")
    code = f"import sys; from tritium.server import *; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
