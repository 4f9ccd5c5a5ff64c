"""What every suite adds to Locust: its options, the plan that its users follow, and a record of every request."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from locust import events
from locust.runners import MasterRunner, WorkerRunner

from tritium.client import Retries
from tritium.loadtest._pace import Pace
from tritium.loadtest._plan import Plan
from tritium.loadtest._requests import Outcome, Recorder, Requests
from tritium.loadtest._suites import SUITES, Wish
from tritium.loadtest.users import TritonUser

# What Locust's reports between processes carry beside its own statistics.
_KEY = "tritium"
# Messages between a master and its workers: the run is over, and whether the last answers are waited for; all that was
# recorded since the last report.
_END, _LAST = "tritium-end", "tritium-last"
# How long the last requests may take, beyond what each may.
_LAST_S = 10.0
# How long workers may take to tell what they have when Ctrl-C ends the run.
_CUT_S = 5.0
_NOT_SENT = "never sent: until the end every user was busy with requests that were due before"


class _Conductor:
    """One of the processes of a run: alone, the master, or a worker."""

    def __init__(self, suite: str, user_classes: tuple[type[TritonUser], ...]) -> None:
        self._suite = suite
        self._user_classes = user_classes
        self._recorder = Recorder()
        self._parts: list[dict[str, Any]] = []
        self._reported = 0
        self._hindered = 0
        self._over = False
        self._began_s = 0.0
        self._pace: Pace | None = None

    def start(self, environment: Any, **_: Any) -> None:
        """Locust is there, and has read its options; a worker gets its master's with the first order."""
        self._environment = environment
        # A worker of another machine has the repository elsewhere; what its master says comes over its own options.
        self._repository_here = environment.parsed_options.repository
        if isinstance(environment.runner, WorkerRunner):
            environment.events.report_to_master.add_listener(self._tell)
            environment.runner.register_message(_END, self._report, concurrent=True)
        elif isinstance(environment.runner, MasterRunner):
            environment.events.worker_report.add_listener(self._hear)
            environment.runner.register_message(_LAST, self._hear_last)
            # Listeners of this are called from the last to the first, and Locust's own lets all workers go.
            environment.events.quitting.add_listener(self._cut)
        environment.events.test_start.add_listener(self._prepare)
        environment.events.spawning_complete.add_listener(self._begin)

    def _prepare(self, **_: Any) -> None:
        """All options are known: tell the users what to send, and when."""
        options, runner = self._environment.parsed_options, self._environment.runner
        wish = Wish(users=options.num_users or None, models=tuple(options.models))
        plan = Plan.from_json(options.plan) if options.plan else Plan(SUITES[self._suite].stages(wish))
        # Workers are told by their master which of them they are.
        process = max(runner.worker_index, 0) if isinstance(runner, WorkerRunner) else 0
        processes = options.worker_count if isinstance(runner, WorkerRunner) else 1
        self._pace = Pace(plan, process=process, processes=processes, sleep=gevent.sleep, seed=options.seed)
        for user_class in self._user_classes:
            user_class.repository = self._repository_here or options.repository or "model_repository"
            user_class.models = tuple(options.models)
            user_class.weights = json.loads(options.weights)
            user_class.timeout_s = options.timeout
            if options.retry:
                user_class.retries = Retries()
            user_class.pace = self._pace
            user_class.recorder = self._recorder
            user_class.seed = f"{options.seed}/{process}"
            user_class.hindered = ""

    def _begin(self, **_: Any) -> None:
        """All users are up: now the plan's time begins, and where the run is conducted it ends by the plan."""
        if self._pace is None or self._began_s:
            return
        self._pace.begin()
        self._began_s = time.time()
        if not isinstance(self._environment.runner, WorkerRunner):
            gevent.spawn_later(self._pace.plan.duration_s, self._end)

    def _end(self) -> None:
        """The plan is over: have the last requests answered and reported, and go."""
        patience_s = self._environment.parsed_options.timeout + _LAST_S
        if isinstance(self._environment.runner, MasterRunner):
            self._gather(patience_s, wait=True)
        else:
            self._wait_for_answers(patience_s)
        self._over = True
        self._environment.runner.quit()

    def _cut(self, **_: Any) -> None:
        """Locust ends, on the master; before the plan does if it was Ctrl-C."""
        if not self._over:
            self._gather(_CUT_S, wait=False)

    def _gather(self, patience_s: float, *, wait: bool) -> None:
        """Have all workers report what they have; one that is gone is not waited for."""
        runner = self._environment.runner
        runner.send_message(_END, {"wait": wait})
        _wait_until(lambda: self._reported >= runner.worker_count, patience_s)

    def _wait_for_answers(self, patience_s: float) -> None:
        _wait_until(lambda: self._pace is None or not self._pace.under_way, patience_s)

    def _report(self, *, msg: Any, **_: Any) -> None:
        """On a worker, in a greenlet of its own: the run is over."""
        if msg.data["wait"]:
            self._wait_for_answers(self._environment.parsed_options.timeout + _LAST_S)
        self._note_what_was_never_sent()
        self._environment.runner.send_message(
            _LAST, {"hindered": self._users_were_hindered(), "part": self._recorder.take()}
        )

    def _users_were_hindered(self) -> bool:
        return any(user_class.hindered for user_class in self._user_classes)

    def _hear_last(self, *, msg: Any, **_: Any) -> None:
        self._parts.append(msg.data["part"])
        self._hindered += msg.data["hindered"]
        self._reported += 1

    def _tell(self, *, data: dict[str, Any], **_: Any) -> None:
        data[_KEY] = self._recorder.take()

    def _note_what_was_never_sent(self) -> None:
        pace = self._pace
        if pace is None:
            return
        until_s = min(pace.elapsed_s, pace.plan.duration_s)
        for due_s in pace.never_sent():
            stage = pace.plan.stages[pace.plan.index_at(due_s)]
            model = self._user_classes[0].next_model(stage)
            late_ms = (until_s - due_s) * 1000
            self._recorder.add(model, Outcome.FAILED, due_s=due_s, latency_ms=late_ms, late_ms=late_ms, error=_NOT_SENT)

    def _hear(self, *, data: dict[str, Any], **_: Any) -> None:
        if _KEY in data:
            self._parts.append(data[_KEY])

    def finish(self, **_: Any) -> None:
        """Locust ends: write down what was recorded, where it is conducted from."""
        options = self._environment.parsed_options
        if not options.result or isinstance(self._environment.runner, WorkerRunner):
            return
        if isinstance(self._environment.runner, MasterRunner):
            lost = options.worker_count - self._reported + self._hindered
        else:
            self._note_what_was_never_sent()
            lost = int(self._users_were_hindered())
        requests = Requests.merged([*self._parts, self._recorder.take()], began_s=self._began_s, lost_workers=lost)
        aside = Path(f"{options.result}.partial.npz")
        requests.save(aside)
        aside.replace(options.result)


