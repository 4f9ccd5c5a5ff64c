"""The native ONNX Runtime backend: compiled into the cache once, from sources that Tritium carries.

A library is not distributed, so that Tritium stays one wheel for every machine. What compiles it is the system's C++
compiler, else zig, which pip fetches for that moment. Where neither can, the Python-based backend serves, and a record
in the cache says why, so that no later start waits for the same failure.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from tritium.repository import cache_dir

from ._cache import locked_cache, made_aside, unusable
from ._errors import NativeBackendError, RuntimeInstallError
from ._runtime import Progress, Wheel, checked_wheel, content_key, fetch_wheels, silent
from ._system import LEAST_GLIBC, check_processor

LIBRARY = "libtriton_onnxruntime.so"
SOURCES = Path(__file__).parent / "backends/onnxruntime/native"
ONNX_BACKENDS = ("auto", "native", "python")

ZIG_WHEELS = {
    "x86_64": Wheel(
        "ziglang", "0.14.1", "6eb9d4d759b292c83810dbee2e9e8e3fbfbf01d864e6e9811bae711fd74e1c2f", 83_184_072
    ),
    "aarch64": Wheel(
        "ziglang", "0.14.1", "7994b27f3cbfcedea43f9b7552e38b45857bdf0e9a45065474092dd74e7048cf", 80_233_732
    ),
}
_COMPILERS = ("c++", "g++", "clang++")
# Triton has the symbols that the library leaves open. They are looked for at the first call and not when it is opened,
# whatever the compiler's default is, so that it can be tried without Triton.
_FLAGS = ("-std=c++17", "-O2", "-g0", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread", "-Wl,-z,lazy")
_RECORD = "build.json"
_TIMEOUT_S = 600.0
_FIRST_ERRORS = 3
_LAST_LINES = 6
_TRY = f"import ctypes, os; ctypes.CDLL('./{LIBRARY}', os.RTLD_LAZY).TRITONBACKEND_ModelInstanceExecute"
_ADD_COMPILER = (
    "Install a C++ compiler (Debian and Ubuntu: `apt-get install g++`; Fedora: `dnf install gcc-c++`), then run "
    "`tritium runtime install`"
)
_ADD_ONNXRUNTIME = (
    "Run `pip install --force-reinstall --no-deps onnxruntime-gpu` (for CPUs too; `onnxruntime` on aarch64)"
)
# As in kOrtApiVersion of native/ort_api.h.
LEAST_ORT = (1, 15)


@dataclass(frozen=True)
class NativeBackend:
    """What there is of the native backend.

    Attributes:
        library: Triton's backend; None if it was not compiled.
        compiler: what compiled it, in its own words.
        ort_library: ONNX Runtime itself, in the user's environment; None if there is none.
        reason: why ONNX models run on the Python-based backend instead; None if they do not. Its first line is the
            short of it.
        fix: what to do about that; empty if there is nothing to do.
    """

    library: Path | None = None
    compiler: str | None = None
    ort_library: Path | None = None
    reason: str | None = None
    fix: str = ""

    @property
    def kind(self) -> str:
        """What runs ONNX models: ``native`` or ``python``."""
        return "python" if self.reason else "native"


@dataclass(frozen=True)
class _Build:
    """How a build ended, as it is written beside the library; without a library there is a reason."""

    compiler: str | None
    seconds: float
    reason: str | None


class _BuildError(Exception):
    """One way to build did not work; the first line says which."""


def native_backend() -> NativeBackend:
    """What there is of it now; nothing is fetched or compiled.

    Raises:
        UnsupportedSystemError: the embedded server does not run on this processor.
        RuntimeInstallError: the cache cannot be read.
    """
    cache = cache_dir()
    try:
        folder = _folder(cache)
        build = _read(folder)
    except OSError as exc:
        raise unusable(cache, exc) from exc
    found = ort_library()
    library, compiler = (folder / LIBRARY, build.compiler) if build and not build.reason else (None, None)
    if found is None:
        return NativeBackend(library, compiler, None, "this environment has no libonnxruntime.so.1", _ADD_ONNXRUNTIME)
    if _version(found) < LEAST_ORT:
        needed = ".".join(map(str, LEAST_ORT))
        return NativeBackend(library, compiler, None, f"{found.name} is older than {needed}", _ADD_ONNXRUNTIME)
    if build is None:
        return NativeBackend(ort_library=found, reason="not compiled yet; the first `tritium serve` does that")
    return NativeBackend(library, compiler, found, build.reason, _ADD_COMPILER if build.reason else "")


def install_native_backend(
    *, source: Path | None = None, progress: Progress = silent, retry: bool = True
) -> NativeBackend:
    """Compile the native backend, unless that is done.

    That it cannot be compiled is no error: the result has the reason, and the Python-based backend serves.

    Args:
        source: a folder where zig's wheel may lie, for machines without a network; by default pip fetches it by name.
            It is needed only where the system has no C++ compiler that works.
        progress: called with a line for people at each step.
        retry: try again what has failed before.

    Raises:
        UnsupportedSystemError: the embedded server does not run on this processor.
        RuntimeInstallError: the cache cannot be used.
    """
    if not _is_settled(_folder(cache_dir()), retry=retry):
        with locked_cache() as cache:
            target = _folder(cache)
            if not _is_settled(target, retry=retry):  # else somebody else did it while we waited
                _build(target, source, progress)
    return native_backend()


def choose_onnx_backend(asked: str, progress: Progress = silent) -> NativeBackend:
    """The native backend, made ready if that was asked for, or the reason why the Python-based one serves.

    Args:
        asked: ``native``; ``python``; or ``auto``, which is native where that is possible.
        progress: called with a line for people at each step.

    Raises:
        NativeBackendError: it must be native, and cannot.
        RuntimeInstallError: the cache cannot be used.
    """
    if asked == "python":
        return NativeBackend(reason="asked for")
    # Without ONNX Runtime the library would be of no use.
    native = install_native_backend(progress=progress, retry=asked == "native") if ort_library() else native_backend()
    if asked == "native" and native.reason:
        raise NativeBackendError(native.reason, native.fix)
    return native


def ort_library() -> Path | None:
    """The shared library of the onnxruntime package in the running environment; the package is not imported."""
    spec = find_spec("onnxruntime")
    folders = (spec.submodule_search_locations or ()) if spec else ()
    found = [path for folder in folders for path in Path(folder).glob("capi/libonnxruntime.so.1.*")]
    # An upgrade can leave the old one behind.
    return max(found, key=_version, default=None)


def _version(library: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", library.name))


def needed_zig() -> Wheel:
    """The wheel of zig for this processor."""
    return ZIG_WHEELS[check_processor()]


def _folder(cache: Path) -> Path:
    """Where the library belongs. Those of other sources stay: other environments may have another Tritium."""
    parts = [part for path in _sources() for part in (path.name, path.read_bytes())]
    return cache / "native" / content_key(check_processor(), *_FLAGS, *parts)


def _sources() -> list[Path]:
    return sorted(path for path in SOURCES.iterdir() if path.suffix in (".cc", ".h")) if SOURCES.is_dir() else []


def _read(folder: Path) -> _Build | None:
    """How the build ended; None if there was none, or somebody removed or changed what it made."""
    try:
        build = _Build(**json.loads((folder / _RECORD).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return build if build.reason or (folder / LIBRARY).is_file() else None


def _is_settled(folder: Path, *, retry: bool) -> bool:
    build = _read(folder)
    return build is not None and not (build.reason and retry)


def _build(target: Path, source: Path | None, progress: Progress) -> None:
    """Fill the target with a library, or with the reason why there is none."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=target.parents[1], prefix=".native-") as scratch:
        compiler, failures = None, []
        for attempt in (_with_system_compiler, _with_zig):
            folder = Path(scratch) / attempt.__name__
            folder.mkdir()
            try:
                compiler = attempt(folder, source, progress)
                break
            except (_BuildError, RuntimeInstallError, OSError) as exc:
                failures.append(str(exc))
                if attempt is not _with_zig:
                    progress(str(exc).partition("\n")[0].rstrip(":"))
        build = _Build(compiler, round(time.monotonic() - started, 1), None if compiler else _joined(failures))
        shutil.rmtree(target, ignore_errors=True)
        with made_aside(target) as aside:
            if compiler:
                (folder / LIBRARY).rename(aside / LIBRARY)
            (aside / _RECORD).write_text(json.dumps(asdict(build), indent=2) + "\n", encoding="utf-8")
    if build.reason:
        progress(f"The Python-based backend will run ONNX models: {build.reason}")
    else:
        progress(f"Compiled it in {build.seconds:.0f} s")


