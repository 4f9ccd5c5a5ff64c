"""https and grpcs: who is trusted, who is let in, what arrives, and that secrets are shown nowhere."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tritium.client import (
    ApiKey,
    AsyncClient,
    BearerToken,
    Client,
    ConnectFailedError,
    DeadlineExceededError,
    InferenceFailedError,
    InputError,
    ModelNotFoundError,
    Retries,
    Tls,
)
from tritium.server import TritonServer

from .recording_servers import recording
from .served_models import identity_name
from .surfaces import SURFACES, use
from .tls_proxy import Certificates, tls_before

SECRET = "s3cr3t"
ONE_TRY = {"retries": Retries(attempts=1)}
# What opens a server with TLS before it, and gives its URL.
Secured = Callable[..., str]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Those of this module."""
    return Certificates.write(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(params=["http", "grpc"])
def protocol(request: pytest.FixtureRequest) -> str:
    """Each protocol."""
    return str(request.param)


@pytest.fixture(params=SURFACES)
def surface(request: pytest.FixtureRequest) -> str:
    """Each client."""
    return str(request.param)


@pytest.fixture
def secured(protocol: str, certificates: Certificates, request: pytest.FixtureRequest) -> Iterator[Secured]:
    """Puts TLS before a server: the small one, unless another is named."""
    with ExitStack() as stack:

        def put(*names: str, asks_back: bool = False, server: str = "small_server") -> str:
            triton: TritonServer = request.getfixturevalue(server)
            url = triton.http_url if protocol == "http" else triton.grpc_url
            context = certificates.context(*(names or ("127.0.0.1",)), asks_back=asks_back)
            return stack.enter_context(tls_before(url, context))

        yield put


# who is trusted


def test_server_of_a_trusted_authority_answers(surface: str, secured: Secured, certificates: Certificates) -> None:
    options = {"tls": Tls(ca_file=certificates.authority)}
    assert use(surface, secured(), "pick", "__call__", [[1]], options=options).tolist() == [[20.0]]


@pytest.mark.parametrize("trusted", ["another authority", "the system's authorities"])
def test_server_of_a_stranger_is_not_spoken_to(
    trusted: str, surface: str, secured: Secured, certificates: Certificates
) -> None:
    options: dict[str, Any] = dict(ONE_TRY)
    if trusted == "another authority":
        options["tls"] = Tls(ca_file=certificates.stranger)
    with pytest.raises(ConnectFailedError, match="No connection to") as caught:
        use(surface, secured(), "pick", "__call__", [[1]], options=options)
    assert caught.value.sent is False


def test_server_of_another_name_is_not_spoken_to(surface: str, secured: Secured, certificates: Certificates) -> None:
    options = {"tls": Tls(ca_file=certificates.authority), **ONE_TRY}
    with pytest.raises(ConnectFailedError, match="No connection to"):
        use(surface, secured("other.example"), "pick", "__call__", [[1]], options=options)


def test_server_is_known_by_its_name_too(surface: str, secured: Secured, certificates: Certificates) -> None:
    url = secured("localhost").replace("127.0.0.1", "localhost")
    options = {"tls": Tls(ca_file=str(certificates.authority))}
    assert use(surface, url, "pick", "__call__", [[1]], options=options).tolist() == [[20.0]]


def test_server_without_tls_is_not_taken_for_one_with_it(
    surface: str, protocol: str, small_server: TritonServer, certificates: Certificates
) -> None:
    url = small_server.http_url if protocol == "http" else small_server.grpc_url
    options = {"tls": Tls(ca_file=certificates.authority), "timeout_s": 5, **ONE_TRY}
    with pytest.raises((ConnectFailedError, DeadlineExceededError)):
        use(surface, url.replace("://", "s://"), "pick", "__call__", [[1]], options=options)


# who is let in


def test_client_shows_its_certificate_where_that_is_wanted(
    surface: str, secured: Secured, certificates: Certificates
) -> None:
    own = Tls(ca_file=certificates.authority, cert_file=certificates.client_chain, key_file=certificates.client_key)
    answer = use(surface, secured(asks_back=True), "pick", "__call__", [[1]], options={"tls": own})
    assert answer.tolist() == [[20.0]]


def test_certificate_and_key_may_be_in_one_file(secured: Secured, certificates: Certificates) -> None:
    # In a process of its own: without a key gRPC would end it.
    script = (
        "import sys\nfrom tritium.client import Client, Tls\n"
        "with Client(sys.argv[1], tls=Tls(ca_file=sys.argv[2], cert_file=sys.argv[3])) as client:\n"
        "    print(client.model('pick')([[1]]).tolist())"
    )
    files = [str(certificates.authority), str(certificates.client_both)]
    command = [sys.executable, "-c", script, secured(asks_back=True), *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[[20.0]]"), done.stderr


def test_client_without_a_certificate_is_not_let_in_where_one_is_wanted(
    surface: str, secured: Secured, certificates: Certificates
) -> None:
    options = {"tls": Tls(ca_file=certificates.authority), **ONE_TRY}
    with pytest.raises(ConnectFailedError):
        use(surface, secured(asks_back=True), "pick", "__call__", [[1]], options=options)


@pytest.mark.parametrize("bad", ["ca_file", "cert_file", "key_file"])
@pytest.mark.parametrize("scheme", ["https", "grpcs"])
@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_file_that_holds_something_else_is_refused_before_any_call(
    client: Callable[..., Any], scheme: str, bad: str, certificates: Certificates, tmp_path: Path
) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    files = {
        "ca_file": certificates.authority,
        "cert_file": certificates.client_chain,
        "key_file": certificates.client_key,
    }
    with pytest.raises(InputError, match=r"The files of Tls.* cannot be used"):
        client(f"{scheme}://127.0.0.1:9", tls=Tls(**{**files, bad: junk}))


# what passes


def test_large_tensors_pass_both_ways(surface: str, secured: Secured, certificates: Certificates) -> None:
    numbers = np.random.default_rng(0).integers(0, 2**31, (512, 1024), dtype=np.int32)
    options = {"tls": Tls(ca_file=certificates.authority)}
    url = secured(server="protocol_server")
    for answer in use(surface, url, identity_name("INT32", 2), "map", [numbers, numbers[:, ::-1]] * 3, options=options):
        assert np.array_equal(answer, numbers) or np.array_equal(answer, numbers[:, ::-1])


def test_many_threads_share_a_client(secured: Secured, certificates: Certificates) -> None:
    url = secured(server="protocol_server")
    with Client(url, tls=Tls(ca_file=certificates.authority)) as client, ThreadPoolExecutor(8) as pool:
        same = client.model(identity_name("INT64", 1))
        answers = pool.map(lambda number: same([number]).tolist(), range(200))
        assert list(answers) == [[number] for number in range(200)]


def test_many_tasks_share_a_client(secured: Secured, certificates: Certificates) -> None:
    async def run() -> None:
        url = secured(server="protocol_server")
        async with AsyncClient(url, tls=Tls(ca_file=certificates.authority)) as client:
            same = client.model(identity_name("INT64", 1))
            answers = await asyncio.gather(*(same([number]) for number in range(200)))
            assert [answer.tolist() for answer in answers] == [[number] for number in range(200)]

    asyncio.run(run())


# secrets


CREDENTIALS = [
    (ApiKey(SECRET), "x-api-key", SECRET),
    (ApiKey(SECRET, header="Ocp-Apim-Key"), "ocp-apim-key", SECRET),
    (BearerToken(SECRET), "authorization", f"Bearer {SECRET}"),
]


@pytest.mark.parametrize(("auth", "header", "value"), CREDENTIALS, ids=["key", "key-by-another-name", "token"])
def test_credentials_go_with_every_call(
    auth: Any, header: str, value: str, surface: str, protocol: str, certificates: Certificates
) -> None:
    context = certificates.context("127.0.0.1", asks_back=False)
    with recording(protocol) as recorder, tls_before(recorder.url, context) as url:
        options = {"tls": Tls(ca_file=certificates.authority), "auth": auth, "headers": {"X-Team": "a"}}
        use(surface, url, "m", "__call__", [[1]], options=options)
        assert len(recorder.received) >= 3
        for request in recorder.received:
            assert (request.headers[header], request.headers["x-team"]) == ([value], ["a"])


@pytest.mark.parametrize("auth", [ApiKey(SECRET), BearerToken(SECRET)], ids=["key", "token"])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_secrets_are_not_shown_by_clients_and_what_they_are_made_of(
    kind: Callable[..., Any], auth: Any, protocol: str
) -> None:
    client = kind(f"{protocol}://127.0.0.1:9", auth=auth, headers={"X-Other": SECRET})
    for thing in (client, client.model("m"), *(replica.transport for replica in client._replicas.all)):
        shown = f"{thing!r} {thing} {vars(thing)}"
        assert SECRET not in shown
    if kind is Client:
        client.close()


@pytest.mark.parametrize("model", ["pick", "nothing", "pick-dead"])
def test_secrets_are_not_shown_by_errors(
    model: str, surface: str, protocol: str, small_server: TritonServer, refusing_address: str
) -> None:
    url = small_server.http_url if protocol == "http" else small_server.grpc_url
    if model == "pick-dead":
        model, url = "pick", f"{protocol}://{refusing_address}"
    options = {"auth": BearerToken(SECRET), "headers": {"X-Other": SECRET}, **ONE_TRY}
    with pytest.raises((InferenceFailedError, ModelNotFoundError, ConnectFailedError)) as caught:
        use(surface, url, model, "__call__", [[99]], options=options)
    shown = "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value))
    assert SECRET not in shown


def test_words_after_an_answer_are_not_taken_for_the_next_one(certificates: Certificates) -> None:
    # In one record: TLS has deciphered the rest when the answer is read, and the socket shows nothing of it any more.
    body = json.dumps([{"name": "right"}]).ljust(9000).encode()
    good = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    context = certificates.context("127.0.0.1", asks_back=False)

    def serve(times: int) -> None:
        for _ in range(times):
            with context.wrap_socket(listener.accept()[0], server_side=True) as connection:
                while connection.recv(4096):
                    connection.sendall(good + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        listener.settimeout(10)
        serving = pool.submit(serve, 3)
        url, tls = f"https://127.0.0.1:{listener.getsockname()[1]}", Tls(ca_file=certificates.authority)
        with Client(url, tls=tls, retries=Retries(attempts=1)) as client:
            assert [[model.name for model in client.models()] for _ in range(3)] == [["right"]] * 3
        serving.result(timeout=30)
