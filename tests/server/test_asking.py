"""What another process is told by the supervisor of a running server."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from tritium.server import ModelReport, ModelState, RunningServer, model_report


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers every question with what the test says."""

    body = b""
    asked: list[tuple[str, dict[str, str]]]

    def do_GET(self) -> None:
        self.asked.append((self.path, dict(self.headers)))
        self.send_response(503)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 — its name in http.server
        pass


@pytest.fixture
def answers() -> type[Answers]:
    return type("Answering", (Answers,), {"asked": []})


@pytest.fixture
def running(answers: type[Answers]) -> Iterator[RunningServer]:
    with http.server.HTTPServer(("127.0.0.1", 0), answers) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield told(f"http://127.0.0.1:{listening.server_port}")
        listening.shutdown()


def told(supervisor_url: str | None) -> RunningServer:
    return RunningServer(repository="", http_url="", grpc_url="", secret="s3cret", supervisor_url=supervisor_url)


def test_a_model_s_state_and_reason_are_asked_for_without_the_secret(
    running: RunningServer, answers: type[Answers]
) -> None:
    answers.body = b'{"ready": false, "models": {"a b": {"state": "quarantined", "reason": "it died"}}}'
    assert model_report(running, "a b") == ModelReport(ModelState.QUARANTINED, "it died")
    ((path, headers),) = answers.asked
    assert path == "/ready/a%20b"
    assert "s3cret" not in str(headers)


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": "There is no model"}',
        b"[]",
        b"nothing",
        b'{"models": {"m": "ready"}}',
        b'{"models": {"m": {"state": "odd", "reason": ""}}}',
    ],
)
def test_an_answer_that_says_nothing_of_it_is_none(running: RunningServer, answers: type[Answers], body: bytes) -> None:
    answers.body = body
    assert model_report(running, "m") is None


@pytest.mark.parametrize("url", [None, "http://127.0.0.1:1"])
def test_where_nobody_answers_there_is_none(url: str | None) -> None:
    assert model_report(told(url), "m") is None
