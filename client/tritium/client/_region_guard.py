"""The process that outlives one which used shared memory, and takes away what that left.

Started by `_shared_memory`.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path


def main() -> None:
    """Wait until the other process says that all is done, or ends without a word."""
    task = json.loads(sys.stdin.readline() or "null")
    if task is None or sys.stdin.readline().strip() == "done":
        return
    (Path("/dev/shm") / task["name"]).unlink(missing_ok=True)
    # Only now: hardly ever does it come to this, and the import is what would cost.
    from tritium.client import Client, Tls, TritiumError
    from tritium.client._deadline import Deadline
    from tritium.client._queries import unregister_shared_memory

    tls = Tls(**task["tls"]) if any(task["tls"].values()) else None
    with suppress(TritiumError), Client(task["url"], headers=task["headers"], tls=tls) as client:
        client._send(unregister_shared_memory(task["name"]), Deadline(30.0))


if __name__ == "__main__":
    main()
