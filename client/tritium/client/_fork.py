"""What must not go on as it is in a process that was forked."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """Something that holds locks, sockets or threads of the process that made it."""

    def after_fork(self) -> None:
        """In the new process: let go of what is the other one's."""


_KNOWN: weakref.WeakSet[Forkable] = weakref.WeakSet()


def renew_after_fork(thing: Forkable) -> None:
    """Have a thing told of a fork, for as long as it is there."""
    _KNOWN.add(thing)


def _after_fork() -> None:
    for thing in list(_KNOWN):
        thing.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
