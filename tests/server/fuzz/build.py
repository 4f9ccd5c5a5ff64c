"""The native backend's sources, built with AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tritium.server._native import LIBRARY, SOURCES

_HERE = Path(__file__).parent
# Standard containers look at their bounds too, and poison what they have reserved and do not use.
_FLAGS = (
    *("-std=c++17", "-g", "-fno-omit-frame-pointer", "-Wall", "-Wextra", "-pthread"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    *("-D_GLIBCXX_ASSERTIONS", "-D_GLIBCXX_SANITIZE_VECTOR"),
)
_SHARED = ("-fPIC", "-shared")
# Triton and ONNX Runtime are not instrumented, but what they allocate is watched. libstdc++ comes along, because its
# throw must be there when the sanitizer looks for it.
_PRELOADED = ("libasan.so", "libubsan.so", "libstdc++.so.6")
_OPTIONS = {
    # Leaks: Triton and ONNX Runtime leave their globals to the end of the process; `make bench-memory` looks instead.
    "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1:abort_on_error=1:strict_string_checks=1"
    # A request may ask for more memory than there is and has to get an error then, as it does without a sanitizer;
    # `new.cc`, which is loaded before the sanitizer, sees to the rest of that.
    ":allocator_may_return_null=1:max_allocation_size_mb=512:verify_asan_link_order=0",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:abort_on_error=1",
}
# Bugs to plant into a copy of the sources, which must then be found: the file, what it has, what it gets instead.
PLANTS: Mapping[str, tuple[str, str, str]] = {
    "gather": (
        "instance.cc",
        "memcpy(out + copied, piece, piece_bytes)",
        "memcpy(out + copied, piece, piece_bytes + 1)",
    ),
    "scatter": ("instance.cc", "(data) + first * output.type->bytes", "(data) + (first + 1) * output.type->bytes"),
    "rows": ("instance.cc", "first_row += job->rows;", "first_row += 1;"),
    "strings": ("strings.cc", "if (bytes.size() < length) {", "if (bytes.size() + 1 < length) {"),
    "json": ("json.cc", "return at_ < text_.size() ? text_[at_]", "return at_ <= text_.size() ? text_.data()[at_]"),
}


class BuildError(Exception):
    """The compiler, or what belongs to it, does not do what is asked."""


def has_sanitizers() -> bool:
    """Whether there is a g++ with its sanitizers."""
    return shutil.which("g++") is not None and all(_found(name) for name in _PRELOADED)


def sources(folder: Path, plant: str | None = None) -> Path:
    """A copy of the sources in the folder, with a bug planted if one is named."""
    copied = folder / "sources"
    shutil.copytree(SOURCES, copied)
    if plant is not None:
        name, right, wrong = PLANTS[plant]
        text = (copied / name).read_text(encoding="utf-8")
        if text.count(right) != 1:
            raise BuildError(f"The bug {plant!r} has no place in {name} any more: it must have {right!r} once")
        (copied / name).write_text(text.replace(right, wrong), encoding="utf-8")
    return copied


@dataclass(frozen=True)
class Instrumented:
    """A backend with sanitizers in it.

    Attributes:
        backends: for Triton's ``--backend-directory``; it has no other backend.
        variables: what Triton needs in its environment.
        reports: the folder for what the sanitizers have to say.
    """

    backends: Path
    variables: Mapping[str, str]
    reports: Path

    def found(self) -> list[str]:
        """The sanitizers' reports."""
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in sorted(self.reports.iterdir())]
        # A refused allocation is written down too, and is no error.
        errors = [re.sub(r"==\d+==WARNING: AddressSanitizer failed to allocate .*\n", "", text) for text in texts]
        return [text for text in errors if text.strip()]


def build_backend(folder: Path, source: Path, *, optimize: str = "-O1") -> Instrumented:
    """The backend, built from the source into the folder."""
    library, allocator, reports = folder / "backends/onnxruntime" / LIBRARY, folder / "new.so", folder / "reports"
    library.parent.mkdir(parents=True)
    reports.mkdir()
    files = map(str, sorted(source.glob("*.cc")))
    _compile([*_FLAGS, optimize, *_SHARED, "-fvisibility=hidden", "-Wl,-z,lazy", *files, "-ldl"], library)
    _compile([*_SHARED, str(_HERE / "new.cc")], allocator)
    preloaded = [str(allocator), *filter(None, map(_found, _PRELOADED))]
    variables = {name: f"{value}:log_path={reports / name.partition('_')[0]}" for name, value in _OPTIONS.items()}
    return Instrumented(library.parents[1], {"LD_PRELOAD": " ".join(preloaded), **variables}, reports)


def build_driver(folder: Path, source: Path, *, optimize: str = "-O1") -> Path:
    """The program in `json_driver.cc`, with the JSON reader of the source."""
    target = folder / "json_driver"
    files = [_HERE / "json_driver.cc", source / "json.cc", source / "config.cc"]
    # For quoted names only: a header of ours is called as one of the system's.
    _compile([*_FLAGS, optimize, f"-iquote{source}", *map(str, files)], target)
    return target


def _found(name: str) -> str:
    """A library of the compiler's, as a path; empty if there is none."""
    printed = subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
    return printed if printed.startswith("/") else ""


def _compile(arguments: Sequence[str], target: Path) -> None:
    done = subprocess.run(["g++", *arguments, "-o", str(target)], capture_output=True, text=True)
    if done.returncode:
        raise BuildError(f"g++ cannot build {target.name}:\n{done.stderr}")
