"""What is missing or at odds for the embedded server on this machine, and what to do about it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path

from tritium.client import TritiumError
from tritium.repository import cache_dir

from ._environment import library_path
from ._errors import RuntimeInstallError, UnsupportedSystemError
from ._native import native_backend, ort_library
from ._runtime import installed_runtime, needed_wheels
from ._stub_env import stub_environment, stub_numpy
from ._system import CHECKS

DEFAULT_PORTS = {"http": 8000, "grpc": 8001, "metrics": 8002, "health": 8003}
# A backend process takes 1 MB of shared memory at its start, and what its largest batches need after that.
_LEAST_SHM_BYTES = 64 * 1024 * 1024
# The runtime unpacked, its wheels while they are fetched, and a stub environment.
_LEAST_CACHE_BYTES = 400 * 1024 * 1024
_NETWORK_TIMEOUT_S = 30.0
_GPU_TIMEOUT_S = 20.0
# The wheel needs CUDA and cuDNN, and pip brings them only if it is told to.
_ADD_CUDA = "pip install 'onnxruntime-gpu[cuda,cudnn]'"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: what was looked at.
        status: ``ok``; ``warning``, something will not work; or ``problem``, nothing will.
        detail: what was found.
        fix: what to do about it; empty if there is nothing to do.
    """

    check: str
    status: str
    detail: str
    fix: str = ""


def diagnose(ports: Mapping[str, int] = DEFAULT_PORTS) -> Iterator[Finding]:
    """Look at everything that the embedded server depends on.

    Nothing is fetched; where the runtime is installed, the environment of the backend processes is made if it was not.

    Args:
        ports: the ports to look at, by what they are for; 0 stands for any free one.
    """
    supported = True
    for check, look in CHECKS.items():
        try:
            yield Finding(check, "ok", str(look()))
        except UnsupportedSystemError as exc:
            supported = False
            detail, _, fix = str(exc).partition(". ")
            yield Finding(check, "problem", detail, fix)
    cache = _cache()
    yield cache
    if supported and cache.status == "ok":
        yield from _runtime()
        yield _onnx_backend()
    for look_at in (_onnxruntime, _torch, _shared_memory):
        yield look_at()
    if supported:
        yield _gpu()
    for kind, port in ports.items():
        yield _port(kind, port)


def _cache() -> Finding:
    try:
        cache = cache_dir()
        existing = next(path for path in (cache, *cache.parents) if path.exists())
    except (TritiumError, OSError) as exc:
        return Finding("cache", "problem", str(exc), _OTHER_CACHE)
    if not os.access(existing, os.W_OK | os.X_OK) or not existing.is_dir():
        return Finding("cache", "problem", f"{cache} cannot be written", _OTHER_CACHE)
    free_bytes = shutil.disk_usage(existing).free
    if free_bytes < _LEAST_CACHE_BYTES and not (cache / "runtime").is_dir():
        return Finding(
            "cache",
            "problem",
            f"{cache} has {free_bytes / 1e6:.0f} MB free, and the runtime needs {_LEAST_CACHE_BYTES / 1e6:.0f}",
            f"Free some space. {_OTHER_CACHE}",
        )
    return Finding("cache", "ok", f"{cache}, {free_bytes / 1e9:.1f} GB free")


def _runtime() -> Iterator[Finding]:
    runtime = installed_runtime()
    if runtime is None:
        yield _network()
        return
    yield Finding("runtime", "ok", str(runtime.root))
    try:
        version, place = stub_numpy(stub_environment(runtime))
    except TritiumError as exc:
        yield Finding("backend numpy", "problem", str(exc), _REINSTALL)
        return
    if version != needed_wheels()[1].version:
        yield Finding(
            "backend numpy",
            "problem",
            f"backend processes import numpy {version} from {place}, and with numpy 2 they answer with empty outputs",
            _REINSTALL,
        )
    else:
        yield Finding("backend numpy", "ok", f"{version}, apart from the environment's own {_installed('numpy')}")


_OTHER_CACHE = "Name another folder in TRITIUM_CACHE_DIR"
_REINSTALL = "Run `tritium runtime remove` and `tritium runtime install`"


def _network() -> Finding:
    """Whether pip finds the wheel that the first start fetches."""
    project = needed_wheels()[0].project
    command = [
        sys.executable,
        "-m",
        "pip",
        "--no-input",
        "--retries",
        "0",
        "--timeout",
        "10",
        "index",
        "versions",
        project,
    ]
    fix = (
        "Connect to a network, or fetch the two wheels elsewhere with `pip download --no-deps` and run "
        "`tritium runtime install --from FOLDER`"
    )
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_NETWORK_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return Finding("runtime", "problem", f"not installed, and pip gets no answer when it asks for {project}", fix)
    if done.returncode:
        reason = next(
            (line for line in reversed(done.stderr.splitlines()) if "ERROR" in line or "No module" in line), ""
        )
        return Finding("runtime", "problem", f"not installed, and pip does not find {project}: {reason}", fix)
    wheels = " and ".join(map(str, needed_wheels()))
    return Finding("runtime", "ok", f"not installed yet; the first `tritium serve` fetches {wheels}")


