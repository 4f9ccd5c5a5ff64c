"""When a call is made again, and by which replica, behind a proxy with faults."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tritium.client import (
    AsyncClient,
    Client,
    ProtocolError,
    Retries,
    ServerBusyError,
    ServerError,
    TransportError,
    TritiumError,
)
from tritium.server import TritonServer

from .asking import Ask, Outcome, errors, own_input, wait_until
from .faulty_proxy import FAULTS, PASS, Changing, Fault, FaultyProxy, refusal, setter, upcoming

NEVER = Retries(attempts=1)


# when a call is made again


def _tries(echo_server: TritonServer, ask: Ask, fault: Fault, **options: Any) -> tuple[Outcome, int]:
    """What becomes of a call that meets this fault whenever it is tried, and how often it is."""
    plan = Changing()
    with FaultyProxy(echo_server.http_url, plan) as proxy:
        (outcome,) = ask(proxy.url, once_warm=setter(plan, fault), **options)
    return outcome, proxy.done[fault]


@pytest.mark.parametrize(
    ("name", "error"),
    [("unavailable", ServerBusyError), ("reset_before", TransportError), ("noise", ProtocolError)],
)
def test_one_attempt_fails_at_once(name: str, error: type[TritiumError], echo_server: TritonServer, ask: Ask) -> None:
    outcome, tries = _tries(echo_server, ask, FAULTS[name], retries=NEVER)
    assert isinstance(outcome.error, error)
    assert tries == 1


@pytest.mark.parametrize("attempts", [2, 5])
def test_call_is_tried_so_often_and_no_more(attempts: int, echo_server: TritonServer, ask: Ask) -> None:
    retries = Retries(attempts=attempts, backoff_s=0.001)
    outcome, tries = _tries(echo_server, ask, FAULTS["unavailable"], retries=retries)
    assert isinstance(outcome.error, ServerBusyError)
    assert outcome.error.status == "503"
    assert tries == attempts


def test_refusal_that_names_no_time_is_not_repeated(echo_server: TritonServer, ask: Ask) -> None:
    outcome, tries = _tries(echo_server, ask, refusal("429 Too Many Requests"))
    assert isinstance(outcome.error, ServerBusyError)
    assert tries == 1


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
def test_wait_that_the_server_asks_for_is_kept(status: str, echo_server: TritonServer, ask: Ask) -> None:
    coming = list[Fault]()
    with FaultyProxy(echo_server.http_url, upcoming(coming)) as proxy:
        (outcome,) = ask(proxy.url, once_warm=lambda: coming.append(refusal(status, retry_after="1")))
    assert outcome.error is None
    assert 1 <= outcome.took_s < 2
    assert proxy.done[refusal(status, retry_after="1")] == 1


def test_wait_that_would_outlast_the_call_is_not_begun(echo_server: TritonServer, ask: Ask) -> None:
    outcome, tries = _tries(echo_server, ask, refusal("429 Too Many Requests", retry_after="60"), timeout_s=5)
    assert isinstance(outcome.error, ServerBusyError)
    assert outcome.took_s < 2
    assert tries == 1


@pytest.mark.parametrize(
    "status", ["400 Bad Request", "401 Unauthorized", "404 Not Found", "500 Internal Server Error"]
)
def test_answer_that_would_be_the_same_again_is_not_repeated(status: str, echo_server: TritonServer, ask: Ask) -> None:
    coming = list[Fault]()
    with FaultyProxy(echo_server.http_url, upcoming(coming)) as proxy:
        # The client may look for the reason, but another try would succeed.
        (outcome,) = ask(proxy.url, once_warm=lambda: coming.append(refusal(status)))
    assert isinstance(outcome.error, ServerError)
    assert outcome.error.status == status[:3]


def test_request_that_may_have_run_is_not_sent_again_where_that_is_not_wanted(
    echo_server: TritonServer, ask: Ask
) -> None:
    outcome, tries = _tries(echo_server, ask, FAULTS["reset_in_header"], retries=Retries(resend=False))
    assert isinstance(outcome.error, TransportError)
    assert tries == 1


def test_request_that_did_not_run_is_sent_again_even_so(echo_server: TritonServer, ask: Ask) -> None:
    outcome, tries = _tries(echo_server, ask, FAULTS["unavailable"], retries=Retries(attempts=3, resend=False))
    assert isinstance(outcome.error, ServerBusyError)
    assert tries == 3


def test_retry_budget_runs_dry(echo_server: TritonServer, ask: Ask) -> None:
    plan, calls = Changing(), 20
    with FaultyProxy(echo_server.http_url, plan) as proxy:
        outcomes = ask(
            proxy.url,
            calls,
            retries=Retries(attempts=3, backoff_s=0.001, budget=0),
            once_warm=setter(plan, FAULTS["unavailable"]),
        )
    assert len(errors(outcomes)) == calls
    assert proxy.done[FAULTS["unavailable"]] == calls + 10


@pytest.mark.parametrize("name", ["unavailable", "reset_before", "reset_at_connect"])
def test_request_of_a_sequence_is_never_repeated(name: str, echo_server: TritonServer) -> None:
    plan = Changing()
    with FaultyProxy(echo_server.http_url, plan) as proxy, Client(proxy.url) as client:
        model = client.model("echo")
        model(own_input(0))
        plan.fault = FAULTS[name]
        with pytest.raises((ServerBusyError, TransportError)), model.sequence() as sequence:
            sequence(own_input(1))
    assert proxy.done[FAULTS[name]] == 1


@pytest.mark.parametrize("name", ["unavailable", "reset_before", "reset_at_connect"])
def test_request_of_an_async_sequence_is_never_repeated(name: str, echo_server: TritonServer) -> None:
    plan = Changing()

    async def run() -> None:
        async with AsyncClient(proxy.url) as client:
            model = client.model("echo")
            await model(own_input(0))
            plan.fault = FAULTS[name]
            async with model.sequence() as sequence:
                await sequence(own_input(1))

    with FaultyProxy(echo_server.http_url, plan) as proxy, pytest.raises((ServerBusyError, TransportError)):
        asyncio.run(run())
    assert proxy.done[FAULTS[name]] == 1


def test_load_is_never_repeated(echo_server: TritonServer) -> None:
    with (
        FaultyProxy(echo_server.http_url, Changing(FAULTS["unavailable"])) as proxy,
        Client(proxy.url) as client,
        pytest.raises(ServerBusyError),
    ):
        client.load("spare")
    assert proxy.done[FAULTS["unavailable"]] == 1


# replicas


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("name", ["reset_at_connect", "reset_before"])
def test_replica_that_fails_is_left_alone_and_comes_back(name: str, protocol: str, echo_server: TritonServer) -> None:
    plan, url = Changing(FAULTS[name]), echo_server.http_url if protocol == "http" else echo_server.grpc_url
    with FaultyProxy(url, plan) as proxy, Client([proxy.url, url]) as client:
        model = client.model("echo")
        for number in range(100):
            np.testing.assert_array_equal(model(own_input(number)), own_input(number))
        assert 1 <= proxy.done[FAULTS[name]] < 10
        plan.fault = PASS

        def asked_again() -> bool:
            model(own_input(0))
            return proxy.done[PASS] > 0

        wait_until(asked_again, within_s=30)


def test_replica_that_failed_many_calls_at_once_is_left_alone_no_longer_for_it(echo_server: TritonServer) -> None:
    plan, url = Changing(Fault(cut_after=0, end="RST", delay_s=0.05)), echo_server.http_url
    with FaultyProxy(url, plan) as proxy, Client([proxy.url, url]) as client, ThreadPoolExecutor(8) as pool:
        model = client.model("echo")
        list(pool.map(lambda number: model(own_input(number)), range(16)))
        plan.fault = PASS

        def asked_again() -> bool:
            model(own_input(0))
            return proxy.done[PASS] > 0

        wait_until(asked_again, within_s=3)


def test_replica_that_is_left_alone_is_asked_where_the_other_one_fails(echo_server: TritonServer, ask: Ask) -> None:
    url, plans = echo_server.http_url, (Changing(FAULTS["reset_at_connect"]), Changing())
    with FaultyProxy(url, plans[0]) as first, FaultyProxy(url, plans[1]) as second:

        def calls() -> Iterator[int]:
            numbers = itertools.count()
            # Long enough for it to be left alone for longer than one that fails for the first time.
            while first.done[FAULTS["reset_at_connect"]] < 3:
                threading.Event().wait(0.001)
                yield next(numbers)
            plans[0].fault, plans[1].fault = PASS, FAULTS["reset_before"]
            yield from itertools.islice(numbers, 5)

        assert not errors(ask([first.url, second.url], calls()))
    assert second.done[FAULTS["reset_before"]] > 0


def test_calls_go_to_each_replica_in_turn(echo_server: TritonServer, ask: Ask) -> None:
    url = echo_server.http_url
    with FaultyProxy(url) as first, FaultyProxy(url) as second:
        assert not errors(ask([first.url, second.url], 100))
    assert min(first.done[PASS], second.done[PASS]) >= 45


def test_only_replica_is_asked_however_often_it_failed(echo_server: TritonServer, ask: Ask) -> None:
    plan = Changing()
    with FaultyProxy(echo_server.http_url, plan) as proxy:

        def calls() -> Iterator[int]:
            plan.fault = FAULTS["reset_before"]
            yield from range(15)
            plan.fault = PASS
            yield from range(15, 25)

        outcomes = ask(proxy.url, calls(), retries=NEVER, once_warm=lambda: None)
    # It is all there is: not asking it would only turn one error into another.
    assert [outcome.error is None for outcome in outcomes] == [False] * 15 + [True] * 10
