"""A real Triton Inference Server from `pip install` alone."""

from ._doctor import DEFAULT_PORTS, Finding, diagnose
from ._errors import ModelLoadError, PortInUseError, RuntimeInstallError, StartError, UnsupportedSystemError
from ._runtime import Runtime, install_runtime, installed_runtime, remove_runtime, runtime_info
from ._server import TritonServer

__all__ = [
    "DEFAULT_PORTS",
    "Finding",
    "ModelLoadError",
    "PortInUseError",
    "Runtime",
    "RuntimeInstallError",
    "StartError",
    "TritonServer",
    "UnsupportedSystemError",
    "diagnose",
    "install_runtime",
    "installed_runtime",
    "remove_runtime",
    "runtime_info",
]
