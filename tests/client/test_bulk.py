"""Many rows through a model: what comes back, how much is under way, and what becomes of rows that fail."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tritium.client import (
    AsyncClient,
    BulkError,
    Client,
    ConnectFailedError,
    InferenceFailedError,
    InputError,
    MissingExtraError,
    Outputs,
    RequestRecord,
    Retries,
)
from tritium.server import ADMIN_GROUPS, TritonServer

from .faulty_proxy import FaultyProxy
from .recording_servers import Recorder, recording
from .surfaces import SURFACES, bulk_tasks, use
from .table_models import DUO, TABLE, write_echo

ROWS = np.arange(22, dtype=np.float32).reshape(11, 2)
Use = Callable[..., Any]


@pytest.fixture(params=["http", "grpc"])
def protocol(request: pytest.FixtureRequest) -> str:
    """Each protocol."""
    return str(request.param)


@pytest.fixture(params=SURFACES)
def surface(request: pytest.FixtureRequest) -> str:
    """Each client."""
    return str(request.param)


@pytest.fixture(scope="module")
def echo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A Triton whose models give back their inputs: `duo`, `table` of strings and numbers, `single` without a batch."""
    repository: Path = tmp_path_factory.mktemp("bulk")
    write_echo(repository / "duo", DUO)
    write_echo(repository / "table", TABLE)
    write_echo(repository / "single", DUO, max_batch_size=0)
    with TritonServer(repository, open_groups=ADMIN_GROUPS) as running:
        yield running


@pytest.fixture
def echo(surface: str, protocol: str, echo_server: TritonServer) -> Use:
    """Uses a method of a model of that server, with each client over each protocol."""
    url = _url(echo_server, protocol)
    return lambda *arguments, **named: use(surface, url, *arguments, **named)


@pytest.fixture
def pick(surface: str, protocol: str, small_server: TritonServer) -> Use:
    """Uses a method of a model that takes 0, 1 or 2 and fails on anything else, with each client over each protocol."""
    url = _url(small_server, protocol)
    return lambda method, *arguments, **named: use(surface, url, "pick", method, *arguments, **named)


@pytest.fixture
def recorder(protocol: str) -> Iterator[Recorder]:
    """A server that can be made to wait: it gives back the numbers that it gets."""
    with recording(protocol) as running:
        yield running


def _url(server: TritonServer, protocol: str) -> str:
    return server.http_url if protocol == "http" else server.grpc_url


def _numbers(count: int) -> NDArray[np.int64]:
    return np.arange(count, dtype=np.int64).reshape(count, 1)


def _wait_until(condition: Callable[[], bool], within_s: float = 10) -> None:
    waiting = threading.Event()
    for _ in range(int(within_s / 0.005)):
        if condition():
            return
        waiting.wait(0.005)
    pytest.fail("what was waited for did not come")


# what comes back


@pytest.mark.parametrize("batch_size", [None, 1, 3, 4])
def test_results_are_those_of_calls_row_by_row(batch_size: int | None, echo: Use, echo_server: TritonServer) -> None:
    answer = echo("duo", "predict", ROWS, ROWS[::-1], batch_size=batch_size)
    with echo_server.client() as client:
        duo = client.model("duo")
        single = [duo(a, b) for a, b in zip(ROWS, ROWS[::-1], strict=True)]
    assert isinstance(answer, Outputs)
    assert list(answer) == ["same_a", "same_b"]
    for name, array in answer.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, [row[name] for row in single])


@pytest.mark.parametrize("how", ["names", "mapping", "lists"])
def test_inputs_may_be_given_as_for_a_call(how: str, echo: Use) -> None:
    inputs: dict[str, Any] = {"a": ROWS, "b": 2 * ROWS}
    answer = {
        "names": lambda: echo("duo", "predict", **inputs),
        "mapping": lambda: echo("duo", "predict", inputs),
        "lists": lambda: echo("duo", "predict", ROWS.tolist(), (2 * ROWS).tolist()),
    }[how]()
    np.testing.assert_array_equal(answer.same_b, 2 * ROWS)


@pytest.mark.parametrize("in_flight", [1, 2, 50])
def test_strings_and_numbers_come_back_together(
    in_flight: int, surface: str, protocol: str, echo_server: TritonServer
) -> None:
    rows: dict[str, Any] = {
        "island": np.array([[f"Île {i}"] for i in range(30)], dtype=object),
        "sex": np.array([["f" if i % 2 else ""] for i in range(30)]),
        "bill_length_mm": np.linspace(30, 60, 30, dtype=np.float32)[:, None],
        "year": _numbers(30),
    }
    answer = use(surface, _url(echo_server, protocol), "table", "predict", rows, in_flight=in_flight)
    assert {name: (array.dtype.kind, array.tolist()) for name, array in answer.items()} == {
        f"same_{name}": (array.dtype.kind if array.dtype.kind != "U" else "O", array.tolist())
        for name, array in rows.items()
    }


