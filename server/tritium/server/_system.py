"""What the embedded server asks of the machine and of the running Python."""

from __future__ import annotations

import os
import platform
import site
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

from ._errors import UnsupportedSystemError

PYTHONS = ((3, 11), (3, 12))
PROCESSORS = ("x86_64", "aarch64")
LEAST_GLIBC = (2, 35)
_ELSEWHERE = "Use WSL2, a container, or a Linux machine; the client works on every system"


def check_linux() -> str:
    """The system's name.

    Raises:
        UnsupportedSystemError: it is not Linux.
    """
    if sys.platform != "linux":
        raise UnsupportedSystemError(f"The embedded server needs Linux, and this is {platform.system()}. {_ELSEWHERE}")
    return platform.platform()


def check_processor() -> str:
    """The processor's name.

    Raises:
        UnsupportedSystemError: there is no server for it.
    """
    machine = platform.machine()
    if machine not in PROCESSORS:
        raise UnsupportedSystemError(
            f"The embedded server runs on {' and '.join(PROCESSORS)}, and this is {machine}. {_ELSEWHERE}"
        )
    return machine


def check_python() -> str:
    """The running Python's version.

    Raises:
        UnsupportedSystemError: it is none of those that Tritium is tested with.
    """
    if sys.implementation.name != "cpython" or sys.version_info[:2] not in PYTHONS:
        wanted = " or ".join(f"{major}.{minor}" for major, minor in PYTHONS)
        raise UnsupportedSystemError(
            f"The embedded server needs CPython {wanted}, and this is {sys.implementation.name} "
            f"{platform.python_version()}. Make an environment with one of those"
        )
    return platform.python_version()


def check_glibc() -> str:
    """The C library's version.

    Raises:
        UnsupportedSystemError: it is older than what the server was built on, or not glibc.
    """
    library, version = platform.libc_ver()
    if library != "glibc" or tuple(int(part) for part in version.split(".")[:2]) < LEAST_GLIBC:
        least = ".".join(map(str, LEAST_GLIBC))
        raise UnsupportedSystemError(
            f"The embedded server needs glibc {least} or newer, and this is {library or 'another one'} {version}. "
            "Debian 12, Ubuntu 22.04, Fedora 36 and everything later have it"
        )
    return version


def libpython() -> Path:
    """The shared library of the running interpreter, which the backend processes are linked against.

    Raises:
        UnsupportedSystemError: this Python was built without one; the message says which package brings it.
    """
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    places = [
        *(sysconfig.get_config_var(key) for key in ("LIBDIR", "LIBPL")),
        # Debian moves its libraries below a folder named after the machine.
        os.path.join(sysconfig.get_config_var("LIBDIR") or "", sysconfig.get_config_var("MULTIARCH") or ""),  # noqa: PTH118
        os.path.join(sys.base_prefix, "lib"),  # noqa: PTH118
    ]
    for place in places:
        if place and (library := Path(place) / name).exists():
            return library
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    raise UnsupportedSystemError(
        f"There is no {name} for this Python ({sys.base_prefix}). It comes with: Debian or Ubuntu, apt-get install "
        f"libpython{version}; Fedora, dnf install python{version}-libs; pyenv, PYTHON_CONFIGURE_OPTS=--enable-shared "
        f"pyenv install {version}; conda and uv bring it along"
    )


CHECKS: dict[str, Callable[[], str | Path]] = {
    "system": check_linux,
    "processor": check_processor,
    "python": check_python,
    "glibc": check_glibc,
    "libpython": libpython,
}


def check_system() -> None:
    """Run every check.

    Raises:
        UnsupportedSystemError: the first that does not hold.
    """
    for check in CHECKS.values():
        check()


def site_folders() -> list[str]:
    """Where the running environment keeps its packages, in the order of import."""
    folders = site.getsitepackages()
    if site.ENABLE_USER_SITE:
        folders = [site.getusersitepackages(), *folders]
    return [folder for folder in dict.fromkeys(folders) if Path(folder).is_dir()]
