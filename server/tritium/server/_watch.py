"""What changes in a repository: told by its files' stats, so that nothing is read as long as nothing changes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

# Of each file of a model, by its path below the model's folder: the inode, the time of the last change, the size.
Fingerprint = frozenset[tuple[str, int, int, int]]


def fingerprint(folder: Path) -> Fingerprint:
    """Another value as soon as a file in a model's folder is another; empty if there is none.

    Every file counts, not only the manifests: versions that are copied by hand grow under the watcher's eyes.
    """
    return frozenset(_stats(str(folder), ""))


def settled(
    seen: Mapping[str, Fingerprint], before: Mapping[str, Fingerprint], now: Mapping[str, Fingerprint]
) -> list[str]:
    """The models that changed since they were seen, and hold still: the last two looks gave the same; sorted."""
    return sorted(
        model
        for model in now.keys() | seen.keys()
        if now.get(model) != seen.get(model) and now.get(model) == before.get(model)
    )


def _stats(folder: str, prefix: str) -> Iterator[tuple[str, int, int, int]]:
    # What lies there may vanish at any time, which is a change like every other.
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            # Hidden is what is being published, or was retired; bytecode is written by whoever runs a model.
            if entry.name.startswith(".") or entry.name == "__pycache__":
                continue
            if entry.is_dir():
                yield f"{prefix}{entry.name}/", 0, 0, 0  # an ensemble's versions are empty
                yield from _stats(entry.path, f"{prefix}{entry.name}/")
            else:
                stat = entry.stat()
                yield f"{prefix}{entry.name}", stat.st_ino, stat.st_mtime_ns, stat.st_size
