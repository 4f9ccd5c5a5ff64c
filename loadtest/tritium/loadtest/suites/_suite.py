"""What every suite adds to Locust: its options, and a result with exact percentiles."""

from __future__ import annotations

import time
from array import array
from collections import Counter
from pathlib import Path
from typing import Any

from locust import events

from tritium.loadtest._result import LoadResult, percentile_ms
from tritium.loadtest.users import TritonUser, WrongAnswerError


class Recorder:
    """Keeps every latency of a run: Locust's own statistics round to a millisecond."""

    def __init__(self) -> None:
        self._latencies_ms = array("d")
        self._errors: Counter[str] = Counter()
        self._failures = 0
        self._wrong = 0
        self._first_s = float("inf")
        self._last_s = 0.0

    def on_request(self, *, response_time: float, exception: Exception | None, **_: Any) -> None:
        """Take note of a request that has just ended."""
        ended_s = time.perf_counter()
        self._first_s = min(self._first_s, ended_s - response_time / 1000)
        self._last_s = ended_s
        if exception is None:
            self._latencies_ms.append(response_time)
            return
        self._failures += 1
        self._wrong += isinstance(exception, WrongAnswerError)
        self._errors[f"{type(exception).__name__}: {str(exception).partition(chr(10))[0]}"] += 1

    def result(self, suite: str, url: str, users: int) -> LoadResult:
        """What was measured."""
        requests = len(self._latencies_ms) + self._failures
        return LoadResult(
            suite=suite,
            url=url,
            users=users,
            duration_s=self._last_s - self._first_s if requests else 0.0,
            requests=requests,
            failures=self._failures,
            wrong=self._wrong,
            p50_ms=percentile_ms(self._latencies_ms, 50),
            p99_ms=percentile_ms(self._latencies_ms, 99),
            errors=dict(self._errors.most_common(20)),
        )


def register(suite: str, user_classes: tuple[type[TritonUser], ...]) -> None:
    """Give a locustfile its options and its recorder."""
    recorder = Recorder()

    def add_options(parser: Any) -> None:
        group = parser.add_argument_group("Tritium")
        group.add_argument("--repository", default="model_repository", help="model repository with the golden cases")
        group.add_argument("--models", nargs="*", default=[], help="models to send to; all by default")
        group.add_argument("--result", default="", help="write the result to this file, as JSON")

    def start(environment: Any, **_: Any) -> None:
        for user_class in user_classes:
            user_class.repository = environment.parsed_options.repository
            user_class.models = tuple(environment.parsed_options.models)
        environment.events.request.add_listener(recorder.on_request)

    def finish(environment: Any, **_: Any) -> None:
        options = environment.parsed_options
        if options.result:
            recorder.result(suite, environment.host, options.num_users).save(Path(options.result))

    events.init_command_line_parser.add_listener(add_options)
    events.init.add_listener(start)
    events.quitting.add_listener(finish)
