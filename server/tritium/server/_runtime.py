"""The runtime: Triton itself, fetched by pip, checked, and unpacked into the cache."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tritium.repository import cache_dir

from ._cache import locked_cache, made_aside, unusable
from ._errors import RuntimeInstallError
from ._system import check_processor, check_system

TRITON_VERSION = "2.51.0"
Progress = Callable[[str], None]


def silent(_line: str) -> None:
    """The progress that nobody wants to see."""


@dataclass(frozen=True)
class Wheel:
    """A file that pip fetches by name, and that is used only if its checksum is this one."""

    project: str
    version: str
    sha256: str
    size_bytes: int

    @property
    def pattern(self) -> str:
        """Matches the wheel's file name."""
        return f"{self.project.replace('-', '_')}-{self.version}-*.whl"

    def __str__(self) -> str:
        """As in ``numpy 1.26.4 (18 MB)``."""
        return f"{self.project} {self.version} ({self.size_bytes / 1e6:.0f} MB)"


TRITON_WHEELS = {
    "x86_64": Wheel(
        "nvidia-pytriton", "0.7.0", "21f063ff93bb426d0c06b7a55e7eb9efcfe62c0dddd9a908e9877e18710128df", 55_369_373
    ),
    "aarch64": Wheel(
        "nvidia-pytriton", "0.7.0", "f99e07ee56fe065337453956afba17d2673e02ec6a632c3de26ce6e7b32a0898", 53_818_874
    ),
}
# The backend processes need a numpy older than 2 (TRITON's stub predates it); the user's environment does not see it.
NUMPY_WHEELS = {
    ("x86_64", (3, 11)): Wheel(
        "numpy", "1.26.4", "666dbfb6ec68962c033a450943ded891bed2d54e6755e35e5835d63f4f6931d5", 18_252_005
    ),
    ("x86_64", (3, 12)): Wheel(
        "numpy", "1.26.4", "675d61ffbfa78604709862923189bad94014bef562cc35cf61d3a07bba02a7ed", 17_950_613
    ),
    ("aarch64", (3, 11)): Wheel(
        "numpy", "1.26.4", "7ab55401287bfec946ced39700c053796e7cc0e3acbef09993a9ad2adba6ca6e", 14_222_994
    ),
    ("aarch64", (3, 12)): Wheel(
        "numpy", "1.26.4", "9fad7dcb1aac3c7f0584a5a8133e3a43eeb2fe127f47e3632d43d677c66c102b", 13_925_109
    ),
}
# Of the wheel's files only the server is kept, none of its Python package.
_SERVER_PARTS = ("pytriton/tritonserver/", "nvidia_pytriton.libs/")


@dataclass(frozen=True)
class Runtime:
    """An installed runtime: where the parts of the server lie.

    Attributes:
        root: the unpacked server.
        numpy_wheel: the numpy for the backend processes.
    """

    root: Path
    numpy_wheel: Path

    @property
    def binary(self) -> Path:
        """The `tritonserver` program."""
        return self.root / "pytriton/tritonserver/bin/tritonserver"

    @property
    def libraries(self) -> Path:
        """The shared libraries that it needs."""
        return self.root / "nvidia_pytriton.libs"

    @property
    def caches(self) -> Path:
        """The folder for `--cache-directory`."""
        return self.root / "pytriton/tritonserver/caches"

    @property
    def python_backend(self) -> Path:
        """The Python backend, without the program that runs models."""
        return self.root / "pytriton/tritonserver/backends/python"

    @property
    def stub(self) -> Path:
        """The program that runs Python models, for the running Python."""
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return self.root / "pytriton/tritonserver/python_backend_stubs" / version / "triton_python_backend_stub"


def needed_wheels() -> tuple[Wheel, Wheel]:
    """Triton's wheel and numpy's, for this processor and this Python."""
    machine = check_processor()
    return TRITON_WHEELS[machine], NUMPY_WHEELS[machine, (sys.version_info.major, sys.version_info.minor)]


def installed_runtime() -> Runtime | None:
    """The runtime, if it is installed; nothing is fetched.

    Raises:
        RuntimeInstallError: the cache cannot be read.
    """
    triton, numpy = needed_wheels()
    cache = cache_dir()
    root = _root(cache, triton)
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    try:
        wheel = next((cache / "wheels").glob(numpy.pattern.replace("*", f"{python}-*")), None)
        return Runtime(root, wheel) if root.is_dir() and wheel else None
    except OSError as exc:
        raise unusable(cache, exc) from exc


