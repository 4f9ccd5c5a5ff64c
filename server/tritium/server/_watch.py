"""What changes in a repository: told by its files' stats, so that nothing is read as long as nothing changes."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tritium.client import TritiumError

from ._server import TritonServer

# Asking S3 costs a listing, and a look at the folder nearly nothing.
_LOOKS_PER_REFRESH = 10

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


class RepositoryWatch:
    """Has what changes in a server's repository taken over, as soon as it holds still.

    Args:
        server: the server.
        take_over: loads a model; it tells of a refusal itself.
        refuse: tells that a model was not brought from S3, and why.
        say: takes a line for people.
    """

    def __init__(
        self,
        server: TritonServer,
        *,
        take_over: Callable[[str], None],
        refuse: Callable[[str, TritiumError], None],
        say: Callable[[str], None],
    ) -> None:
        self._server = server
        self._take_over = take_over
        self._refuse = refuse
        self._say = say
        # How each model was when it was last loaded, or refused; and at the last look.
        self._seen: dict[str, Fingerprint] = {}
        self._before: dict[str, Fingerprint] = {}
        self._looks = itertools.count(1)
        self._source_answered = True

    def start(self) -> None:
        """Remember how everything is before it is loaded for the first time: what changes meanwhile is a change."""
        self._seen = {model: self._fingerprint(model) for model in self._server.models}
        self._before = dict(self._seen)

    @contextmanager
    def loading(self, model: str) -> Iterator[None]:
        """Load a model in the block. Be it refused, it is not tried again before it changes."""
        now = self._fingerprint(model) if model in self._server.repository.models() else Fingerprint()
        try:
            yield
        finally:
            if model in self._watched():
                self._seen[model] = now

    def is_new(self, model: str) -> bool:
        """Whether the repository has something else of a model than what was last loaded, or refused."""
        return self._seen.get(model) != self._fingerprint(model)

    def look(self) -> None:
        """See what changed, and have it taken over."""
        if next(self._looks) % _LOOKS_PER_REFRESH == 0:
            self._refresh()
        now = {model: self._fingerprint(model) for model in self._watched()}
        for model in settled(self._seen, self._before, now):
            if model in now:
                with suppress(TritiumError):
                    self._take_over(model)
            else:
                self._seen.pop(model, None)
                self._say(f"{model} is not in the repository any more; it is served on until Triton starts again")
        self._before = now

    def _refresh(self) -> None:
        """Bring what changed in S3. That it does not answer is said once, as it may last."""
        source, answered = self._server.source, self._source_answered
        try:
            for model, exc in source.refresh(None if self._server.serves_all else self._server.models):
                self._refuse(model, exc)
        except TritiumError as exc:
            self._source_answered = False
            if answered:
                self._say(f"What changes in {source.name} is not known now; what is served goes on: {exc}")
        else:
            self._source_answered = True
            if not answered:
                self._say(f"What changes in {source.name} is known again")

    def _watched(self) -> list[str]:
        """The models in the repository that are served, or may be because all are."""
        there = self._server.repository.models()
        return there if self._server.serves_all else [model for model in there if model in self._server.models]

    def _fingerprint(self, model: str) -> Fingerprint:
        return fingerprint(self._server.repository.path / model)


def _stats(folder: str, prefix: str) -> Iterator[tuple[str, int, int, int]]:
    # What lies there may vanish at any time, which is a change like every other.
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            # Hidden is what is being published, or was retired; bytecode is written by whoever runs a model.
            if entry.name.startswith(".") or entry.name == "__pycache__":
                continue
            # A version may be a link to its folder. Further down a link might lead back up.
            if entry.is_dir(follow_symlinks=not prefix):
                yield f"{prefix}{entry.name}/", 0, 0, 0  # an ensemble's versions are empty
                yield from _stats(entry.path, f"{prefix}{entry.name}/")
                continue
            with suppress(OSError):  # a link that leads nowhere hides no other file
                stat = entry.stat()
                yield f"{prefix}{entry.name}", stat.st_ino, stat.st_mtime_ns, stat.st_size