def test_only_output_comes_as_an_array(echo: Use) -> None:
    answer = echo("duo", "predict", ROWS, ROWS, outputs="same_b")
    np.testing.assert_array_equal(answer, ROWS)


def test_outputs_come_in_the_order_asked_for(echo: Use) -> None:
    wanted = (name for name in ("same_b", "same_a"))
    assert list(echo("duo", "predict", ROWS, ROWS, outputs=wanted)) == ["same_b", "same_a"]


def test_results_may_be_written_to(echo: Use) -> None:
    answer = echo("duo", "predict", ROWS, ROWS, outputs="same_a")
    answer += 1
    np.testing.assert_array_equal(answer, ROWS + 1)


def test_no_rows_give_no_results(echo: Use) -> None:
    seen: list[tuple[int, int]] = []
    answer = echo("duo", "predict", ROWS[:0], ROWS[:0], progress=lambda done, count: seen.append((done, count)))
    assert {name: (array.shape, array.dtype.name) for name, array in answer.items()} == {
        "same_a": ((0, 2), "float32"),
        "same_b": ((0, 2), "float32"),
    }
    assert seen == [(0, 0)]


def test_order_is_kept_where_later_parts_are_answered_first(surface: str, recorder: Recorder) -> None:
    others = threading.Event()

    def hold_the_first(number: int) -> None:
        if number == 0:
            others.wait(timeout=30)
        elif number == 3:
            others.set()

    recorder.on_infer = hold_the_first
    answer = use(surface, recorder.url, "m", "predict", _numbers(8), batch_size=1, in_flight=4)
    np.testing.assert_array_equal(answer, _numbers(8))


# how much is under way


@pytest.mark.parametrize("in_flight", [1, 3])
@pytest.mark.parametrize("method", ["predict", "map"])
def test_as_many_requests_are_under_way_as_asked_for_and_no_more(
    method: str, in_flight: int, surface: str, recorder: Recorder
) -> None:
    together, lock, under_way, most = threading.Barrier(in_flight), threading.Lock(), 0, 0

    def meet(_number: int) -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        together.wait(timeout=20)  # fewer would never get beyond
        with lock:
            under_way -= 1

    recorder.on_infer = meet
    rows = _numbers(4 * in_flight)
    inputs: Any = rows if method == "predict" else list(rows)
    more: dict[str, Any] = {"batch_size": 1} if method == "predict" else {}
    answer = use(surface, recorder.url, "m", method, inputs, in_flight=in_flight, **more)
    np.testing.assert_array_equal(answer, rows)
    assert most == in_flight


def test_rows_go_in_parts_of_the_batch_size(echo_server: TritonServer) -> None:
    records: list[RequestRecord] = []
    with Client(echo_server.http_url, on_request=records.append) as client:
        client.model("duo").predict(ROWS, ROWS, batch_size=3)
    assert len([record for record in records if record.operation == "infer"]) == 4


# wrong calls


@pytest.mark.parametrize("batch_size", [0, -1, 5, True, 2.0, "2"])
def test_batch_size_that_the_model_does_not_take_is_refused(batch_size: Any, echo: Use) -> None:
    with pytest.raises(InputError, match="The 'batch_size' parameter of predict must be 1 to 4, got"):
        echo("duo", "predict", ROWS, ROWS, batch_size=batch_size)


@pytest.mark.parametrize("in_flight", [0, -1, True, 2.0, "2"])
@pytest.mark.parametrize("method", ["predict", "map"])
def test_in_flight_that_is_no_number_of_requests_is_refused(method: str, in_flight: Any, echo: Use) -> None:
    with pytest.raises(InputError, match="The 'in_flight' parameter must be 1 or more, got"):
        echo("duo", method, *([ROWS, ROWS] if method == "predict" else [[ROWS]]), in_flight=in_flight)


def test_model_without_a_batch_axis_is_refused(echo: Use) -> None:
    with pytest.raises(InputError, match=r"'single' has no batch axis, .* use map\(\)"):
        echo("single", "predict", ROWS, ROWS)


def test_iterator_is_refused(pick: Use) -> None:
    with pytest.raises(InputError, match=r"predict\(\) takes arrays.*map\(\) takes an iterator"):
        pick("predict", iter([[1]]))


def test_inputs_of_different_numbers_of_rows_are_refused(echo: Use) -> None:
    with pytest.raises(InputError, match="the same number of rows, got a: 11, b: 10"):
        echo("duo", "predict", ROWS, ROWS[1:])


def test_row_without_the_batch_axis_is_refused(echo: Use) -> None:
    with pytest.raises(InputError, match=r"Input 'a' must have shape \(rows, 2\)"):
        echo("duo", "predict", ROWS[0], ROWS[0])


# progress


def test_progress_is_told_of_rows_done_and_all_rows(echo: Use) -> None:
    seen: list[tuple[int, int]] = []
    echo("duo", "predict", ROWS, ROWS, progress=lambda done, count: seen.append((done, count)))
    assert seen == [(4, 11), (8, 11), (11, 11)]


