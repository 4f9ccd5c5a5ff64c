"""What `tritium.server` publishes; the package loads this at the first use of any of it."""

from ._access import ADMIN_GROUPS, admin_headers
from ._asking import model_report, reload_model
from ._doctor import DEFAULT_PORTS, Finding, diagnose
from ._errors import (
    ModelLoadError,
    NativeBackendError,
    PortInUseError,
    ReloadError,
    RuntimeInstallError,
    StartError,
    UnsupportedSystemError,
)
from ._info import runtime_info
from ._native import NativeBackend, install_native_backend
from ._runs import RunningServer, running_servers
from ._runtime import Runtime, install_runtime, installed_runtime, remove_runtime
from ._server import TritonServer
from ._states import ModelReport, ModelState
from ._supervisor import Supervisor

__all__ = [
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
