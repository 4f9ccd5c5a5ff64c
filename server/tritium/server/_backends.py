"""The backend directory that Triton is pointed at, composed of the wheel's Python backend and our own."""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path

from ._cache import locked_cache, made_aside
from ._runtime import Runtime, content_key

# Each runs as a Python-based backend: `model.py` in a folder of its name. A library `libtriton_<name>.so` beside it
# would be taken instead.
PYTHON_BASED = ("onnxruntime", "pytorch")


def backend_directory(runtime: Runtime) -> Path:
    """The composed folder; made at the first use and whenever its content changes.

    Everything is copied: Triton refuses links that lead out of the backend directory.
    """
    sources = {
        f"{name}/{part.name}": part.read_bytes()
        for name in PYTHON_BASED
        for part in (_package() / name / "model.py", _package() / "batching.py")
    }
    parts = [item for pair in sorted(sources.items()) for item in pair]
    with locked_cache() as cache:
        target = cache / "backends" / content_key(str(runtime.stub), *parts)
        if not target.is_dir():
            with made_aside(target) as aside:
                shutil.copytree(runtime.python_backend, aside / "python")
                shutil.copy2(runtime.stub, aside / "python")
                for name, content in sources.items():
                    (aside / name).parent.mkdir(exist_ok=True)
                    (aside / name).write_bytes(content)
    return target


def _package() -> Path:
    return Path(str(files("tritium.server"))) / "backends"