def _wait_until(done: Callable[[], bool], patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while not done() and time.monotonic() < deadline:
        gevent.sleep(0.02)


def register(suite: str, *user_classes: type[TritonUser]) -> None:
    """Give a locustfile its options, its plan and its record."""
    conductor = _Conductor(suite, user_classes)

    def add_options(parser: Any) -> None:
        group = parser.add_argument_group("Tritium")
        group.add_argument(
            "--repository", default="", help="model repository with the golden cases: ./model_repository"
        )
        group.add_argument("--models", nargs="*", default=[], help="models to send to; all by default")
        group.add_argument("--weights", default="{}", help="how often each model comes, as JSON; in turn by default")
        group.add_argument("--plan", default="", help="the stages, as JSON; the suite's own by default")
        group.add_argument("--timeout", type=float, default=30.0, help="seconds that a request may take")
        group.add_argument("--retry", action="store_true", help="send again what may be, as the client does by itself")
        group.add_argument("--worker-count", type=int, default=1, help="processes that send, of a distributed run")
        group.add_argument("--seed", type=int, default=0, help="decides when the requests of an open loop are due")
        group.add_argument("--result", default="", help="write every request to this file, as numpy's .npz")

    events.init_command_line_parser.add_listener(add_options)
    events.init.add_listener(conductor.start)
    events.quitting.add_listener(conductor.finish)
