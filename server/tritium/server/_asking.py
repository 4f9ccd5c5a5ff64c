"""Asking the supervisor of a running server, which is in another process of the same user."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from ._access import ADMIN_HEADER
from ._errors import ReloadError
from ._runs import RunningServer
from ._states import ModelReport, ModelState


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
    try:
        path, headers = f"/models/{quote(model, safe='')}/reload", {ADMIN_HEADER: server.secret}
        status, answer = _asked(server.supervisor_url, "POST", path, timeout_s, headers)
    except (OSError, http.client.HTTPException, ValueError) as exc:
        raise ReloadError(f"The supervisor of {server.http_url} did not answer: {exc}") from exc
    if status != 200:
        raise ReloadError(f"{server.http_url} did not reload {model!r}: {answer.get('error', status)}")


def model_report(server: RunningServer, model: str, *, timeout_s: float = 5.0) -> ModelReport | None:
    """What the supervisor of a running server says of a model.

    Args:
        server: one of `running_servers`.
        model: the model's name.
        timeout_s: seconds that it has to answer.

    Returns:
        The model's state and the reason; None if there is no supervisor, or it does not answer or know the model.
    """
    if server.supervisor_url is None:
        return None
    try:
        _, answer = _asked(server.supervisor_url, "GET", f"/ready/{quote(model, safe='')}", timeout_s, {})
        found = answer["models"][model]
        return ModelReport(ModelState(found["state"]), found["reason"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None


def _asked(
    url: str, method: str, path: str, timeout_s: float, headers: Mapping[str, str]
) -> tuple[int, dict[str, Any]]:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=timeout_s)
    try:
        connection.request(method, path, headers=dict(headers))
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()
