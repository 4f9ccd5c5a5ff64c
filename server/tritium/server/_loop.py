"""Doing something again and again, whatever becomes of it."""

from __future__ import annotations

import threading
from collections.abc import Callable


def keep_doing(
    step: Callable[[], None], *, every_s: float, stopping: threading.Event, complain: Callable[[str], None]
) -> None:
    """Do something every few seconds until it shall stop; an error is told once for as long as it stays the same."""
    told = ""
    while not stopping.wait(every_s):
        try:
            step()
        except Exception as exc:
            if stopping.is_set():
                return
            trouble = f"{type(exc).__name__}: {exc}"
            if trouble != told:
                complain(trouble)
            told = trouble
        else:
            told = ""
