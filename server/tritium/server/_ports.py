"""A server's ports on this machine: choosing them, and asking what listens there."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping
from contextlib import ExitStack

from ._errors import PortInUseError

LOOPBACK = "127.0.0.1"


def says(port: int, what: str, *, timeout_s: float = 5.0) -> bool:
    """Whether Triton on this port says in time that it is `live` or `ready`."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=timeout_s)
    try:
        connection.request("GET", f"/v2/health/{what}")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def listens(port: int) -> bool:
    """Whether anything listens on a port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


def choose_ports(address: str, asked: Mapping[str, int]) -> dict[str, int]:
    """A port for each kind: the one asked for, if it is free, else any that is."""
    with ExitStack() as stack:
        chosen = {}
        # The fixed ones first, so that a free one is none of them; all are held until all are chosen.
        for kind, port in sorted(asked.items(), key=lambda item: item[1] == 0):
            listener = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((address, port))
                listener.listen()
            except OSError as exc:
                raise PortInUseError(kind, port) from exc
            chosen[kind] = listener.getsockname()[1]
        return {kind: chosen[kind] for kind in asked}
