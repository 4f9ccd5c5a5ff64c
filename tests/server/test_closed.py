"""What a stranger on this machine can ask a server for, and does not get."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from tritium.client import InputError
from tritium.server import ADMIN_GROUPS, ModelState, Supervisor, TritonServer, running_servers
from tritium.server._process import BoundProcess

from .conftest import DOUBLER_CONFIG, doubler, wait_until, who_shows

PROOF = "stranger"


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository = tmp_path_factory.mktemp("repository")
    (repository / "doubler" / "1").mkdir(parents=True)
    (repository / "doubler" / "1" / "model.onnx").write_bytes(doubler())
    (repository / "doubler" / "config.pbtxt").write_text(DOUBLER_CONFIG, encoding="utf-8")
    with TritonServer(repository, onnx_backend="native") as server:
        before = server.pid
        yield server
        assert (server.pid, server.wait(0)) == (before, None)


@pytest.fixture(autouse=True)
def unharmed(closed: TritonServer) -> Iterator[None]:
    """After each attack the server answers, and right."""
    yield
    with closed.client() as client:
        assert np.array_equal(client.model("doubler")(np.array([[1, 2]], np.float32)), [[2, 4]])


def ask(server: TritonServer, path: str, body: Any, headers: dict[str, str] | None = None) -> tuple[int, str]:
    with closing(http.client.HTTPConnection(server.http_url.removeprefix("http://"), timeout=30)) as connection:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", path, content, headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode()


SHM = {"key": "/tritium-stranger", "offset": 0, "byte_size": 64}
RESTRICTED = {
    "index": ("/v2/repository/index", {}),
    "load": ("/v2/repository/models/doubler/load", {}),
    "load with a config": ("/v2/repository/models/doubler/load", {"parameters": {"config": "{}"}}),
    "load with a file": ("/v2/repository/models/doubler/load", {"parameters": {"file:1/model.onnx": "AAAA"}}),
    "load of a path": ("/v2/repository/models/..%2F..%2Fetc/load", {}),
    "unload": ("/v2/repository/models/doubler/unload", {}),
    "shared memory": ("/v2/systemsharedmemory/region/name/register", SHM),
    "CUDA shared memory": ("/v2/cudasharedmemory/region/name/register", {}),
    "no shared memory": ("/v2/systemsharedmemory/unregister", {}),
    "the log": ("/v2/logging", {"log_verbose_level": 9}),
    "traces": ("/v2/trace/setting", {"trace_level": ["TIMESTAMPS"]}),
    "traces of a model": ("/v2/models/doubler/trace/setting", {"trace_level": ["TIMESTAMPS"]}),
}


@pytest.mark.parametrize("what", RESTRICTED)
@pytest.mark.parametrize("headers", [{}, {"tritium-admin": "x"}, {"Tritium-Admin": ""}], ids=["none", "wrong", "empty"])
def test_what_belongs_to_the_owner_is_refused(closed: TritonServer, what: str, headers: dict[str, str]) -> None:
    path, body = RESTRICTED[what]
    status, text = ask(closed, path, body, headers)
    # Of a path that it does not know, Triton says so first.
    assert status in (403, 404) if "%2F" in path else status == 403, text
    assert closed.secret not in text


@pytest.mark.parametrize("path", ["/v2/logging", "/v2/trace/setting"])
def test_no_file_is_written_for_a_stranger(closed: TritonServer, path: str, tmp_path: Path) -> None:
    file = tmp_path / PROOF
    status, _ = ask(closed, path, {"log_file": str(file), "trace_file": str(file)})
    assert status == 403
    assert not file.exists()


@pytest.mark.parametrize("secret", [None, "x", ""], ids=["none", "wrong", "empty"])
def test_grpc_refuses_the_same(closed: TritonServer, secret: str | None) -> None:
    sent = {} if secret is None else {"headers": {"triton-grpc-protocol-tritium-admin": secret}}
    with closing(tritonclient.grpc.InferenceServerClient(closed.grpc_url.removeprefix("grpc://"))) as client:
        attacks: list[Callable[[], object]] = [
            lambda: client.load_model("doubler", config="{}", **sent),
            lambda: client.load_model("doubler", config="{}", files={"file:1/model.onnx": b"x"}, **sent),
            lambda: client.unload_model("doubler", **sent),
            lambda: client.get_model_repository_index(**sent),
            lambda: client.register_system_shared_memory("name", "/tritium-stranger", 64, **sent),
            lambda: client.update_log_settings({"log_verbose_level": 9}, **sent),
            lambda: client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]}, **sent),
        ]
        for attack in attacks:
            with pytest.raises(InferenceServerException, match="This protocol is restricted"):
                attack()


@pytest.mark.parametrize(
    "path",
    [
        "//v2/repository/index",
        "/v2/./repository/index",
        "/v2/health/../repository/index",
        "/v2/repository%2findex",
        "/v2/%72epository/index",
        "/v2/repository/index?x=1",
        "/v2/repository/index/",
        "/V2/REPOSITORY/INDEX",
        "http://127.0.0.1/v2/repository/index",
    ],
)
def test_no_other_path_leads_to_what_is_refused(closed: TritonServer, path: str) -> None:
    status, text = ask(closed, path, {})
    assert status in (400, 403, 404, 405), text
    assert "doubler" not in text


def raw(server: TritonServer, headers: str, body: bytes) -> bytes:
    """How the answer to bytes that no client would send begins; nothing if the connection is closed."""
    url = urlsplit(server.http_url)
    with socket.create_connection((url.hostname, url.port), timeout=30) as connection:
        connection.sendall(f"POST /v2/models/doubler/infer HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n".encode() + body)
        try:
            return connection.recv(12)
        except ConnectionResetError:
            return b""


def of_length(body: bytes) -> tuple[str, bytes]:
    return f"Content-Length: {len(body)}", body


DEEP = 10_000
HEAVY = {
    "a large body": of_length(bytes(64 * 2**20)),
    "many chunks": ("Transfer-Encoding: chunked", b"1\r\n{\r\n" * 20_000 + b"0\r\n\r\n"),
    "deep inputs": of_length(b'{"inputs":' + b"[" * DEEP + b"]" * DEEP + b"}"),
    "deep parameters": of_length(b'{"parameters":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b',"inputs":[]}'),
    "a length below zero": ("Content-Length: -1", b"{}"),
    "a JSON part beyond the body": ("Content-Length: 2\r\nInference-Header-Content-Length: 99999999999", b"{}"),
}


@pytest.mark.parametrize("what", HEAVY)
def test_a_heavy_or_broken_body_is_refused(closed: TritonServer, what: str) -> None:
    assert re.fullmatch(rb"(HTTP/1\.1 [45]\d\d)?", raw(closed, *HEAVY[what]))


def test_json_so_deep_that_it_ends_triton_ends_it_for_a_moment(closed: TritonServer) -> None:
    """What only a gateway can stop, as docs/serving.md says."""
    depth = 1_000_000
    with Supervisor(TritonServer(closed.repository.path, onnx_backend="native")) as supervisor:
        before = supervisor.server.pid
        raw(supervisor.server, *of_length(b'{"inputs":' + b"[" * depth + b"]" * depth + b"}"))
        wait_until(lambda: supervisor.server.pid != before, timeout_s=20)
        wait_until(lambda: supervisor.states()["doubler"].state is ModelState.READY, timeout_s=20)


ODD_NAMES = ("..%2f..%2fetc%2fpasswd", "%2e%2e", "doubler%00", 300 * "a")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_no_models(closed: TritonServer, name: str) -> None:
    assert ask(closed, f"/v2/models/{name}/infer", {"inputs": []})[0] in (400, 404)


def test_an_input_in_unknown_shared_memory_names_no_key(closed: TritonServer) -> None:
    region = {"shared_memory_region": PROOF, "shared_memory_byte_size": 8}
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": region}
    status, text = ask(closed, "/v2/models/doubler/infer", {"inputs": [tensor]})
    assert status in (400, 404)
    assert "/dev/shm" not in text


def test_endpoints_of_clouds_are_off(closed: TritonServer) -> None:
    """SageMaker's and Vertex AI's have ports of their own: it listens on its three, and on loopback."""
    urls = (closed.http_url, closed.grpc_url, closed.metrics_url)
    listening = {
        (c.laddr.ip.removeprefix("::ffff:"), c.laddr.port)
        for c in psutil.Process(closed.pid).net_connections()
        if c.status == psutil.CONN_LISTEN
    }
    assert listening == {("127.0.0.1", urlsplit(url).port) for url in urls}


def test_the_owner_may(closed: TritonServer) -> None:
    (record,) = (record for record in running_servers() if record.http_url == closed.http_url)
    assert record.secret == closed.secret
    assert record.secret not in repr(record)
    assert ask(closed, "/v2/repository/index", {}, {"tritium-admin": record.secret})[0] == 200


def test_no_list_of_processes_shows_the_secret(closed: TritonServer) -> None:
    assert who_shows(closed.secret) == []
    assert sum("tritium-admin=***" in argument for argument in psutil.Process(closed.pid).cmdline()) == 2


def test_where_the_arguments_cannot_be_written_the_log_says_so_once(
    closed: TritonServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(process: BoundProcess, secret: str) -> None:
        raise PermissionError(13, "Permission denied", f"/proc/{process.pid}/mem")

    monkeypatch.setattr(BoundProcess, "blot_out", forbidden)
    with TritonServer(closed.repository.path, onnx_backend="native") as server, server.client() as client:
        assert server.log.read_text().count("The secret stays visible among Triton's arguments") == 1
        assert client.models()


def test_a_group_that_there_is_not_is_refused_with_those_there_are(closed: TritonServer) -> None:
    with pytest.raises(InputError, match=f"may have {', '.join(ADMIN_GROUPS)}, got 'shared-memry'"):
        TritonServer(closed.repository.path, open_groups=["shared-memry"])
