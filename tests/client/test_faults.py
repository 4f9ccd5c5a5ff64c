"""Faults on the way to a real server: calls succeed where a replica is up, end in time, and never mix answers up."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tritium.client import (
    AsyncClient,
    Client,
    ConnectFailedError,
    DeadlineExceededError,
    Limits,
    ProtocolError,
    Retries,
    ServerBusyError,
    TransportError,
)
from tritium.server import TritonServer

from .asking import Ask, Outcome, errors, own_input, wait_until
from .faulty_proxy import FAULTS, PASS, Changing, Fault, FaultyProxy, noise, now_and_then, setter, upcoming

NEVER = Retries(attempts=1)

# From which a call can be saved. What is asked about a model has no id: there, the answer before cannot be told from
# the right one. Over gRPC a fault is one connection's, and counts the bytes of all its answers.
SURVIVABLE = {
    "http": {
        name: fault
        for name, fault in FAULTS.items()
        if name not in ("silence", "silence_in_body", "dribble", "response_before")
    },
    "grpc": {
        "delay": FAULTS["delay"],
        "split": FAULTS["split"],
        "reset_at_connect": FAULTS["reset_at_connect"],
        "noise": FAULTS["noise"],
        **{f"reset_after_{count}": Fault(cut_after=count, end="RST") for count in (0, 20, 700, 3000)},
        **{f"fin_after_{count}": Fault(cut_after=count, end="FIN") for count in (0, 20, 700, 3000)},
        "noise_after_an_answer": Fault(rewrite=lambda data, before: data + noise(50) if before else data),
    },
}
# In which an answer could be taken for that of another request.
CONFUSING = ("duplicate", "duplicate_bytewise", "noise_after", "other_id", "response_before", "short_length")


@pytest.fixture(params=["http", "grpc"])
def protocol(request: pytest.FixtureRequest) -> str:
    """Each protocol."""
    return str(request.param)


@pytest.fixture
def url(protocol: str, echo_server: TritonServer) -> str:
    """Where the server itself is, over that protocol."""
    return echo_server.http_url if protocol == "http" else echo_server.grpc_url


@pytest.fixture
def full_address() -> Iterator[str]:
    """An address at which connections are not even refused: as many wait already as may."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, socket.socket() as waiting:
        waiting.connect(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"


# while a replica is up, no call fails


@pytest.mark.parametrize(("protocol", "name"), [(p, name) for p, faults in SURVIVABLE.items() for name in faults])
def test_no_call_fails_where_one_of_two_replicas_always_has_a_fault(
    protocol: str, name: str, url: str, ask: Ask
) -> None:
    fault = SURVIVABLE[protocol][name]
    with FaultyProxy(url, Changing(fault)) as proxy:
        assert not errors(ask([proxy.url, url], 40, workers=4))
    assert proxy.done[fault] > 0


@pytest.mark.parametrize("seed", [1, 2])
def test_no_call_fails_where_one_of_two_replicas_has_all_faults_by_turns(
    seed: int, protocol: str, url: str, ask: Ask
) -> None:
    faults = list(SURVIVABLE[protocol].values())
    with FaultyProxy(url, now_and_then(faults, share=0.7, seed=seed)) as proxy:
        # Clients that know nothing yet of the one that fails, and so keep going there.
        for _ in range(16):
            assert not errors(ask([url, proxy.url], 25, workers=8))
    assert sum(proxy.done[fault] for fault in faults) > 7


def test_no_call_fails_where_two_replicas_are_down_one_after_the_other(protocol: str, url: str, ask: Ask) -> None:
    down, plans = FAULTS["reset_at_connect"], (Changing(), Changing())
    with FaultyProxy(url, plans[0]) as first, FaultyProxy(url, plans[1]) as second:

        def calls() -> Iterator[int]:
            numbers = itertools.count()
            for proxy, plan in zip((first, second), plans, strict=True):
                plan.fault = down
                proxy.break_connections()
                yield from itertools.islice(numbers, 50)
                passed, plan.fault = proxy.done[PASS], PASS
                more = 50
                while more:  # until the client has asked it again, and gRPC has noticed that it got a connection
                    more -= proxy.done[PASS] > passed
                    threading.Event().wait(0.001)
                    number = next(numbers)
                    assert number < 20_000, "the replica that was down is never asked again"
                    yield number

        assert not errors(ask([first.url, second.url], calls(), workers=6))
    assert first.done[down] > 0


def test_no_call_fails_where_one_of_two_replicas_breaks_off_very_many_calls_at_once(
    echo_server: TritonServer, ask: Ask
) -> None:
    fault, url, plan = Fault(cut_after=0, end="RST", delay_s=0.3), echo_server.http_url, Changing()
    with FaultyProxy(url, plan) as proxy:
        assert not errors(ask([proxy.url, url], 300, workers=40, once_warm=setter(plan, fault)))
    assert proxy.done[fault] > 20


@pytest.mark.parametrize("name", ["unavailable", "reset_before"])
def test_no_call_fails_through_a_burst_that_ends_within_the_tries(
    name: str, echo_server: TritonServer, ask: Ask
) -> None:
    fault, coming = FAULTS[name], list[Fault]()
    with FaultyProxy(echo_server.http_url, upcoming(coming)) as proxy:
        outcomes = ask(proxy.url, 20, once_warm=lambda: coming.extend([fault, fault] + [PASS] * 5 + [fault, fault]))
    assert not errors(outcomes)
    assert proxy.done[fault] == 4


@pytest.mark.parametrize("name", ["reset_after", "fin_after"])
def test_connection_that_the_server_ends_between_calls_is_replaced_before_the_next(
    name: str, echo_server: TritonServer, ask: Ask
) -> None:
    # That is the commonest fault of all. It costs no retry, as a sequence for example has none.
    plan = Changing()
    with FaultyProxy(echo_server.http_url, plan) as proxy:

        def calls() -> Iterator[int]:
            for number in range(20):
                yield number
                wait_until(lambda: proxy.ended == proxy.connections)

        assert not errors(ask(proxy.url, calls(), retries=NEVER, once_warm=setter(plan, FAULTS[name])))


def test_connection_that_takes_long_to_be_made_is_waited_for(protocol: str, url: str, ask: Ask) -> None:
    # As far away, or over TLS. A gRPC connection is made when the server's first words have come.
    with FaultyProxy(url, [Fault(delay_s=0.25)]) as proxy:
        assert not errors(ask(proxy.url, retries=NEVER))


def test_bulk_has_every_row_in_its_place_where_a_replica_has_faults(protocol: str, url: str) -> None:
    rows = np.arange(1000).reshape(-1, 1)
    faults = list(SURVIVABLE[protocol].values())
    with (
        FaultyProxy(url, now_and_then(faults, share=0.5, seed=4)) as proxy,
        Client([proxy.url, url]) as client,
    ):
        result = client.model("echo").predict(rows, in_flight=8)
    np.testing.assert_array_equal(result, rows)


# deadlines

# How a server can be late.
LATE = {
    "http": {name: FAULTS[name] for name in ("silence", "silence_in_body", "dribble")},
    "grpc": {"silence": FAULTS["silence"], "late": Fault(delay_s=2), "dribble": FAULTS["dribble"]},
}


def _in_time(run: Callable[[], list[Outcome]], timeout_s: float) -> list[Outcome]:
    """What a run gives, of which no call ends late.

    A busy machine is late by itself now and then, a client that does not keep deadlines every time.
    """
    for _ in range(3):
        outcomes = run()
        latest_s = max(outcome.took_s for outcome in outcomes)
        if latest_s <= 1.05 * timeout_s + 0.05:
            return outcomes
    pytest.fail(f"a call with {timeout_s} s took {latest_s} s")


def _assert_on_time(run: Callable[[], list[Outcome]], timeout_s: float, at_least: int = 1) -> None:
    """That calls ended for their deadline, at least so many, neither early nor late."""
    over = [outcome for outcome in _in_time(run, timeout_s) if outcome.error is not None]
    assert len(over) >= at_least
    assert {type(outcome.error) for outcome in over} == {DeadlineExceededError}
    assert min(outcome.took_s for outcome in over) >= 0.95 * timeout_s


@pytest.mark.parametrize("timeout_s", [0.1, 0.3])
@pytest.mark.parametrize(("protocol", "name"), [(p, name) for p, faults in LATE.items() for name in faults])
def test_deadline_is_kept_where_the_server_is_late_from_the_first_byte_on(
    protocol: str, name: str, timeout_s: float, url: str, ask: Ask
) -> None:
    with FaultyProxy(url, Changing(LATE[protocol][name])) as proxy:
        _assert_on_time(lambda: ask(proxy.url, timeout_s=timeout_s), timeout_s)


@pytest.mark.parametrize("timeout_s", [0.1, 0.3])
@pytest.mark.parametrize("name", LATE["http"])
def test_deadline_is_kept_where_an_answer_is_late_on_a_connection_that_worked(
    name: str, timeout_s: float, echo_server: TritonServer, ask: Ask
) -> None:
    def run() -> list[Outcome]:
        plan = Changing()
        with FaultyProxy(echo_server.http_url, plan) as proxy:
            return ask(proxy.url, timeout_s=timeout_s, once_warm=setter(plan, FAULTS[name]))

    _assert_on_time(run, timeout_s)


@pytest.mark.parametrize("timeout_s", [0.1, 0.3])
def test_deadline_is_kept_where_a_grpc_connection_goes_silent(
    timeout_s: float, echo_server: TritonServer, ask: Ask
) -> None:
    # Nothing tells that the connection is dead: of many calls at once each must end by its own time.
    with FaultyProxy(echo_server.grpc_url, Changing(Fault(cut_after=1500))) as proxy:
        _assert_on_time(lambda: ask(proxy.url, 40, workers=8, timeout_s=timeout_s), timeout_s, at_least=10)


def test_deadline_is_kept_where_both_replicas_are_silent(protocol: str, url: str, ask: Ask) -> None:
    with (
        FaultyProxy(url, Changing(FAULTS["silence"])) as first,
        FaultyProxy(url, Changing(FAULTS["silence"])) as second,
    ):
        _assert_on_time(lambda: ask([first.url, second.url], timeout_s=0.3), 0.3)


def test_retries_share_the_deadline(echo_server: TritonServer, ask: Ask) -> None:
    # Each try alone would be in time, and the first two ask for another.
    late, retries = Fault(answer=FAULTS["unavailable"].answer, delay_s=0.15), Retries(attempts=10, backoff_s=0.001)

    def run() -> list[Outcome]:
        plan = Changing()
        with FaultyProxy(echo_server.http_url, plan) as proxy:
            outcomes = ask(proxy.url, timeout_s=0.4, retries=retries, once_warm=setter(plan, late))
        assert 2 <= proxy.done[late] <= 3
        return outcomes

    (outcome,) = _in_time(run, 0.4)
    assert isinstance(outcome.error, DeadlineExceededError | ServerBusyError)


@pytest.mark.parametrize("count", [1, 2])
def test_dead_server_is_a_connect_failed_error_in_time(
    count: int, protocol: str, refusing_address: str, ask: Ask
) -> None:
    (outcome,) = _in_time(lambda: ask([f"{protocol}://{refusing_address}"] * count, timeout_s=0.5), 0.5)
    assert isinstance(outcome.error, ConnectFailedError)
    assert refusing_address in str(outcome.error)


def test_server_that_takes_no_connection_is_an_error_in_time(protocol: str, full_address: str, ask: Ask) -> None:
    (outcome,) = _in_time(lambda: ask(f"{protocol}://{full_address}", timeout_s=0.3), 0.3)
    assert isinstance(outcome.error, DeadlineExceededError | ConnectFailedError)


def test_server_that_takes_no_connection_is_given_up_for_one_that_does(
    protocol: str, full_address: str, url: str, ask: Ask
) -> None:
    outcomes = ask([f"{protocol}://{full_address}", url], 10, limits=Limits(connect_timeout_s=0.1), timeout_s=5)
    assert not errors(outcomes)
    assert max(outcome.took_s for outcome in outcomes) < 3


@pytest.mark.parametrize("name", ["noise", "noise_with_a_status", "length_of_words", "negative_length", "fin_in_body"])
def test_what_is_no_answer_is_a_protocol_error(name: str, echo_server: TritonServer, ask: Ask) -> None:
    plan = Changing()
    with FaultyProxy(echo_server.http_url, plan) as proxy:
        (outcome,) = ask(proxy.url, timeout_s=2, once_warm=setter(plan, FAULTS[name]))
    assert isinstance(outcome.error, ProtocolError)
    assert outcome.error.url == proxy.url


@pytest.mark.parametrize("name", ["reset_before", "reset_in_body", "fin_before"])
def test_connection_that_always_breaks_is_a_transport_error(name: str, echo_server: TritonServer, ask: Ask) -> None:
    plan = Changing()
    with FaultyProxy(echo_server.http_url, plan) as proxy:
        (outcome,) = ask(proxy.url, timeout_s=2, once_warm=setter(plan, FAULTS[name]))
    assert isinstance(outcome.error, TransportError)
    assert not isinstance(outcome.error, DeadlineExceededError)
    assert proxy.done[FAULTS[name]] == Retries().attempts


# no answer is another request's: `ask` itself compares


@pytest.mark.parametrize("name", CONFUSING)
@pytest.mark.parametrize("retries", [NEVER, Retries()], ids=["once", "retried"])
def test_answer_is_never_that_to_another_request(
    name: str, retries: Retries, echo_server: TritonServer, ask: Ask
) -> None:
    faults = now_and_then([FAULTS[name]], share=0.3, seed=5)
    started = list[bool]()
    plan = iter(lambda: next(faults) if started else PASS, None)
    with FaultyProxy(echo_server.http_url, plan) as proxy:
        outcomes = ask(proxy.url, 120, workers=4, retries=retries, once_warm=lambda: started.append(True))
    assert all(isinstance(error, TransportError) for error in errors(outcomes))
    assert proxy.done[FAULTS[name]] > 15
    assert len(errors(outcomes)) < 80


@pytest.mark.parametrize("name", ["duplicate", "noise_after"])
def test_what_follows_the_answer_to_the_first_request_is_not_taken_for_the_next(
    name: str, echo_server: TritonServer, ask: Ask
) -> None:
    # What is asked about the model comes first, and its answers have no id.
    with FaultyProxy(echo_server.http_url, Changing(FAULTS[name])) as proxy:
        outcomes = ask(proxy.url, 20)
    assert all(isinstance(error, TransportError) for error in errors(outcomes))


def test_answer_that_comes_after_the_deadline_is_not_taken_for_the_next(protocol: str, url: str, ask: Ask) -> None:
    turns = itertools.cycle([PASS, PASS, Fault(delay_s=0.08)]) if protocol == "http" else Changing(Fault(delay_s=0.02))
    with FaultyProxy(url, turns) as proxy:
        outcomes = ask(proxy.url, 60, workers=4, timeout_s=0.05, retries=NEVER)
    assert all(isinstance(error, DeadlineExceededError) for error in errors(outcomes))


def test_answer_to_a_cancelled_call_is_not_taken_for_the_next(protocol: str, url: str) -> None:
    async def run() -> int:
        async with AsyncClient(proxy.url) as client:
            model = client.model("echo")
            await model(own_input(0))
            cancelled = 0
            for number in range(1, 81):
                try:
                    # Before the answer comes, in the middle of it, and just after.
                    result = await asyncio.wait_for(model(own_input(number)), 0.01 + number % 20 / 1000)
                except TimeoutError:
                    cancelled += 1
                else:
                    np.testing.assert_array_equal(result, own_input(number))
            np.testing.assert_array_equal(await model(own_input(100)), own_input(100))
            return cancelled

    with FaultyProxy(url, Changing(Fault(delay_s=0.012, piece_bytes=40))) as proxy:
        assert asyncio.run(run()) > 5
