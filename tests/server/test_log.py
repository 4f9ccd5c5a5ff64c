"""Triton's log: what its lines become as JSON, and how one request is followed through it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from tritium.client import InferenceFailedError, InputError
from tritium.server import Supervisor, TritonServer
from tritium.server._log import ServerLog, json_lines

from .conftest import DOUBLER_CONFIG, config, doubler, onnx_bytes, post, wait_until

HEAD = "1231 23:59:59.000001 7 infer_request.cc:132]"
AFTER_MIDNIGHT = datetime(2027, 1, 1, 0, 0, 5, tzinfo=UTC)
# y = table[i], which fails where i is not below 3.
LOOK_UP = onnx_bytes(
    [helper.make_node("Gather", ["table", "i"], ["y"])],
    [("i", TensorProto.INT64, ("batch", 1))],
    [("y", TensorProto.FLOAT, ("batch", 1))],
    [numpy_helper.from_array(np.array([10, 20, 30], np.float32), "table")],
)
# Python's backend runs it in a process of its own, whose output is Triton's.
PRINTING = """
import triton_python_backend_utils as pb

class TritonPythonModel:
    def initialize(self, args):
        print('it says "hello"')
        print("and begins a line", end="", flush=True)
        pb.Logger.log_warn("two\\nlines")

    def execute(self, requests):
        return [pb.InferenceResponse([pb.Tensor("y", request.inputs()[0].as_numpy())]) for request in requests]
