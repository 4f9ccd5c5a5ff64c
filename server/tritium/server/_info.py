"""What is installed, as plain JSON types."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tritium.repository import cache_dir

from ._native import native_backend
from ._runtime import TRITON_VERSION, installed_runtime, needed_wheels, size_bytes


def runtime_info() -> dict[str, Any]:
    """Where the runtime is, what it is made of, what runs models, and how big the cache is."""
    runtime = installed_runtime()
    native = native_backend()
    return {
        "installed": runtime is not None,
        "cache": str(cache_dir()),
        "cache_bytes": size_bytes(cache_dir()),
        "triton_version": TRITON_VERSION,
        "path": str(runtime.root) if runtime else None,
        "wheels": [asdict(wheel) for wheel in needed_wheels()],
        "backends": {"onnxruntime": native.kind, "pytorch": "python"},
        "native": {
            "library": str(native.library) if native.library else None,
            "compiler": native.compiler,
            "reason": native.reason,
        },
    }
