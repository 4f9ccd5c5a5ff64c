"""Asking the supervisor of a running server, in another process of the same user, to load a model again."""

from __future__ import annotations

import http.client
import json
from urllib.parse import quote, urlsplit

from ._access import ADMIN_HEADER
from ._errors import ReloadError
from ._runs import RunningServer


def reload_model(server: RunningServer, model: str, *, timeout_s: float = 300.0) -> None:
    """Have a running server load what its repository has of a model now.

    Args:
        server: one of `running_servers`.
        model: the model's name.
        timeout_s: seconds that loading may take.

    Raises:
        ReloadError: it does not load, or the server does not answer; what was served, if anything, goes on.
    """
    if server.supervisor_url is None:
        raise ReloadError(f"The server at {server.http_url} has no supervisor; load {model!r} with its client")
    address = urlsplit(server.supervisor_url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=timeout_s)
    try:
        connection.request("POST", f"/models/{quote(model, safe='')}/reload", headers={ADMIN_HEADER: server.secret})
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as exc:
        raise ReloadError(f"The supervisor of {server.http_url} did not answer: {exc}") from exc
    finally:
        connection.close()
    if response.status != 200:
        raise ReloadError(f"{server.http_url} did not reload {model!r}: {answer.get('error', response.reason)}")
