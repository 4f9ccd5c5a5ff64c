"""What of the environment Triton gets, and with it the code of models."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ._runtime import Runtime
from ._stub_env import stub_environment
from ._system import libpython, site_folders

# Model code can read the server's environment, so only what it may need is passed on.
_SECRET = re.compile("KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL")
_PASSED_ON = re.compile(
    r"HOME|USER|LANG|LC_\w+|TZ|TMPDIR|((MALLOC|OMP|MKL|OPENBLAS|CUDA|NVIDIA|NCCL|ORT|TORCH|PYTORCH)_\w+)"
)


def triton_environment(runtime: Runtime) -> dict[str, str]:
    """The variables that Triton is started with: few of ours, and where its libraries and programs lie."""
    passed = {
        name: value
        for name, value in os.environ.items()
        if _PASSED_ON.fullmatch(name) and not _SECRET.search(name.upper())
    }
    path = os.environ.get("PATH", os.defpath)
    return passed | {
        "PATH": f"{stub_environment(runtime) / 'bin'}:{path}",
        "LD_LIBRARY_PATH": library_path(runtime.libraries),
        "PYTHONDONTWRITEBYTECODE": "1",
        "ORT_DISABLE_TELEMETRY": "1",
    }


def library_path(*first: Path) -> str:
    """What Triton gets as `LD_LIBRARY_PATH`.

    Args:
        first: folders before all others.
    """
    # What pip brings of CUDA and TensorRT lies there, and ONNX Runtime itself does not look for it.
    gpu = [
        path
        for folder in site_folders()
        for pattern in ("nvidia/*/lib", "tensorrt_libs")
        for path in sorted(Path(folder).glob(pattern))
    ]
    folders = [*first, libpython().parent, *gpu, os.environ.get("LD_LIBRARY_PATH", "")]
    return ":".join(filter(None, map(str, folders)))
