"""What a server may be asked for beyond its models: traces, a response cache, rate limits."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tritium.client import InputError
from tritium.server import TritonServer

from .conftest import DOUBLER_CONFIG, doubler, wait_until

CACHED = DOUBLER_CONFIG + "response_cache { enable: true }\n"
# Two instances that need the same one thing.
LIMITED = DOUBLER_CONFIG.replace(
    "count: 1", 'count: 2 rate_limiter { resources { name: "seat" count: 1 global: true } priority: 2 }'
)

# y = 1 if another instance is at work.
ALONE = """
import os, time
import numpy as np
import triton_python_backend_utils as pb

class TritonPythonModel:
    def initialize(self, args):
        self.busy = os.path.join(args["model_repository"], "busy")

    def execute(self, requests):
        try:
            os.close(os.open(self.busy, os.O_CREAT | os.O_EXCL))
            other = 0
            time.sleep(0.1)
            os.unlink(self.busy)
        except FileExistsError:
            other = 1
        y = np.full((1, 2), other, np.float32)
        return [pb.InferenceResponse([pb.Tensor("y", y)]) for _ in requests]
"""


def repository(folder: Path, text: str = DOUBLER_CONFIG) -> Path:
    (folder / "doubler" / "1").mkdir(parents=True)
    (folder / "doubler" / "1" / "model.onnx").write_bytes(doubler())
    (folder / "doubler" / "config.pbtxt").write_text(text, encoding="utf-8")
    return folder


@contextmanager
def collector() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Something on loopback that takes traces: its URL, and the spans that have come, each with its service's name."""
    spans: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/v1/traces"
            for resource in document["resourceSpans"]:
                service = attributes(resource["resource"])["service.name"]
                for scope in resource["scopeSpans"]:
                    spans.extend(span | {"service": service} for span in scope["spans"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1/traces", spans
        server.shutdown()
        thread.join()


def attributes(span: dict[str, Any]) -> dict[str, str]:
    return {item["key"]: next(iter(item["value"].values())) for item in span.get("attributes", ())}


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_trace_goes_on_from_the_callers_span_and_has_the_requests_id(
    tmp_path: Path, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opentelemetry.sdk.trace import TracerProvider

    monkeypatch.setenv("OTEL_SERVICE_NAME", "digits")
    tracer = TracerProvider().get_tracer("test")
    with collector() as (url, spans):
        # So rare that only what the caller traces is traced.
        server = TritonServer(repository(tmp_path), otlp_url=url, trace_rate=1_000_000)
        with server, server.client(protocol=protocol) as client:
            model = client.model("doubler")
            model([[1.0, 2.0]], request_id="untraced")
            with tracer.start_as_current_span("order") as span:
                model([[1.0, 2.0]], request_id="order-17")
            wait_until(lambda: any(found["name"] == "InferRequest" for found in spans))
    context = span.get_span_context()
    by_name = {found["name"]: found for found in spans}
    root, model_span = by_name["InferRequest"], by_name["doubler"]
    assert {found["traceId"] for found in spans} == {f"{context.trace_id:032x}"}
    assert root["parentSpanId"] == f"{context.span_id:016x}"
    assert model_span["parentSpanId"] == root["spanId"]
    assert by_name["compute"]["parentSpanId"] == model_span["spanId"]
    assert attributes(model_span)["triton.request_id"] == "order-17"
    assert {found["service"] for found in spans} == {"digits"}


def test_one_of_so_many_requests_is_traced(tmp_path: Path) -> None:
    with collector() as (url, spans):
        with TritonServer(repository(tmp_path), otlp_url=url, trace_rate=2) as server, server.client() as client:
            for number in range(4):
                client.model("doubler")([[1.0, 2.0]], request_id=f"r{number}")
        # What was not sent yet is sent when it stops.
        traced = [attributes(span)["triton.request_id"] for span in spans if span["name"] == "doubler"]
    assert len(traced) == 2


def test_a_collector_that_is_not_there_stops_nothing(tmp_path: Path) -> None:
    server = TritonServer(repository(tmp_path), otlp_url="http://127.0.0.1:9/v1/traces")
    with server, server.client() as client:
        assert client.model("doubler")([[1.0, 2.0]]).tolist() == [[2.0, 4.0]]
    assert server.stop() is None


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:4318/v1/traces",
        "grpc://127.0.0.1:4317",
        "http://127.0.0.1:4318",
        "http://:4318/v1/traces",
        "http://127.0.0.1:port/v1/traces",
        "http://127.0.0.1:99999/v1/traces",
        "http://[::1/v1/traces",
        "http://me:hunter2@127.0.0.1:4318/v1/traces",
        "http://127.0.0.1:4318/v1/traces\nX: y",
        "",
    ],
)
def test_what_is_no_collectors_url_is_refused_with_an_example(tmp_path: Path, url: str) -> None:
    with pytest.raises(InputError, match=r"'otlp_url'.*such as http://127.0.0.1:4318/v1/traces") as caught:
        TritonServer(repository(tmp_path), otlp_url=url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [("trace_rate", 0), ("response_cache_mb", -1), ("response_cache_mb", 0.5)])
def test_a_number_that_cannot_be_is_refused_with_the_range(tmp_path: Path, name: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"'{name}' parameter must be a whole number from \d to \d+, got"):
        TritonServer(repository(tmp_path), **{name: value})


def cache_counts(server: TritonServer) -> tuple[int, int]:
    with server.client() as client:
        stats = client.model("doubler").statistics()["model_stats"][0]["inference_stats"]
    return stats["cache_hit"]["count"], stats["cache_miss"]["count"]


@pytest.mark.parametrize("onnx_backend", ["native", "python"])
def test_the_same_request_is_answered_from_the_cache(tmp_path: Path, onnx_backend: str) -> None:
    server = TritonServer(repository(tmp_path, CACHED), onnx_backend=onnx_backend, response_cache_mb=1)
    with server, server.client() as client:
        model = client.model("doubler")
        answers = [
            model([row], request_id=f"r{n}").tolist() for n, row in enumerate(([1.0, 2.0], [1.0, 2.0], [3.0, 4.0]))
        ]
        assert answers == [[[2.0, 4.0]], [[2.0, 4.0]], [[6.0, 8.0]]]
        wait_until(lambda: cache_counts(server) == (1, 2))


def test_a_model_that_does_not_ask_for_a_cache_has_none(tmp_path: Path) -> None:
    with TritonServer(repository(tmp_path), response_cache_mb=1) as server, server.client() as client:
        for _ in range(2):
            client.model("doubler")([[1.0, 2.0]])
        assert cache_counts(server) == (0, 0)


@pytest.mark.parametrize(
    ("text", "flag"), [(CACHED, "--response-cache-mb"), (LIMITED, "--rate-limit")], ids=["cache", "limit"]
)
def test_what_a_config_asks_for_in_vain_is_said_and_the_model_is_served(tmp_path: Path, text: str, flag: str) -> None:
    said: list[str] = []
    with TritonServer(repository(tmp_path, text), progress=said.append) as server, server.client() as client:
        for _ in range(2):
            assert client.model("doubler")([[1.0, 2.0]]).tolist() == [[2.0, 4.0]]
        assert cache_counts(server) == (0, 0)
    (line,) = (line for line in said if "no effect" in line)
    assert line.startswith("doubler: ")
    assert flag in line


@pytest.mark.parametrize("rate_limit", [True, False])
def test_instances_that_share_a_resource_take_turns_where_limits_are_heeded(tmp_path: Path, rate_limit: bool) -> None:
    repository(tmp_path, LIMITED.replace("onnxruntime", "python"))
    (tmp_path / "doubler" / "1" / "model.py").write_text(ALONE)
    with TritonServer(tmp_path, rate_limit=rate_limit) as server, server.client() as client:
        model = client.model("doubler")
        with ThreadPoolExecutor(4) as pool:
            others = list(pool.map(lambda _: model([[0.0, 0.0]]).max(), range(12)))
        assert ("EXEC_COUNT" in server.log.read_text()) == rate_limit
    assert (max(others) == 0) == rate_limit