def install_runtime(*, source: Path | None = None, progress: Progress = silent) -> Runtime:
    """Fetch, check and unpack the runtime, unless it is there.

    Args:
        source: a folder with the two wheels, for machines without a network; by default pip fetches them by name.
        progress: called with a line for people at each step.

    Raises:
        UnsupportedSystemError: this machine or this Python cannot run it.
        RuntimeInstallError: a wheel is missing, broke on the way or has the wrong checksum. Nothing is left behind.
    """
    check_system()
    if runtime := installed_runtime():
        return runtime
    triton, numpy = needed_wheels()
    with locked_cache() as cache:
        if runtime := installed_runtime():  # somebody else did it while we waited
            return runtime
        with tempfile.TemporaryDirectory(dir=cache, prefix=".download-") as folder:
            if source is None:
                fetch_wheels((triton, numpy), Path(folder), progress)
            found = {
                wheel: checked_wheel(wheel, Path(folder) if source is None else source) for wheel in (triton, numpy)
            }
            wheels = cache / "wheels"
            wheels.mkdir(exist_ok=True)
            root = _root(cache, triton)
            if not root.is_dir():
                progress(f"Unpacking Triton {TRITON_VERSION}")
                with made_aside(root) as aside:
                    _unpack(found[triton], aside)
            # The copy is made aside too: a wheel that is there is whole.
            aside_wheel = Path(folder) / "numpy.part"
            shutil.copyfile(found[numpy], aside_wheel)
            aside_wheel.rename(wheels / found[numpy].name)
        runtime = installed_runtime()
    if runtime is None:
        raise RuntimeInstallError(f"The runtime is not in {cache} although it was installed: is another program at it?")
    return runtime


def remove_runtime() -> int:
    """Remove everything that Tritium has in the cache, except what running servers write.

    Returns:
        How many bytes that freed.
    """
    if not cache_dir().is_dir():
        return 0
    with locked_cache() as cache:
        freed_bytes = size_bytes(cache)
        for part in ("runtime", "wheels", "stubs", "native", "backends", "data"):
            shutil.rmtree(cache / part, ignore_errors=True)
        return freed_bytes - size_bytes(cache)


def content_key(*parts: bytes | str) -> str:
    """A short name for some content, the same for the same content."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


def fetch_wheels(wheels: tuple[Wheel, ...], folder: Path, progress: Progress) -> None:
    """Let pip put the wheels into the folder; their checksums are not looked at yet.

    Raises:
        RuntimeInstallError: pip could not; the message has its last words.
    """
    progress(f"Downloading {' and '.join(map(str, wheels))}")
    shown = sys.stderr.isatty()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    command += ["--disable-pip-version-check", "--no-input"] + ([] if shown else ["--quiet"])
    command += [f"{wheel.project}=={wheel.version}" for wheel in wheels]
    # pip draws its progress bar on standard output, which belongs to our caller.
    done = subprocess.run(command, stdout=sys.stderr if shown else subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        reasons = [line for line in done.stderr.splitlines() if line and not line.startswith("WARNING: Location")]
        raise RuntimeInstallError(
            f"pip could not fetch {' and '.join(map(str, wheels))}:\n  "
            + "\n  ".join(reasons[-5:])
            + "\nIs there a network? Without one, fetch the wheels elsewhere with `pip download --no-deps` and run "
            "`tritium runtime install --from FOLDER`. If it is pip that is missing, `python -m ensurepip` brings it"
        )


def checked_wheel(wheel: Wheel, folder: Path) -> Path:
    """The wheel's file in the folder; where several match by name, the right one.

    Raises:
        RuntimeInstallError: there is none, or its checksum does not hold.
    """
    candidates = sorted(folder.glob(wheel.pattern))
    if not candidates:
        raise RuntimeInstallError(
            f"There is no {wheel.pattern} in {folder}. "
            f"`pip download --no-deps {wheel.project}=={wheel.version}` fetches it"
        )
    digests = {}
    for path in candidates:
        with path.open("rb") as file:
            digests[path] = hashlib.file_digest(file, "sha256").hexdigest()
        if digests[path] == wheel.sha256:
            return path
    got = ", ".join(f"{path.name} has {digest}" for path, digest in digests.items())
    raise RuntimeInstallError(
        f"The checksum of {wheel.project} {wheel.version} does not hold: it must be {wheel.sha256}, and {got}. "
        "The download broke, or this is another file (for another processor or Python, perhaps): fetch it again"
    )


def size_bytes(folder: Path) -> int:
    """What the files below a folder take."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def _root(cache: Path, wheel: Wheel) -> Path:
    return cache / "runtime" / f"{TRITON_VERSION}-{wheel.sha256[:8]}"


def _unpack(wheel: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.startswith(_SERVER_PARTS) or "/licenses/" in name]
            archive.extractall(target, names)
    except zipfile.BadZipFile as exc:
        raise RuntimeInstallError(f"{wheel.name} is no wheel: {exc}") from exc
    # Wheels carry no modes.
    for program in [*target.rglob("bin/tritonserver"), *target.rglob("triton_python_backend_stub")]:
        program.chmod(0o755)
