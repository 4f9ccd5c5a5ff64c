"""Whether a connection that nobody uses is still of use."""

from __future__ import annotations

import select


class Watch:
    """Looks at a socket without waiting.

    Args:
        descriptor: the socket's.
    """

    __slots__ = ("_descriptor", "_poll")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = None
        if hasattr(select, "poll"):  # not on Windows
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLIN)

    def readable(self) -> bool:
        """Whether there is something to be read, the end included."""
        if self._poll is not None:
            return bool(self._poll.poll(0))
        return bool(select.select([self._descriptor], [], [], 0)[0])
