"""Whether a connection that nobody uses is still of use."""

from __future__ import annotations

import select
import sys
from typing import Any


def _poll() -> Any:
    """The system's own poll; None where there is none.

    Where gevent has put its own in that place, a look that does not wait would still go through its loop, and take a
    sixth of a call's time.
    """
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("select"):
        return monkey.get_original("select", "poll")()
    return select.poll() if hasattr(select, "poll") else None  # not on Windows


class Watch:
    """Looks at a socket without waiting.

    Args:
        descriptor: the socket's.
    """

    __slots__ = ("_descriptor", "_poll")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = _poll()
        if self._poll is not None:
            self._poll.register(descriptor, select.POLLIN)

    def readable(self) -> bool:
        """Whether there is something to be read, the end included."""
        if self._poll is not None:
            return bool(self._poll.poll(0))
        return bool(select.select([self._descriptor], [], [], 0)[0])
