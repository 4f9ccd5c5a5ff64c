"""What the locustfiles here share: the request that they send, and how many answers they got in a measured time."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import gevent
from locust import events

# The ready-made request: path, headers, body's file, and the model's input by name, datatype and row.
REQUEST: dict[str, Any] = json.loads(os.environ["BENCH_REQUEST"])
BODY = Path(REQUEST["body"]).read_bytes()


class _Count:
    answers = 0
    errors = 0
    began_s = 0.0


def _request(exception: Exception | None, **_: Any) -> None:
    if _Count.began_s:
        _Count.answers += exception is None
        _Count.errors += exception is not None


def _start(environment: Any, **_: Any) -> None:
    def measure() -> None:
        gevent.sleep(REQUEST["settling_s"])
        _Count.began_s = time.perf_counter()
        gevent.sleep(REQUEST["duration_s"])
        seconds = time.perf_counter() - _Count.began_s
        found = {"requests_per_s": _Count.answers / seconds, "errors": _Count.errors}
        Path(REQUEST["result"]).write_text(json.dumps(found), encoding="utf-8")
        environment.runner.quit()

    gevent.spawn(measure)


events.request.add_listener(_request)
events.test_start.add_listener(_start)
