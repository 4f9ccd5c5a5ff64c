"""The backend processes below a Triton, as /proc shows them: one for each instance of a Python-based model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

# Linux keeps fifteen characters of a program's name.
_NAME = "triton_python_b"
# A backend process's first argument is the file that it serves, as in `…/digits_cnn/1/model.onnx`. Its instance's name
# does not tell the model: that is made from the instance group's, which a config may choose.
_SERVED = re.compile(r".*/(?P<model>[^/]+)/\d+/.+", re.DOTALL)


def live_stubs(triton_pid: int) -> Counter[str]:
    """How many backend processes each model has that are running."""
    return Counter(stubs(triton_pid).values())


def stubs(triton_pid: int) -> dict[int, str]:
    """The backend processes that are running: each one's model by its process id."""
    return dict(_models(triton_pid))


def wanted_stubs(config: Mapping[str, Any], versions: int) -> int:
    """How many backend processes a Python-based model must have, by its config as Triton reports it."""
    groups = config["instance_group"]
    return versions * sum(int(group.get("count", 1)) * max(1, len(group.get("gpus", ()))) for group in groups)


def _models(triton_pid: int) -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            # Any program on this machine may have a name that is no UTF-8.
            name, _, rest = (folder / "stat").read_text(errors="replace").partition("(")[2].rpartition(")")
            state, parent = rest.split()[:2]
            if name != _NAME or int(parent) != triton_pid or state == "Z":
                continue
            arguments = (folder / "cmdline").read_text(errors="replace").split("\0")
            if len(arguments) > 1 and (match := _SERVED.fullmatch(arguments[1])):
                yield int(folder.name), match["model"]
