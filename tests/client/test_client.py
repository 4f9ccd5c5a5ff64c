"""A client of a real Triton: what it asks of the server, its deadlines, its threads, its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tritium.client import (
    CallError,
    Client,
    DeadlineExceededError,
    InputError,
    ModelNotFoundError,
    ModelNotReadyError,
    ModelStatus,
    ServerError,
)
from tritium.repository import GoldenCases, Repository
from tritium.server import TritonServer

Golden = dict[str, GoldenCases]


def test_models_are_listed_with_their_state(client: Client, zoo: Repository) -> None:
    listed = {status.name: status for status in client.models()}
    served = {name: str(zoo.versions(name)[-1]) for name in zoo.models()}
    assert listed == {name: ModelStatus(name, version, "READY", "") for name, version in served.items()}


def test_server_is_ready(client: Client) -> None:
    assert client.is_ready() is True


@pytest.mark.parametrize(("model", "ready"), [("digits_cnn", True), ("digits_cn", False)])
def test_model_is_ready_if_it_is_served(model: str, ready: bool, client: Client) -> None:
    assert client.is_ready(model) is ready


def test_model_without_a_name_is_refused(client: Client) -> None:
    with pytest.raises(InputError, match="The 'name' parameter of model must be the name of a model"):
        client.model("")


# loading


@pytest.mark.parametrize("name", ["gone", "spare"])
def test_model_that_is_not_loaded_is_not_ready(name: str, small_client: Client) -> None:
    assert small_client.is_ready(name) is False


@pytest.mark.parametrize(("name", "kind"), [("gone", ModelNotReadyError), ("spare", ModelNotFoundError)])
def test_model_that_is_not_loaded_is_an_error_that_says_so(
    name: str, kind: type[Exception], small_client: Client
) -> None:
    with pytest.raises(kind, match="in the repository but not loaded"):
        small_client.model(name)(["a"])


def test_model_that_is_loaded_again_answers(small_client: Client) -> None:
    small_client.load("pair")
    one = np.ones((1, 2), dtype=np.float32)
    assert small_client.model("pair")(one, one).sum.tolist() == [[2.0, 2.0]]


def test_model_that_does_not_load_is_an_error_with_the_reason(small_client: Client) -> None:
    with pytest.raises(ServerError, match="failed to load 'absent'"):
        small_client.load("absent")


# deadlines


def test_deadline_is_kept_and_the_client_works_afterwards(small_client: Client) -> None:
    slow = small_client.model("slow")
    slow([1])  # so that the deadline meets an open connection
    for index in range(3):
        with pytest.raises(DeadlineExceededError, match=r"did not answer within 0\.005 s"):
            slow([100_000 + index], timeout_s=0.005)
        # The late answer to the request before must never be taken for this one's.
        assert slow([index]).tolist() == [index]


def test_deadline_may_be_next_to_nothing(small_client: Client) -> None:
    with pytest.raises(DeadlineExceededError, match="did not answer within 1e-06 s"):
        small_client.model("slow")([100_000], timeout_s=1e-6)


def test_deadline_is_a_timeout_error_with_the_url(small_client: Client) -> None:
    with pytest.raises(TimeoutError) as caught:
        small_client.model("slow")([100_000], timeout_s=0.005)
    assert isinstance(caught.value, DeadlineExceededError)
    assert caught.value.url == small_client.url


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_deadline_of_the_client_holds_for_every_call(scheme: str, silent_address: str) -> None:
    with Client(f"{scheme}://{silent_address}", timeout_s=0.02) as hasty, pytest.raises(DeadlineExceededError):
        hasty.models()


@pytest.mark.parametrize("timeout_s", [0, -1.0, float("nan"), float("inf")])
def test_timeout_that_is_no_time_is_refused(timeout_s: float) -> None:
    with pytest.raises(InputError, match="The 'timeout_s' parameter must be"):
        Client("http://127.0.0.1:8000", timeout_s=timeout_s)


# threads


def test_one_client_serves_many_threads(client: Client, digits_golden: Golden) -> None:
    golden = digits_golden["digits_mlp"]
    cases, answers = golden.inputs["pixels__0"], golden.outputs["probabilities__0"]
    model, together = client.model("digits_mlp"), threading.Barrier(8)

    def worst(first: int) -> float:
        together.wait(timeout=30)
        return max(float(np.abs(model(cases[i]) - answers[i]).max()) for i in range(first, len(cases), 8))

    with ThreadPoolExecutor(8) as pool:
        differences = list(pool.map(worst, range(8)))
    assert max(differences) <= 1e-5


# the end


@pytest.fixture(params=["http", "grpc"])
def closed(request: pytest.FixtureRequest, server: TritonServer) -> Iterator[Client]:
    """A client that was used and is closed."""
    client = server.client(protocol=request.param)
    client.is_ready()
    client.close()
    yield client
    client.close()  # what a use after the first close may have opened


def test_use_after_close_is_a_clear_error(closed: Client) -> None:
    with pytest.raises(InputError, match="This client is closed; make a new one"):
        closed.is_ready()


def test_inference_after_close_is_a_clear_error(closed: Client) -> None:
    with pytest.raises(InputError, match="This client is closed; make a new one"):
        closed.model("digits_mlp")(np.zeros(784, dtype=np.float32))


def test_closing_twice_does_nothing(closed: Client) -> None:
    closed.close()


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "grpc://127.0.0.1:8001"])
def test_headers_are_shown_nowhere(url: str) -> None:
    with Client(url, headers={"Authorization": "Bearer s3cr3t"}) as client:
        assert repr(client) == f"Client({url!r})"
        assert "s3cr3t" not in repr(client.model("m")) + repr(vars(client))


def test_url_of_the_client_has_the_port() -> None:
    with Client("grpc://localhost") as client:
        assert client.url == "grpc://localhost:8001"


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_deadline_of_a_call_covers_what_is_asked_about_the_model_first(scheme: str, silent_address: str) -> None:
    with Client(f"{scheme}://{silent_address}", timeout_s=60) as patient:
        started = time.monotonic()
        with pytest.raises(DeadlineExceededError):
            patient.model("slow")([1], timeout_s=0.2)
        assert time.monotonic() - started < 30


def test_a_proxy_in_the_environment_is_not_asked_for_loopback(
    server: TritonServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "grpc_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for protocol in ("http", "grpc"):
        with server.client(protocol=protocol) as client:
            assert client.is_ready()


def test_a_port_that_answers_but_is_no_triton_is_named_as_such(server: TritonServer) -> None:
    metrics = server.metrics_url.removesuffix("/metrics")
    with Client(metrics) as client, pytest.raises(CallError, match="not as a Triton server does") as caught:
        client.model("digits_cnn")([1])
    assert "\n" not in str(caught.value)
