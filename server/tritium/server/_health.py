"""Where a supervisor answers: readiness that is true, metrics, and reloads for those who have the secret.

GET  /live                  200 while the supervisor runs
GET  /ready                 200 if every model is ready, else 503; the states of all as JSON
GET  /ready/MODEL           the same of one model; 404 if there is no such model
GET  /metrics               for Prometheus
POST /models/MODEL/reload   load what the repository has now; takes the header `tritium-admin`
"""

from __future__ import annotations

import hmac
import json
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from tritium.client import TritiumError

from ._access import ADMIN_HEADER
from ._states import ModelReport, ModelState, States

_IDLE_S = 10.0


class HealthServer(ThreadingHTTPServer):
    """The supervisor's own port.

    Args:
        address: the interface and the port; 0 takes any free one.
        states: what it reports.
        secret: what a reload takes.
        reload: loads a model again; raises what is wrong with it.
    """

    daemon_threads = True

    def __init__(self, address: tuple[str, int], states: States, *, secret: str, reload: Callable[[str], None]) -> None:
        self.states = states
        self.secret = secret
        self.reload = reload
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent where somebody closed a connection early: that is no error of ours."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: HealthServer
    timeout = _IDLE_S
    server_version = "tritium"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer a question."""
        reports = self.server.states.all()
        match self.path.split("?")[0].strip("/").split("/"):
            case ["live"]:
                self._answer(200, {"live": True})
            case ["ready"]:
                self._ready(reports)
            case ["ready", name] if (model := unquote(name)) in reports:
                self._ready({model: reports[model]})
            case ["ready", name]:
                self._answer(404, {"error": f"There is no model {unquote(name)!r}; there are {', '.join(reports)}"})
            case ["metrics"]:
                self._send(200, "text/plain; version=0.0.4; charset=utf-8", self.server.states.metrics())
            case _:
                self._answer(404, {"error": "There are /live, /ready, /ready/MODEL and /metrics"})

    def do_POST(self) -> None:
        """Reload a model."""
        match self.path.split("/"):
            case ["", "models", name, "reload"]:
                self._reload(unquote(name))
            case _:
                self._answer(404, {"error": "There is /models/MODEL/reload"})

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 — its name in http.server
        """Stay silent: probes come every second."""

    def _reload(self, model: str) -> None:
        given = self.headers.get(ADMIN_HEADER, "")
        if not hmac.compare_digest(given.encode("latin-1"), self.server.secret.encode()):
            self._answer(403, {"error": f"A reload takes the header {ADMIN_HEADER} with this server's secret"})
            return
        try:
            self.server.reload(model)
        except TritiumError as exc:
            self._answer(409, {"error": str(exc), "kind": type(exc).__name__})
        except Exception as exc:  # the repository may be gone, and whoever asked shall know
            self._answer(500, {"error": f"{type(exc).__name__}: {exc}", "kind": type(exc).__name__})
        else:
            self._answer(200, {"model": model})

    def _ready(self, reports: dict[str, ModelReport]) -> None:
        ready = all(report.state is ModelState.READY for report in reports.values())
        models = {name: {"state": report.state.value, "reason": report.reason} for name, report in reports.items()}
        self._answer(200 if ready else 503, {"ready": ready, "models": models})

    def _answer(self, status: int, document: Any) -> None:
        self._send(status, "application/json", json.dumps(document).encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