def _joined(failures: Sequence[str]) -> str:
    """One reason of several: what failed in the first line, and the details of each below it."""
    heads, details = zip(*(failure.partition("\n")[::2] for failure in failures), strict=True)
    return "\n".join(filter(None, ["; ".join(head.rstrip(":") for head in heads), *details]))


def _with_system_compiler(folder: Path, _source: Path | None, progress: Progress) -> str:
    """By `$CXX`, else by the first compiler on PATH; its name."""
    try:
        command = shlex.split(os.environ.get("CXX", ""))
    except ValueError as exc:
        raise _BuildError(f"CXX cannot be read: {exc}") from exc
    command = command or next(([found] for name in _COMPILERS if (found := shutil.which(name))), [])
    if not command:
        raise _BuildError(f"there is no C++ compiler ($CXX, {', '.join(_COMPILERS)})")
    name = _first_line([*command, "--version"])
    _compile(command, name, folder, progress)
    return name


def _with_zig(folder: Path, source: Path | None, progress: Progress) -> str:
    """By zig, which is unpacked and works below the folder only; its name."""
    wheel = needed_zig()
    if source is None:
        fetch_wheels((wheel,), folder, progress)
    with zipfile.ZipFile(checked_wheel(wheel, source or folder)) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if name.startswith("ziglang/")])
    zig = folder / "ziglang/zig"
    zig.chmod(0o755)  # wheels carry no modes
    # A named target keeps zig from building for what this processor and this system happen to have.
    target = f"{check_processor()}-linux-gnu.{'.'.join(map(str, LEAST_GLIBC))}"
    name = f"zig {wheel.version}"
    caches = {"ZIG_LOCAL_CACHE_DIR": str(folder / "cache"), "ZIG_GLOBAL_CACHE_DIR": str(folder / "cache")}
    _compile([str(zig), "c++", "-target", target, "-mcpu=baseline"], name, folder, progress, env=caches)
    return name