def _onnxruntime() -> Finding:
    found = {name: version for name in ("onnxruntime", "onnxruntime-gpu") if (version := _installed(name))}
    if len(found) == 2:
        return Finding(
            "onnxruntime",
            "problem",
            f"onnxruntime {found['onnxruntime']} and onnxruntime-gpu {found['onnxruntime-gpu']} share one folder, "
            "so files of one overwrite files of the other",
            "Run `pip uninstall -y onnxruntime onnxruntime-gpu`, then `pip install onnxruntime-gpu` (for CPUs too)",
        )
    if not found:
        return Finding(
            "onnxruntime",
            "warning",
            "not installed: ONNX models cannot be served",
            "Run `pip install 'tritium[server]'`",
        )
    return Finding("onnxruntime", "ok", " ".join(*found.items()))


def _onnx_backend() -> Finding:
    """What runs ONNX models; with the Python-based backend all works, but slower."""
    try:
        native = native_backend()
    except RuntimeInstallError as exc:
        return Finding("onnx backend", "problem", str(exc), _OTHER_CACHE)
    if native.reason is None:
        return Finding("onnx backend", "ok", f"native, compiled by {native.compiler}")
    if not native.fix:
        return Finding("onnx backend", "ok", native.reason)
    return Finding("onnx backend", "warning", f"Python-based: {native.reason}", native.fix)


def _torch() -> Finding:
    version = _installed("torch")
    if version is None:
        return Finding(
            "torch", "warning", "not installed: TorchScript models cannot be served", "Run `pip install torch`"
        )
    return Finding("torch", "ok", version)


def _gpu() -> Finding:
    """Whether ONNX models can run on the GPU that is there. Without CUDA the CPU serves, and only the log says so."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=_GPU_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return Finding("gpu", "ok", "no NVIDIA driver answers: models run on the CPU")
    if done.returncode:
        said = " ".join((done.stdout + done.stderr).split())
        return Finding("gpu", "warning", f"nvidia-smi fails: {said}", "Models run on the CPU until it does not")
    gpus = ", ".join(f"{name}, driver {driver}" for name, driver in map(_fields, done.stdout.splitlines()))
    library = ort_library()
    provider = library and library.parent / "libonnxruntime_providers_cuda.so"
    if provider is None or not provider.is_file():
        return Finding(
            "gpu",
            "warning",
            f"{gpus}; this onnxruntime has no CUDA, so ONNX models run on the CPU",
            f"Run `pip uninstall -y onnxruntime`, then `{_ADD_CUDA}`",
        )
    if missing := _missing_libraries(provider):
        return Finding(
            "gpu",
            "warning",
            f"{gpus}; onnxruntime finds no {', '.join(missing)}, so ONNX models run on the CPU",
            f"Run `{_ADD_CUDA}`, or name the folder of CUDA's libraries in LD_LIBRARY_PATH",
        )
    return Finding("gpu", "ok", f"{gpus}; onnxruntime finds CUDA's libraries")


def _fields(line: str) -> tuple[str, str]:
    name, _, driver = line.rpartition(", ")
    return name, driver


def _missing_libraries(library: Path) -> list[str]:
    """Which libraries another one needs and Triton would not find; nothing of them is run."""
    # The loader's own word for it, as `ldd` asks it.
    env = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "LD_LIBRARY_PATH": library_path()}
    try:
        command = ["ldd", str(library)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=_GPU_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.split()[0] for line in done.stdout.splitlines() if line.endswith("=> not found")]


def _shared_memory() -> Finding:
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Finding("/dev/shm", "problem", "there is none", "Mount a tmpfs at /dev/shm")
    space = os.statvfs(folder)
    free_bytes = space.f_bavail * space.f_frsize
    if free_bytes < _LEAST_SHM_BYTES:
        return Finding(
            "/dev/shm",
            "problem",
            f"{free_bytes / 1e6:.0f} MB free, and backend processes need {_LEAST_SHM_BYTES / 1e6:.0f}",
            "Remove what lies there; in a container, start it with --shm-size=1g",
        )
    return Finding("/dev/shm", "ok", f"{free_bytes / 1e9:.1f} GB free")


def _port(kind: str, port: int) -> Finding:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as exc:
            fix = f"Stop what listens there (`ss -ltnp sport = :{port}` names it), or use --{kind}-port 0"
            return Finding(f"port {port}", "warning", f"{kind}: {exc.strerror}", fix)
    return Finding(f"port {port}", "ok", f"free for {kind}")


def _installed(package: str) -> str | None:
    try:
        return package_version(package)
    except PackageNotFoundError:
        return None
