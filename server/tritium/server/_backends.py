"""The backend directory that Triton is pointed at, composed of the wheel's Python backend and our own."""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path

from ._cache import locked_cache, made_aside
from ._runtime import Runtime, content_key

# Each runs as a Python-based backend: `model.py` in a folder of its name. If a library `libtriton_<name>.so` is there
# too, Triton takes that.
PYTHON_BASED = ("onnxruntime", "pytorch")


def backend_directory(runtime: Runtime, native: Path | None = None) -> Path:
    """The composed folder; made at the first use and whenever its content changes.

    Everything is copied: Triton refuses links that lead out of the backend directory.

    Args:
        runtime: the runtime whose Python backend it gets.
        native: the library that runs ONNX models; the Python-based backend runs them if there is none.
    """
    files_of = {
        f"{name}/{part.name}": part
        for name in PYTHON_BASED
        for part in (_package() / name / "model.py", _package() / "batching.py")
    }
    if native:
        files_of[f"onnxruntime/{native.name}"] = native
    with locked_cache() as cache:
        sources = {name: path.read_bytes() for name, path in files_of.items()}
        parts = [item for pair in sorted(sources.items()) for item in pair]
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
