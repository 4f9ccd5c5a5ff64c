"""The per-user cache: where it is, and one lock around every change to it.

wheels/     what was downloaded and is needed again
runtime/    Triton, unpacked, a folder per release
data/       data sets that the reference models are trained on
stubs/      a tiny Python environment for each of the user's own
native/     the native ONNX Runtime backend, compiled, keyed by its sources
backends/   backend folders, keyed by their content
run/        logs and examples of servers that are running
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tritium.client import MissingExtraError
from tritium.repository import cache_dir

from ._errors import RuntimeInstallError


@contextmanager
def locked_cache() -> Iterator[Path]:
    """The cache folder, made if need be, with everybody else who would change it waiting.

    Raises:
        InputError: there is no home folder for it.
        RuntimeInstallError: the folder cannot be written, or the disk is full. What was half made is gone.
    """
    try:
        from filelock import FileLock
    except ImportError as exc:
        raise MissingExtraError("filelock", "server") from exc
    cache = cache_dir()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / "lock"):
            # Whoever holds the lock is alone: what is half made now was left by somebody who was killed.
            for stale in [*cache.glob(".*-*"), *cache.glob("*/.*-*")]:
                shutil.rmtree(stale, ignore_errors=True)
            yield cache
    except OSError as exc:
        raise unusable(cache, exc) from exc


def unusable(cache: Path, exc: OSError) -> RuntimeInstallError:
    """The error for a cache that the system does not let us use."""
    return RuntimeInstallError(
        f"The cache {cache} cannot be used: {exc}. Free some space, or name another folder in TRITIUM_CACHE_DIR"
    )


@contextmanager
def made_aside(target: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `target` in one step when the block ends well, and vanishes when it does not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        yield aside
        aside.chmod(0o755)
        aside.rename(target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
