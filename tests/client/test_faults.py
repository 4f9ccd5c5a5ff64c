"""Faults on the way to a real server: calls succeed where a replica is up, end in time, and never mix answers up."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tritium.client import (
    AsyncClient,
    Client,
    ConnectFailedError,
    DeadlineExceededError,
    Limits,
    ProtocolError,
    Retries,
    ServerBusyError,
    ServerError,
    TransportError,
    TritiumError,
)
from tritium.server import TritonServer

from .asking import Ask, Outcome, errors, in_tasks, in_threads, own_input, wait_until
from .faulty_proxy import FAULTS, PASS, Changing, Fault, FaultyProxy, noise, now_and_then, refusal

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


# No queue with a limit of time or length: Triton 2.51 forgets a request there now and then, and finds it half a second
# later, when a deadline may be over.
CONFIG = """
backend: "onnxruntime"
max_batch_size: 8
input { name: "number" data_type: TYPE_INT64 dims: 1 }
output { name: "same" data_type: TYPE_INT64 dims: 1 }
"""


@pytest.fixture(scope="module")
def echo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A Triton that serves `echo`: numbers in, the same numbers out, at most 8 at once."""
    folder = tmp_path_factory.mktemp("faults") / "echo"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(CONFIG, encoding="utf-8")
    numbers = [helper.make_tensor_value_info(name, TensorProto.INT64, ["rows", 1]) for name in ("number", "same")]
    graph = helper.make_graph([helper.make_node("Identity", ["number"], ["same"])], "echo", numbers[:1], numbers[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "1" / "model.onnx")
    with TritonServer(folder.parent) as running:
        yield running


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


@pytest.fixture(params=[in_threads, in_tasks], ids=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Makes calls by either client."""
    chosen: Ask = request.param
    return chosen


def _setter(plan: Changing, fault: Fault) -> Callable[[], None]:
    def change() -> None:
        plan.fault = fault

    return change


def _upcoming(faults: list[Fault]) -> Iterator[Fault]:
    """A plan that takes what stands in a list, and can be added to later."""
    while True:
        yield faults.pop(0) if faults else PASS


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
        assert not errors(ask([proxy.url, url], 300, workers=40, once_warm=_setter(plan, fault)))
    assert proxy.done[fault] > 20


@pytest.mark.parametrize("name", ["unavailable", "reset_before"])
def test_no_call_fails_through_a_burst_that_ends_within_the_tries(
    name: str, echo_server: TritonServer, ask: Ask
) -> None:
    fault, coming = FAULTS[name], list[Fault]()
    with FaultyProxy(echo_server.http_url, _upcoming(coming)) as proxy:
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

        assert not errors(ask(proxy.url, calls(), retries=NEVER, once_warm=_setter(plan, FAULTS[name])))


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
            return ask(proxy.url, timeout_s=timeout_s, once_warm=_setter(plan, FAULTS[name]))

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
            outcomes = ask(proxy.url, timeout_s=0.4, retries=retries, once_warm=_setter(plan, late))
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
        (outcome,) = ask(proxy.url, timeout_s=2, once_warm=_setter(plan, FAULTS[name]))
    assert isinstance(outcome.error, ProtocolError)
    assert outcome.error.url == proxy.url


@pytest.mark.parametrize("name", ["reset_before", "reset_in_body", "fin_before"])
def test_connection_that_always_breaks_is_a_transport_error(name: str, echo_server: TritonServer, ask: Ask) -> None:
    plan = Changing()
    with FaultyProxy(echo_server.http_url, plan) as proxy:
        (outcome,) = ask(proxy.url, timeout_s=2, once_warm=_setter(plan, FAULTS[name]))
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


# when a call is made again


def _tries(echo_server: TritonServer, ask: Ask, fault: Fault, **options: Any) -> tuple[Outcome, int]:
    """What becomes of a call that meets this fault whenever it is tried, and how often it is."""
    plan = Changing()
    with FaultyProxy(echo_server.http_url, plan) as proxy:
        (outcome,) = ask(proxy.url, once_warm=_setter(plan, fault), **options)
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
    with FaultyProxy(echo_server.http_url, _upcoming(coming)) as proxy:
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
    with FaultyProxy(echo_server.http_url, _upcoming(coming)) as proxy:
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
            once_warm=_setter(plan, FAULTS["unavailable"]),
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


@pytest.mark.parametrize("name", ["reset_at_connect", "reset_before"])
def test_replica_that_fails_is_left_alone_and_comes_back(name: str, protocol: str, url: str) -> None:
    plan = Changing(FAULTS[name])
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
