"""What those who watch see of a call: the record of the hook, the request's id, the trace it belongs to."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from opentelemetry import propagate, trace
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace import TracerProvider

from tritium.client import (
    AsyncClient,
    CallError,
    Client,
    ConnectFailedError,
    DeadlineExceededError,
    InferenceFailedError,
    InputError,
    ModelNotFoundError,
    RequestRecord,
    Retries,
)
from tritium.server import TritonServer

from .faulty_proxy import FAULTS, FaultyProxy
from .recording_servers import Received, Recorder, recording
from .surfaces import SURFACES, use

Records = list[RequestRecord]


@pytest.fixture(params=["http", "grpc"])
def protocol(request: pytest.FixtureRequest) -> str:
    """Each protocol."""
    return str(request.param)


@pytest.fixture(params=SURFACES)
def surface(request: pytest.FixtureRequest) -> str:
    """Each client."""
    return str(request.param)


@pytest.fixture
def url(protocol: str, small_server: TritonServer) -> str:
    """Where the small server is."""
    return small_server.http_url if protocol == "http" else small_server.grpc_url


@pytest.fixture
def recorder(protocol: str) -> Iterator[Recorder]:
    """A server that writes down what it is sent."""
    with recording(protocol) as running:
        yield running


@pytest.fixture
def span() -> Iterator[str]:
    """A span that is open during the test; the id of its trace."""
    provider = TracerProvider()
    with trace.use_span(provider.get_tracer("test").start_span("work"), end_on_exit=True) as opened:
        yield f"{opened.get_span_context().trace_id:032x}"
    provider.shutdown()


def _sent_id(request: Received) -> str:
    """The id in the message itself."""
    if isinstance(request.body, bytes):
        return str(request.json["id"])
    return str(request.body.id)


# records


def test_inference_is_told_with_all_that_there_is_to_know(surface: str, url: str) -> None:
    records: Records = []
    options = {"on_request": records.append}
    use(surface, url, "pick", "__call__", [[1]], request_id="mine", options=options)
    record = records[-1]
    assert (record.operation, record.model, record.version) == ("infer", "pick", "")
    assert (record.request_id, record.url, record.attempts) == ("mine", url, 1)
    assert (record.waited_s, record.error) == (0.0, None)
    assert 0 < record.duration_s < 30


def test_what_is_asked_about_a_model_is_told_before_its_inference(surface: str, url: str) -> None:
    records: Records = []
    use(surface, url, "pick", "__call__", [[1]], options={"on_request": records.append})
    assert [record.operation for record in records] == ["ModelMetadata", "ModelConfig", "ServerMetadata", "infer"]
    assert [(record.model, record.request_id) for record in records[:3]] == [("pick", ""), ("pick", ""), (None, "")]


def test_questions_to_the_server_are_told_by_their_names(url: str) -> None:
    records: Records = []
    with Client(url, on_request=records.append) as client:
        client.is_ready()
        client.is_ready("pick")
        client.models()
        client.statistics()
        client.model("pick", 1).statistics()
    told = [(record.operation, record.model, record.version, record.error) for record in records]
    # What the server can do is asked once, where that matters.
    assert [record for record in told if record[0] != "ServerMetadata"] == [
        ("ServerReady", None, "", None),
        ("ModelReady", "pick", "", None),
        ("RepositoryIndex", None, "", None),
        ("ModelStatistics", None, "", None),
        ("ModelStatistics", "pick", "1", None),
    ]


def _failed(records: Records) -> list[tuple[str, type[BaseException]]]:
    return [(record.operation, type(record.error)) for record in records if record.error is not None]


def test_failed_inference_is_told_with_the_error_that_is_raised(surface: str, url: str) -> None:
    records: Records = []
    with pytest.raises(InferenceFailedError) as caught:
        use(surface, url, "pick", "__call__", [[99]], options={"on_request": records.append})
    assert _failed(records) == [("infer", InferenceFailedError)]
    assert records[-1].error is caught.value
    assert records[-1].request_id == caught.value.request_id != ""


def test_unknown_model_is_told_with_the_error_that_is_raised(surface: str, url: str) -> None:
    records: Records = []
    with pytest.raises(ModelNotFoundError) as caught:
        use(surface, url, "pikc", "__call__", [[1]], options={"on_request": records.append})
    assert _failed(records) == [("ModelMetadata", ModelNotFoundError)]
    assert records[-1].error is caught.value


def test_deadline_is_told_with_the_time_that_it_took(surface: str, url: str) -> None:
    records: Records = []
    options = {"on_request": records.append, "timeout_s": 10}
    with pytest.raises(DeadlineExceededError):
        use(surface, url, "slow", "map", [[1], [1_000_000]], timeout_s=0.2, options=options)
    assert ("infer", DeadlineExceededError) in _failed(records)
    assert max(record.duration_s for record in records) >= 0.15


def test_call_that_is_refused_before_it_is_sent_is_not_told(surface: str, url: str) -> None:
    records: Records = []
    with pytest.raises(InputError):
        use(surface, url, "pick", "__call__", [["a"]], options={"on_request": records.append})
    assert "infer" not in [record.operation for record in records]


def test_tries_and_pauses_are_counted(surface: str, small_server: TritonServer) -> None:
    records: Records = []
    plan = [FAULTS["unavailable"], FAULTS["unavailable"]]
    with FaultyProxy(small_server.http_url, plan) as proxy:
        options = {"on_request": records.append, "retries": Retries(backoff_s=0.01)}
        use(surface, proxy.url, "pick", "__call__", [[1]], options=options)
    assert [record.attempts for record in records] == [3, 1, 1, 1]
    assert 0 <= records[0].waited_s < records[0].duration_s


def test_server_that_answered_is_the_one_that_is_told(surface: str, url: str, refusing_address: str) -> None:
    records: Records = []
    dead = f"{url.split(':')[0]}://{refusing_address}"
    use(surface, [url, dead], "pick", "__call__", [[1]], options={"on_request": records.append})
    assert {record.url for record in records} == {url}
    assert sum(record.attempts for record in records) == len(records) + 1


def test_server_that_is_not_there_is_told(surface: str, protocol: str, refusing_address: str) -> None:
    records: Records = []
    url = f"{protocol}://{refusing_address}"
    with pytest.raises(ConnectFailedError):
        use(surface, url, "pick", "__call__", [[1]], options={"on_request": records.append})
    assert [(record.url, record.attempts) for record in records] == [(url, 3)]


@pytest.mark.parametrize(("n", "answers", "error"), [(3, 3, None), (-2, 2, InferenceFailedError)])
def test_stream_is_told_once_it_is_over(
    n: int, answers: int, error: type[CallError] | None, surface: str, protocol_server: TritonServer
) -> None:
    records: Records = []
    options = {"on_request": records.append}
    try:
        got = use(surface, protocol_server.grpc_url, "countdown", "stream", np.array([n], np.int32), options=options)
        assert len(got) == answers
    except CallError as exc:
        assert type(exc) is error
        assert records[-1].error is exc
    told = [record for record in records if record.operation == "stream"]
    assert [(record.model, record.attempts, record.error is None) for record in told] == [
        ("countdown", 1, error is None)
    ]
    assert len(told[0].request_id) == 16


def test_stream_that_is_left_early_is_told_without_an_error(protocol_server: TritonServer) -> None:
    records: Records = []
    with Client(protocol_server.grpc_url, on_request=records.append) as client:
        stream: Any = client.model("countdown").stream(np.array([5], np.int32))
        assert next(stream).tolist() == [5]
        assert "stream" not in [record.operation for record in records]
        stream.close()
    assert [record.error for record in records if record.operation == "stream"] == [None]


def test_error_of_the_hook_reaches_the_caller(surface: str, url: str) -> None:
    def refuse(record: RequestRecord) -> None:
        if record.operation == "infer":
            raise LookupError("no room in the log")

    options = {"on_request": refuse}
    for method, row in (("__call__", [[1]]), ("predict", [[1], [2]]), ("map", [[[1]]]), ("__call__", [[99]])):
        with pytest.raises(LookupError, match="no room in the log"):
            use(surface, url, "pick", method, row, options=options)


# ids


def _named(request_id: str, recorder: Recorder) -> list[str] | None:
    """The header that HTTP has an id in, for those who do not read messages; gRPC has it in the message alone."""
    return [request_id] if recorder.url.startswith("http") else None


def test_every_request_has_an_id_of_its_own(surface: str, recorder: Recorder) -> None:
    use(surface, recorder.url, "m", "map", [[[i]] for i in range(50)])
    ids = [_sent_id(request) for request in recorder.inferences]
    assert len(set(ids)) == 50
    assert all(len(sent) == 16 and int(sent, 16) >= 0 for sent in ids)
    named = [request.headers.get("x-request-id") for request in recorder.inferences]
    assert named == [_named(sent, recorder) for sent in ids]


@pytest.mark.parametrize("given", ["case-7", "a b", 'with "quotes"\\', "x" * 256])
def test_given_id_is_sent_as_it_is(given: str, surface: str, recorder: Recorder) -> None:
    use(surface, recorder.url, "m", "__call__", [[1]], request_id=given)
    (request,) = recorder.inferences
    assert (_sent_id(request), request.headers.get("x-request-id")) == (given, _named(given, recorder))


def test_id_that_no_header_can_carry_is_in_the_message_only(surface: str, recorder: Recorder) -> None:
    use(surface, recorder.url, "m", "__call__", [[1]], request_id="fünf")
    (request,) = recorder.inferences
    assert _sent_id(request) == "fünf"
    assert "x-request-id" not in request.headers


@pytest.mark.parametrize("given", ["a\r\nX-Evil: 1", "a\0", "\x7f", "x" * 257, 7, "\ud800"])
def test_id_that_is_no_line_of_text_is_refused(given: Any, surface: str, recorder: Recorder) -> None:
    with pytest.raises(InputError, match="The 'request_id' parameter must be printable text of at most 256 characters"):
        use(surface, recorder.url, "m", "__call__", [[1]], request_id=given)
    assert recorder.inferences == []


def test_real_server_echoes_the_id(url: str) -> None:
    with Client(url) as client, pytest.raises(InferenceFailedError) as caught:
        client.model("pick")([[99]], request_id="Nr. 5 ü")
    assert caught.value.request_id == "Nr. 5 ü"
    assert "Nr. 5 ü" not in str(caught.value)


# traces


METHODS = [("__call__", [[1]]), ("predict", np.arange(150)[:, None]), ("map", [[[1]], [[2]]])]


@pytest.mark.parametrize(("method", "rows"), METHODS, ids=[method for method, _ in METHODS])
def test_trace_goes_along_within_a_span(method: str, rows: Any, surface: str, recorder: Recorder, span: str) -> None:
    use(surface, recorder.url, "m", method, rows)
    assert recorder.inferences
    for request in recorder.inferences:
        (parent,) = request.headers.get("traceparent", ["none"])
        assert parent.split("-")[:2] == ["00", span]


def test_trace_goes_along_with_a_stream(surface: str, span: str) -> None:
    with recording("grpc") as recorder:
        use(surface, recorder.url, "m", "stream", [[1]])
        assert recorder.inferences[0].headers["traceparent"][0].split("-")[1] == span


def test_nothing_of_a_trace_goes_along_outside_of_a_span(surface: str, recorder: Recorder) -> None:
    use(surface, recorder.url, "m", "__call__", [[1]])
    assert not {"traceparent", "tracestate"} & recorder.inferences[0].headers.keys()


def test_nothing_of_a_trace_goes_along_where_opentelemetry_is_not_imported(
    surface: str, recorder: Recorder, span: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    use(surface, recorder.url, "m", "__call__", [[1]])
    assert "traceparent" not in recorder.inferences[0].headers


def test_opentelemetry_is_not_imported_by_a_call(recorder: Recorder) -> None:
    script = (
        "import sys\nfrom tritium.client import Client\n"
        f"with Client({recorder.url!r}) as client: client.model('m')([[1]])\n"
        "sys.exit('opentelemetry' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0


class UpperCase(TextMapPropagator):
    """What writes its header with capitals, as the propagator of AWS X-Ray does."""

    def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Any:
        return context

    def inject(self, carrier: Any, context: Any = None, setter: Any = None) -> None:
        carrier["X-Amzn-Trace-Id"] = "Root=1-5"

    @property
    def fields(self) -> set[str]:
        return {"X-Amzn-Trace-Id"}


def test_headers_of_any_propagator_go_along(surface: str, recorder: Recorder, span: str) -> None:
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(UpperCase())
    try:
        use(surface, recorder.url, "m", "__call__", [[1]])
    finally:
        propagate.set_global_textmap(before)
    assert recorder.inferences[0].headers["x-amzn-trace-id"] == ["Root=1-5"]


# parameters


def _parameters(request: Received) -> dict[str, Any]:
    if isinstance(request.body, bytes):
        return dict(request.json["parameters"])
    sent = request.body.parameters
    return {name: getattr(sent[name], sent[name].WhichOneof("parameter_choice")) for name in sent}


def test_parameters_are_sent_as_they_are(surface: str, recorder: Recorder) -> None:
    given = {"priority": 2**63, "negative": -5, "share": 0.5, "text": "é", "on": True, "off": False}
    use(surface, recorder.url, "m", "__call__", [[1]], parameters=given)
    sent = _parameters(recorder.inferences[0])
    assert {name: (type(value), value) for name, value in sent.items()} == {
        name: (type(value), value) for name, value in given.items()
    }


@pytest.mark.parametrize("value", [None, [1], {"a": 1}, b"x", 1j, 2**64, -(2**63) - 1, float("nan"), "\ud800"])
def test_parameter_that_the_protocol_does_not_know_is_refused(value: Any, surface: str, recorder: Recorder) -> None:
    with pytest.raises(InputError, match="The parameter 'mine' must be"):
        use(surface, recorder.url, "m", "__call__", [[1]], parameters={"mine": value})
    assert recorder.inferences == []


def test_time_that_is_left_is_the_limit_for_the_queue(surface: str, recorder: Recorder) -> None:
    recorder.extensions.append("schedule_policy")
    use(surface, recorder.url, "m", "__call__", [[1]], timeout_s=5)
    use(surface, recorder.url, "m", "__call__", [[1]], timeout_s=5, parameters={"timeout": 7})
    first, second = map(_parameters, recorder.inferences)
    assert 0 < first["timeout"] <= 5_000_000
    assert second["timeout"] == 7


def test_async_hook_is_called_in_the_loop_of_the_call(url: str) -> None:
    loops: list[Any] = []
    on_request: Callable[[RequestRecord], object] = lambda _record: loops.append(asyncio.get_running_loop())  # noqa: E731

    async def run() -> None:
        async with AsyncClient(url, on_request=on_request) as client:
            await client.model("pick")([[1]])
            assert set(loops) == {asyncio.get_running_loop()}

    asyncio.run(run())