def test_progress_counts_rows_that_failed(pick: Use) -> None:
    seen: list[int] = []
    with pytest.raises(BulkError):
        pick("predict", [[0], [99], [1]], batch_size=1, progress=lambda done, _count: seen.append(done))
    assert seen == [1, 2, 3]


def test_bar_shows_the_rows(echo: Use, capsys: pytest.CaptureFixture[str]) -> None:
    echo("duo", "predict", ROWS, ROWS, progress=True)
    assert "11/11" in capsys.readouterr().err


def test_bar_without_tqdm_is_an_error_that_names_the_extra(echo: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tritium\[progress\]'"):
        echo("duo", "predict", ROWS, ROWS, progress=True)


# rows that fail


@pytest.mark.parametrize(
    ("batch_size", "failed", "values"),
    [
        (1, [range(2, 3), range(5, 6)], [10, 20, 0, 30, 10, 0, 20]),
        (2, [range(2, 4), range(4, 6)], [10, 20, 0, 0, 0, 0, 20]),
        (4, [range(4), range(4, 7)], None),
    ],
)
def test_rows_that_the_model_fails_on_are_named_and_the_others_are_there(
    batch_size: int, failed: list[range], values: list[float] | None, pick: Use
) -> None:
    index = np.array([0, 1, 99, 2, 0, -77, 1])[:, None]
    with pytest.raises(BulkError) as caught:
        pick("predict", index, batch_size=batch_size)
    error = caught.value
    assert [span for span, _ in error.failed] == failed
    assert all(isinstance(reason, InferenceFailedError) and reason.request_id for _, reason in error.failed)
    assert (error.failed_rows.dtype.name, error.failed_rows.tolist()) == ("int64", [i for span in failed for i in span])
    assert error.__cause__ is error.failed[0][1]
    if values is None:
        assert error.results is None
    else:
        np.testing.assert_array_equal(error.results, np.array(values, dtype=np.float32)[:, None])
    count = len(error.failed_rows)
    assert str(error).startswith(f"{count} of 7 rows have no results, the first at row {failed[0].start}: ")


def test_server_that_goes_away_ends_it_early_and_the_rest_is_among_the_failed(
    surface: str, protocol: str, small_server: TritonServer
) -> None:
    records: list[RequestRecord] = []
    index = np.arange(200)[:, None] % 3
    proxy = FaultyProxy(_url(small_server, protocol))
    proxy.__enter__()

    def go_away_after_some(done: int, _count: int) -> None:
        if done == 10:
            proxy.__exit__()

    options = {"on_request": records.append, "retries": Retries(attempts=1)}
    with pytest.raises(BulkError) as caught:
        use(
            surface,
            proxy.url,
            "pick",
            "predict",
            index,
            batch_size=1,
            progress=go_away_after_some,
            options=options,
        )
    error = caught.value
    arrived = np.setdiff1d(np.arange(200), error.failed_rows)
    assert 10 <= len(arrived) <= 10 + 8  # what was under way may still have been answered
    np.testing.assert_array_equal(error.results[arrived], 10.0 * (index[arrived] + 1))
    assert not error.results[error.failed_rows].any()
    last, reason = error.failed[-1]
    assert last.stop == 200
    assert all(isinstance(exc, ConnectFailedError) for _, exc in error.failed), reason
    assert len([record for record in records if record.operation == "infer"]) <= 10 + 2 * 8


def test_nothing_is_sent_where_nobody_listens(surface: str, protocol: str, refusing_address: str) -> None:
    with pytest.raises(ConnectFailedError):
        use(surface, f"{protocol}://{refusing_address}", "pick", "predict", [[1]])


def test_error_of_the_progress_function_reaches_the_caller(echo: Use) -> None:
    def stop(_done: int, _count: int) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        echo("duo", "predict", ROWS, ROWS, progress=stop)


# the end


def test_async_predict_that_is_cancelled_leaves_no_task(recorder: Recorder) -> None:
    held = threading.Event()
    recorder.on_infer = lambda number: number and held.wait(timeout=30)

    async def run() -> None:
        async with AsyncClient(recorder.url) as client:
            begun = asyncio.create_task(client.model("m").predict(_numbers(9), batch_size=1))
            while len(recorder.inferences) < 4:
                await asyncio.sleep(0.005)
            begun.cancel()
            with pytest.raises(asyncio.CancelledError):
                await begun
            assert bulk_tasks() == []

    try:
        asyncio.run(run())
    finally:
        held.set()


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("wrong", [{"outputs": "valve"}, {"outputs": 5}, {"parameters": {"x": float("nan")}}])
def test_predict_with_wrong_arguments_sends_nothing(
    surface: str, wrong: dict[str, Any], small_server: TritonServer
) -> None:
    records: list[RequestRecord] = []
    with pytest.raises(InputError) as caught:
        options = {"on_request": records.append}
        use(surface, small_server.http_url, "pick", "predict", [[1]] * 20, batch_size=1, options=options, **wrong)
    assert (caught.value.model, caught.value.url) == ("pick", small_server.http_url)
    assert len(records) <= 5
    assert not [record for record in records if record.operation == "infer"]
