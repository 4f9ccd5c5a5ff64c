"""The backend processes below a Triton, as /proc shows them: one for each instance of a Python-based model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# Linux keeps fifteen characters of a program's name.
_NAME = "triton_python_b"
# As in `digits_cnn_0_1`: the model, its instance group or device, and the instance.
_INSTANCE = re.compile(r"(?P<model>.+)_\d+_\d+")
# Where Triton 2.51 puts that name among a backend process's arguments.
_INSTANCE_PLACE = 8


def live_stubs(triton_pid: int) -> Counter[str]:
    """How many backend processes each model has that are running."""
    return Counter(stubs(triton_pid).values())


def stubs(triton_pid: int) -> dict[int, str]:
    """The backend processes that are running: each one's model by its process id."""
    return dict(_models(triton_pid))


def _models(triton_pid: int) -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
            state, parent = rest.split()[:2]
            if name != _NAME or int(parent) != triton_pid or state == "Z":
                continue
            arguments = (folder / "cmdline").read_text().split("\0")
            if len(arguments) > _INSTANCE_PLACE and (match := _INSTANCE.fullmatch(arguments[_INSTANCE_PLACE])):
                yield int(folder.name), match["model"]
