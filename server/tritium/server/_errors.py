"""Every exception of the server.

TritiumError
├── UnsupportedSystemError               this machine or this Python cannot run the embedded server
├── RuntimeInstallError                  the runtime could not be fetched, checked or unpacked
├── NativeBackendError                   the native ONNX Runtime backend was asked for and cannot run
├── ReloadError                          a running server did not load a model again, or did not answer
└── StartError                           Triton did not come up
    ├── PortInUseError
    └── ModelLoadError
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tritium.client import TritiumError


class UnsupportedSystemError(TritiumError):
    """This machine or this Python cannot run the embedded server; the message says what would."""


class RuntimeInstallError(TritiumError):
    """The runtime could not be fetched, checked or unpacked. The cache is as it was."""


class NativeBackendError(TritiumError):
    """The native ONNX Runtime backend was asked for and cannot run here.

    Attributes:
        reason: why; the first line is the short of it.
    """

    def __init__(self, reason: str, fix: str) -> None:
        self.reason = reason
        super().__init__(
            f"The native ONNX Runtime backend cannot run: {reason}\n{fix}. With 'auto' or 'python' the Python-based "
            "backend serves instead"
        )


class ReloadError(TritiumError):
    """A running server did not load a model again, or did not answer."""


class StartError(TritiumError):
    """Triton did not come up.

    Attributes:
        log: the server's log, kept for reading; None if it never started.
    """

    def __init__(self, message: str, *, log: Path | None = None) -> None:
        self.log = log
        super().__init__(f"{message}\nThe whole log: {log}" if log else message)


class PortInUseError(StartError):
    """A port that was asked for is taken."""

    def __init__(self, kind: str, port: int) -> None:
        self.port = port
        super().__init__(
            f"Port {port} ({kind}) is in use. Stop what listens there, or choose another; 0 takes any free one"
        )


class ModelLoadError(StartError):
    """Models did not load.

    Attributes:
        reasons: why, by model name, in Triton's words.
    """

    def __init__(self, reasons: Mapping[str, str], *, log: Path | None = None) -> None:
        self.reasons = dict(reasons)
        text = "\n".join(f"  {name}: {reason}" for name, reason in self.reasons.items())
        super().__init__(f"These models did not load:\n{text}", log=log)