def _compile(
    command: Sequence[str], name: str, folder: Path, progress: Progress, *, env: Mapping[str, str] | None = None
) -> None:
    """Compile the library into the folder, and see that it opens."""
    sources = [path.name for path in _sources() if path.suffix == ".cc"]
    if not sources:
        raise _BuildError(f"there are no sources in {SOURCES}")
    progress(f"Compiling the native ONNX Runtime backend with {name}")
    output = str(folder / LIBRARY)
    _run([*command, *_FLAGS, *sources, "-ldl", "-o", output], f"{name} failed", cwd=SOURCES, env=env)
    _run([sys.executable, "-I", "-c", _TRY], f"what {name} made does not open", cwd=folder)


def _first_line(command: Sequence[str]) -> str:
    return next(iter(_run(command, f"{command[0]} failed").splitlines()), command[0])


def _run(command: Sequence[str], failure: str, *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """What a command printed.

    Raises:
        _BuildError: it failed, with its last words.
    """
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            # Messages in one language, so that they can be searched for.
            env={**os.environ, "LC_ALL": "C", **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as exc:
        raise _BuildError(f"{failure}: no end after {_TIMEOUT_S:.0f} s") from exc
    except OSError as exc:
        raise _BuildError(f"{failure}: {exc.strerror}") from exc
    if done.returncode:
        raise _BuildError("\n  ".join([f"{failure}:", *_last_words(done.stderr.splitlines())]))
    return done.stdout


def _last_words(lines: Sequence[str]) -> list[str]:
    """The first errors, where a compiler's trouble is, and the last lines, where a linker's or Python's is."""
    errors = [line for line in lines if "error:" in line][:_FIRST_ERRORS]
    return list(dict.fromkeys([*errors, *lines[-_LAST_LINES:]]))
