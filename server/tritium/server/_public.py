"""What `tritium.server` publishes; the package loads this at the first use of any of it."""

from ._doctor import DEFAULT_PORTS, Finding, diagnose
from ._errors import (
    ModelLoadError,
    NativeBackendError,
    PortInUseError,
    RuntimeInstallError,
    StartError,
    UnsupportedSystemError,
)
from ._info import runtime_info
from ._native import NativeBackend, install_native_backend
from ._runtime import Runtime, install_runtime, installed_runtime, remove_runtime
from ._server import TritonServer

__all__ = [
    "DEFAULT_PORTS",
    "Finding",
    "ModelLoadError",
    "NativeBackend",
    "NativeBackendError",
    "PortInUseError",
    "Runtime",
    "RuntimeInstallError",
    "StartError",
    "TritonServer",
    "UnsupportedSystemError",
    "diagnose",
    "install_native_backend",
    "install_runtime",
    "installed_runtime",
    "remove_runtime",
    "runtime_info",
]