"""


def as_json(line: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in json_lines(line, AFTER_MIDNIGHT)]


def read(server: TritonServer) -> list[dict[str, Any]]:
    """Every line of the log, each of which must be a JSON object."""
    return [json.loads(line) for line in server.log.read_text(encoding="utf-8").splitlines()]


def test_a_day_that_this_year_or_the_last_does_not_have_is_no_error() -> None:
    for year in (2027, 2028):
        now = datetime(year, 1, 1, tzinfo=UTC)
        (line,) = json_lines('I0229 12:00:00.000001 7 model.py:1] "printed"', now)
        assert json.loads(line)["time"] == f"{year}-01-01T00:00:00.000000Z"


def test_a_line_of_tritons_becomes_its_parts() -> None:
    assert as_json(f'W{HEAD} "[request id: a-1] took \\"long\\"\\nand longer"') == [
        {
            "time": "2026-12-31T23:59:59.000001Z",
            "level": "WARNING",
            "source": "infer_request.cc:132",
            "message": '[request id: a-1] took "long"\nand longer',
            "request_id": "a-1",
        }
    ]


OTHER_LINES: dict[str, tuple[str, list[tuple[str, str | None, str]]]] = {
    "somebody's print": ("hello", [("INFO", None, "hello")]),
    "a row of a table": ("| py | 1 | READY |", [("INFO", None, "| py | 1 | READY |")]),
    "the head of a table": (f"I{HEAD} ", []),
    "nothing": ("", []),
    "a print that Triton broke into": (f'half{"E" + HEAD} "x"', [("INFO", None, "half"), ("ERROR", "x", "x")]),
    "no JSON in quotes": (f'E{HEAD} "half', [("ERROR", "x", '"half')]),
    "nested beyond reading": (f"I{HEAD} {'[' * 100_000}", [("INFO", "x", "[" * 100_000)]),
    "a day that there is not": ('I0230 99:59:59.000001 7 fake] "x"', [("INFO", "fake", "x")]),
}


@pytest.mark.parametrize("what", OTHER_LINES)
def test_any_other_line_is_somebodys_and_nothing_is_lost(what: str) -> None:
    line, wanted = OTHER_LINES[what]
    got = [(item["level"], item.get("source"), item["message"]) for item in as_json(line)]
    assert got == [
        (level, "infer_request.cc:132" if source == "x" else source, message) for level, source, message in wanted
    ]


def test_a_request_without_an_id_has_none_in_json() -> None:
    (line,) = as_json(f'I{HEAD} "[request id: <id_unknown>] prepared"')
    assert "request_id" not in line


def test_a_note_goes_into_the_log_in_its_format(tmp_path: Path) -> None:
    text, as_objects = ServerLog(tmp_path / "text"), ServerLog(tmp_path / "json", "json")
    assert text.note("it's back", "WARNING") == "it's back"
    shown = as_objects.note("it's back", "WARNING")
    text.close()
    as_objects.close()
    assert (tmp_path / "text").read_text().startswith("W")
    assert (tmp_path / "text").read_text().endswith('supervisor:0] "it\'s back"\n')
    assert (tmp_path / "json").read_text() == shown + "\n"
    note = json.loads(shown)
    assert (note["level"], note["source"], note["message"]) == ("WARNING", "supervisor", "it's back")
    assert ServerLog(tmp_path / "gone" / "log").note("x") == "x", "a server that is not there has no log"


def test_an_unknown_format_is_refused_with_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    with pytest.raises(InputError, match="'log_format' parameter must be one of text, json, got 'xml'"):
        TritonServer(tmp_path, log_format="xml")


@pytest.fixture(scope="module", params=["native", "python"])
def verbose(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[TritonServer]:
    """A server that logs every request as JSON, with a model that prints."""
    folder = tmp_path_factory.mktemp("repository")
    files = {
        "look_up/1/model.onnx": LOOK_UP,
        "look_up/config.pbtxt": config("i INT64 1", "y FP32 1").encode(),
        "printing/1/model.py": PRINTING.encode(),
        "printing/config.pbtxt": config("x FP32 2", "y FP32 2").replace("onnxruntime", "python").encode(),
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    with TritonServer(folder, onnx_backend=request.param, log_format="json", log_verbose=True) as server:
        yield server


def test_what_a_model_prints_is_in_the_json_log(verbose: TritonServer) -> None:
    lines = read(verbose)
    messages = [line["message"] for line in lines]
    assert {'it says "hello"', "and begins a line", "two\nlines"} <= set(messages)
    assert all(line["time"].endswith("Z") and line["level"] in ("INFO", "WARNING", "ERROR") for line in lines)
    # A start that fails is explained by these, so they stay as Triton writes them.
    assert verbose._process is not None
    assert any('] "two\\nlines"' in line for line in verbose._process.tail)


def followed(server: TritonServer, request_id: str, wanted: Callable[[set[str]], bool]) -> list[dict[str, Any]]:
    """The lines with that id, once the parts of the stack that are wanted have spoken."""
    lines: list[dict[str, Any]] = []

    def there() -> bool:
        lines[:] = [line for line in read(server) if line.get("request_id") == request_id]
        return wanted({line["source"].partition(":")[0] for line in lines})

    wait_until(there)
    return lines


def backend_source(server: TritonServer) -> str:
    return "tritium" if server.onnx_backend == "native" else "batching.py"


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_request_is_followed_by_its_id_from_the_client_to_the_backend(verbose: TritonServer, protocol: str) -> None:
    source = backend_source(verbose)
    with verbose.client(protocol=protocol) as client:
        assert client.model("look_up")([[1]], request_id=f"order-{protocol}").tolist() == [[20.0]]
        lines = followed(verbose, f"order-{protocol}", lambda sources: {"infer_request.cc", source} <= sources)
    (ours,) = (line for line in lines if line["source"].startswith(source))
    assert "look_up_0_0 answered" in ours["message"]
    assert ours["level"] == "INFO"


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_request_that_the_model_fails_on_is_in_the_log_by_its_id(verbose: TritonServer, protocol: str) -> None:
    with verbose.client(protocol=protocol) as client:
        with pytest.raises(InferenceFailedError, match="indices element out of data bounds") as caught:
            client.model("look_up")([[7]], request_id=f"lost-{protocol}")
        assert caught.value.request_id == f"lost-{protocol}"
        lines = followed(verbose, f"lost-{protocol}", lambda sources: backend_source(verbose) in sources)
    (ours,) = (line for line in lines if line["level"] == "WARNING")
    assert "look_up_0_0 failed: " in ours["message"]
    assert "indices element out of data bounds" in ours["message"]


def test_a_request_that_triton_refuses_itself_is_in_the_verbose_log(verbose: TritonServer) -> None:
    answer = post(verbose, "look_up", [("i", "INT64", [1, 1], b"\0" * 3)], id="short")
    assert answer.status == 400
    lines = followed(verbose, "short", lambda sources: "http_server.cc" in sources)
    assert any("byte size" in line["message"] for line in lines)


@pytest.mark.parametrize("onnx_backend", ["native", "python"])
def test_a_log_that_is_not_verbose_has_only_what_the_model_failed_on(tmp_path: Path, onnx_backend: str) -> None:
    (tmp_path / "look_up" / "1").mkdir(parents=True)
    (tmp_path / "look_up" / "1" / "model.onnx").write_bytes(LOOK_UP)
    (tmp_path / "look_up" / "config.pbtxt").write_text(config("i INT64 1", "y FP32 1"))
    with TritonServer(tmp_path, onnx_backend=onnx_backend) as server, server.client() as client:
        client.model("look_up")([[0]], request_id="good")
        with pytest.raises(InferenceFailedError):
            client.model("look_up")([[3]], request_id="bad")
        wait_until(lambda: "[request id: bad] look_up_0_0 failed: " in server.log.read_text())
        assert "request id: good" not in server.log.read_text()


def test_what_the_supervisor_does_is_in_the_log_and_said_as_json(tmp_path: Path) -> None:
    (tmp_path / "doubler" / "1").mkdir(parents=True)
    (tmp_path / "doubler" / "1" / "model.onnx").write_bytes(doubler())
    (tmp_path / "doubler" / "config.pbtxt").write_text(DOUBLER_CONFIG)
    said: list[str] = []
    server = TritonServer(tmp_path, onnx_backend="native", log_format="json", progress=said.append)
    with Supervisor(server, progress=said.append) as supervisor:
        psutil.Process(server.pid).kill()
        wait_until(lambda: any("is serving again, 1 of 1" in line for line in said))
        supervisor.reload("doubler")
        logged = [(line["level"], line["message"]) for line in read(server) if line.get("source") == "supervisor"]
    assert [(line["level"], line["message"]) for line in map(json.loads, said)] == logged
    assert [level for level, _ in logged] == ["WARNING", "INFO", "INFO"]
