"""Who is asked next, and whether a failure is for good: without any server."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter

import pytest

from tritium.client import (
    AccessDeniedError,
    CallError,
    ConnectFailedError,
    DeadlineExceededError,
    InferenceFailedError,
    ModelNotReadyError,
    ProtocolError,
    RequestRejectedError,
    Retries,
    ServerBusyError,
    ServerError,
)
from tritium.client import _replicas as replicas_module
from tritium.client._deadline import Deadline
from tritium.client._replicas import Attempts, Replicas


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(replicas_module, "time", clock)
    # Chance always takes the longest pause, and spreads nothing.
    monkeypatch.setattr(random, "uniform", lambda low, high: high if low == 0 else 1.0)
    return clock


def unreachable(*, sent: bool = False) -> ConnectFailedError:
    error = ConnectFailedError("nobody there")
    error.sent = sent
    return error


def busy(status: str = "503", after_s: float | None = None) -> ServerBusyError:
    error = ServerBusyError("full", status=status)
    error.retry_after_s = after_s
    return error


def attempts(
    names: str = "a",
    *,
    retries: Retries | None = None,
    timeout_s: float = 30.0,
    repeatable: bool = True,
) -> Attempts[str]:
    replicas = Replicas(list(names), retries or Retries())
    return Attempts(replicas, replicas.next(), Deadline(timeout_s), repeatable=repeatable)


# whose turn it is


def test_servers_are_asked_in_turn() -> None:
    replicas = Replicas(["a", "b", "c"], Retries())
    asked = [replicas.choose().transport for _ in range(9)]
    assert Counter(asked) == {"a": 3, "b": 3, "c": 3}
    assert all(first != second for first, second in itertools.pairwise(asked))


def test_many_threads_share_the_turns_evenly() -> None:
    replicas = Replicas(["a", "b"], Retries())
    asked: list[str] = []

    def ask() -> None:
        asked.extend(replicas.choose().transport for _ in range(500))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(asked) == {"a": 1000, "b": 1000}


def test_server_that_cannot_be_reached_is_left_alone_for_longer_each_time(clock: Clock) -> None:
    replicas = Replicas(["a", "b"], Retries())
    broken = replicas.all[0]
    out_s = []
    for _ in range(9):
        broken.failed(unreachable())
        out_s.append(broken.out_until_s - clock.now_s)
        assert {replicas.choose().transport for _ in range(4)} == {"b"}
        clock.now_s = broken.out_until_s
        assert {replicas.choose().transport for _ in range(4)} == {"a", "b"}
    assert out_s == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_calls_that_were_under_way_together_count_once(clock: Clock) -> None:
    replicas = Replicas(["a", "b"], Retries())
    for _ in range(20):
        replicas.all[0].failed(unreachable())
    assert replicas.all[0].out_until_s == clock.now_s + 0.5


def test_turning_to_another_server_that_is_well_costs_nothing_of_the_budget(clock: Clock) -> None:
    replicas = Replicas(["a", "b"], Retries(budget=0))
    for _ in range(50):
        assert Attempts(replicas, replicas.all[0], Deadline(30)).pause_s(unreachable()) == 0


def test_server_that_answers_again_is_well(clock: Clock) -> None:
    replicas = Replicas(["a", "b"], Retries())
    broken = replicas.all[0]
    broken.failed(unreachable())
    broken.succeeded()
    broken.failed(unreachable())
    assert broken.out_until_s == clock.now_s + 0.5


def test_server_that_is_busy_is_left_alone_after_five_times_in_a_row(clock: Clock) -> None:
    replicas = Replicas(["a", "b"], Retries())
    for _ in range(4):
        replicas.all[0].failed(busy())
    assert replicas.all[0].out_until_s == 0
    replicas.all[0].failed(busy())
    assert replicas.all[0].out_until_s > clock.now_s


@pytest.mark.parametrize("error", [RequestRejectedError("no"), InferenceFailedError("no"), AccessDeniedError("no")])
def test_server_that_refuses_one_request_stays(error: CallError) -> None:
    replicas = Replicas(["a", "b"], Retries())
    for _ in range(20):
        replicas.all[0].failed(error)
    assert replicas.all[0].out_until_s == 0


def test_when_all_are_left_alone_the_one_whose_time_is_up_first_is_asked(clock: Clock) -> None:
    replicas = Replicas(["a", "b"], Retries())
    replicas.all[0].failed(unreachable())
    clock.now_s = replicas.all[0].out_until_s
    replicas.all[0].failed(unreachable())
    replicas.all[1].failed(unreachable())
    assert {replicas.choose().transport for _ in range(4)} == {"b"}
    assert clock.now_s < replicas.all[1].out_until_s


# whether it is tried again


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (unreachable(), True),
        (unreachable(sent=True), True),
        (ProtocolError("garbage"), True),
        (busy("503"), True),
        (busy("UNAVAILABLE"), True),
        (ModelNotReadyError("loading", status="503"), True),
        (ModelNotReadyError("gone", status="404"), False),
        (busy("429"), False),
        (busy("429", after_s=0.1), True),
        (busy("RESOURCE_EXHAUSTED"), False),
        (busy("RESOURCE_EXHAUSTED", after_s=0.1), True),
        (DeadlineExceededError("late"), False),
        (RequestRejectedError("no", status="400"), False),
        (InferenceFailedError("no", status="500"), False),
        (AccessDeniedError("no", status="401"), False),
        (ServerError("bad gateway", status="502"), False),
    ],
    ids=lambda value: getattr(value, "status", None) or type(value).__name__,
)
def test_only_what_does_no_harm_is_tried_again(error: CallError, again: bool) -> None:
    trying = attempts()
    if again:
        trying.pause_s(error)
        assert trying.count == 2
    else:
        assert trying.pause_s(error) is None


@pytest.mark.parametrize("error", [unreachable(sent=True), ProtocolError("garbage")], ids=["broken", "garbage"])
def test_what_may_have_run_is_not_sent_again_where_that_is_forbidden(error: CallError) -> None:
    assert attempts(retries=Retries(resend=False)).pause_s(error) is None
    assert attempts(retries=Retries(resend=False)).pause_s(unreachable()) is not None


@pytest.mark.parametrize("error", [unreachable(), busy()], ids=["unreachable", "busy"])
def test_what_must_not_be_repeated_is_not(error: CallError) -> None:
    assert attempts(repeatable=False).pause_s(error) is None


def test_as_many_tries_are_made_as_are_allowed() -> None:
    trying = attempts(retries=Retries(attempts=4))
    for _ in range(3):
        trying.pause_s(busy())
    assert trying.pause_s(busy()) is None
    assert trying.count == 4


def test_pauses_double_up_to_the_longest(clock: Clock) -> None:
    trying = attempts(retries=Retries(attempts=7, backoff_s=0.1, max_backoff_s=0.5))
    clock.now_s = trying._deadline.ends_s - 30
    assert [trying.pause_s(busy()) for _ in range(6)] == [0.1, 0.2, 0.4, 0.5, 0.5, 0.5]
    assert trying.waited_s == pytest.approx(2.2)


def test_pauses_differ_from_client_to_client() -> None:
    pauses = {attempts(retries=Retries(backoff_s=1.0)).pause_s(busy()) or 0.0 for _ in range(20)}
    assert len(pauses) == 20
    assert all(0 <= pause_s <= 1 for pause_s in pauses)


def test_another_server_is_tried_at_once() -> None:
    trying = attempts("ab")
    first = trying.replica
    assert trying.pause_s(busy()) == 0
    assert trying.replica is not first


def test_the_time_that_the_server_names_is_waited() -> None:
    assert attempts().pause_s(busy("429", after_s=7.0)) == 7.0


def test_no_pause_is_begun_that_would_outlast_the_call() -> None:
    assert attempts(timeout_s=5.0).pause_s(busy("429", after_s=7.0)) is None


def test_budget_runs_dry_and_is_earned_again() -> None:
    replicas = Replicas(["a"], Retries(attempts=100, budget=0.5, backoff_s=1e-6))

    def tries() -> int:
        trying = Attempts(replicas, replicas.next(), Deadline(30))
        while trying.pause_s(busy()) is not None:
            pass
        return trying.count - 1

    assert tries() == 10
    assert tries() == 0
    assert tries() == 1
