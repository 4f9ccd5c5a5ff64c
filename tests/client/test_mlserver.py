"""The SDK against MLServer: it speaks the V2 protocol, and not only Triton's dialect of it.

MLServer has no binary tensors over HTTP, no configs, no statistics, and versions that are not numbers; over gRPC it
answers unknown methods with UNIMPLEMENTED. After an error of a model it closes the connection without saying so.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tritium.client import (
    AsyncClient,
    Client,
    InferenceFailedError,
    InputError,
    ModelNotFoundError,
    RequestRecord,
    RequestRejectedError,
    ServerError,
    TensorSpec,
)
from tritium.server._log import ServerLog
from tritium.server._process import BoundProcess

from .environments import environment

HERE = Path(__file__).resolve().parent
HOST = "127.0.0.1"
START_TIMEOUT_S = 60.0
# A value of each dtype that MLServer knows, with the ends of its range; 2 rows of 3.
VALUES: dict[str, Sequence[Any]] = {
    "BOOL": [True, False, False, True, True, False],
    "UINT8": [0, 1, 2, 127, 128, 255],
    "UINT16": [0, 1, 2, 255, 256, 65535],
    "UINT32": [0, 1, 2, 2**31 - 1, 2**31, 2**32 - 1],
    "UINT64": [0, 1, 2, 2**63 - 1, 2**63, 2**64 - 1],
    "INT8": [0, 1, -1, 126, 127, -128],
    "INT16": [0, 1, -1, 256, 2**15 - 1, -(2**15)],
    "INT32": [0, 1, -1, 65536, 2**31 - 1, -(2**31)],
    "INT64": [0, 1, -1, 2**53 + 1, 2**63 - 1, -(2**63)],
    "FP16": [0, -0.0, 0.1, 65504, 6e-8, -1],
    "FP32": [0, -0.0, 0.1, 3.4028235e38, 1e-45, -1],
    "FP64": [0, -0.0, 0.1, 1.7976931348623157e308, 5e-324, -1],
}
NUMPY = {"BOOL": "bool", "FP16": "float16", "FP32": "float32", "FP64": "float64"}


@dataclass(frozen=True)
class Running:
    """An MLServer, and what scikit-learn itself says of every flower."""

    http: str
    grpc: str
    flowers: NDArray[np.float64]
    kinds: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    petals: NDArray[np.float64]


@dataclass(frozen=True)
class Side:
    """A client of one kind over one protocol.

    Attributes:
        done: waits for what the asynchronous client returns.
        records: what the client told its hook.
    """

    client: Any
    protocol: str
    done: Callable[[Any], Any]
    records: list[RequestRecord]

    def model(self, name: str, version: str | None = None) -> Any:
        return self.client.model(name, version)

    def ask(self, name: str, *inputs: Any, **options: Any) -> Any:
        return self.done(self.client.model(name)(*inputs, **options))

    def metadata(self, name: str) -> Any:
        metadata = self.client.model(name).metadata
        return self.done(metadata()) if callable(metadata) else metadata


@pytest.fixture(scope="module")
def mlserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """An MLServer in an environment of its own, which the first run of the tests makes."""
    python = environment("mlserver", HERE / "mlserver-requirements.txt")
    folder = tmp_path_factory.mktemp("mlserver")
    subprocess.run([python, HERE / "mlserver_models/fit.py", folder], check=True, timeout=120)
    http_port, grpc_port = _free_ports(2)
    _lay_out(folder, http_port, grpc_port)
    process = BoundProcess(
        [str(python), "-c", "from mlserver.cli import main; main()", "start", str(folder)],
        # Settings of the user's own MLServer must not change what is tested.
        env={name: value for name, value in os.environ.items() if not name.startswith("MLSERVER_")},
        folder=folder,
        log=ServerLog(folder / "mlserver.log"),
    )
    process.start()
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (_says_ready(http_port) and _listens(grpc_port)):
            if process.exit_code() is not None or time.monotonic() > deadline:
                pytest.fail("\n".join(["MLServer does not start:", *process.tail]))
            process.wait(0.05)
        with np.load(folder / "expected.npz") as expected:
            yield Running(f"http://{HOST}:{http_port}", f"grpc://{HOST}:{grpc_port}", **expected)
    finally:
        process.stop(10)


@pytest.fixture(params=["http", "grpc", "http-async", "grpc-async"])
def side(request: pytest.FixtureRequest, mlserver: Running) -> Iterator[Side]:
    """A client of either kind over either protocol."""
    protocol, _, asynchronous = request.param.partition("-")
    url: str = getattr(mlserver, protocol)
    records: list[RequestRecord] = []
    if not asynchronous:
        with Client(url, on_request=records.append) as client:
            yield Side(client, protocol, lambda value: value, records)
        return
    with asyncio.Runner() as runner:

        async def opened() -> AsyncClient:
            return AsyncClient(url, on_request=records.append)

        def done(value: Any) -> Any:
            return runner.run(value) if inspect.iscoroutine(value) else value

        connected = runner.run(opened())
        yield Side(connected, protocol, done, records)
        runner.run(connected.close())


# the server and its models


def test_server_is_ready(side: Side) -> None:
    side.done(side.client.wait_ready(timeout_s=10))
    assert side.done(side.client.is_ready()) is True


def test_model_is_ready(side: Side) -> None:
    assert side.done(side.client.is_ready("iris")) is True


def test_model_that_there_is_not_is_not_ready(side: Side) -> None:
    assert side.done(side.client.is_ready("tulips")) is False


def test_index_has_every_model_in_words_of_the_protocol(side: Side) -> None:
    found = {status.name: (status.version, status.state) for status in side.done(side.client.models())}
    assert found == {
        "iris": ("v1", "READY"),
        "petals": ("", "READY"),
        **{f"echo_{dtype.lower()}": ("", "READY") for dtype in [*VALUES, "BYTES"]},
    }


def test_metadata_tells_inputs_and_outputs_and_no_limit_of_rows(side: Side) -> None:
    metadata = side.metadata("iris")
    assert metadata.inputs == (TensorSpec("flower", "FP64", (-1, 4)),)
    assert metadata.outputs == (
        TensorSpec("predict", "INT64", (-1, 1)),
        TensorSpec("predict_proba", "FP64", (-1, 3)),
    )
    assert (metadata.name, metadata.platform, metadata.versions) == ("iris", "sklearn", ("sklearn/1.9.1",))
    assert metadata.max_batch_size is None


def test_model_unloaded_is_gone_until_it_is_loaded_again(side: Side) -> None:
    row = np.array([[1.0, 2.0, 3.0]])
    side.done(side.client.unload("echo_fp64"))
    try:
        assert side.done(side.client.is_ready("echo_fp64")) is False
        with pytest.raises(ModelNotFoundError):
            side.ask("echo_fp64", row)
    finally:
        side.done(side.client.load("echo_fp64"))
    np.testing.assert_array_equal(side.ask("echo_fp64", row), row)


# calls


@pytest.mark.parametrize("dtype", VALUES)
def test_tensor_of_any_dtype_comes_back_as_it_went(dtype: str, side: Side) -> None:
    sent = np.array(VALUES[dtype], NUMPY.get(dtype, dtype.lower())).reshape(2, 3)
    answer = side.ask(f"echo_{dtype.lower()}", sent)
    assert (answer.dtype, answer.shape, answer.tobytes()) == (sent.dtype, sent.shape, sent.tobytes())


def test_strings_come_back_as_they_went(side: Side) -> None:
    sent = np.array([["", "iris", "Schwertlilie"], ["あやめ", 'a "b"\n', "\x00"]], dtype=object)
    answer = side.ask("echo_bytes", sent)
    assert (answer.dtype, answer.tolist()) == (sent.dtype, sent.tolist())


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("echo_bytes", np.array([[b"\xff\xfe", b"\x00\x80", b"\xc3"]], dtype=object)),
        ("echo_fp32", np.array([[np.inf, -np.inf, 0]], dtype=np.float32)),
    ],
    ids=["bytes-that-are-no-text", "infinities"],
)
def test_what_json_cannot_say_goes_over_grpc_and_is_refused_over_http(
    name: str, sent: NDArray[Any], side: Side
) -> None:
    if side.protocol == "grpc":
        assert side.ask(name, sent).tolist() == sent.tolist()
    else:
        with pytest.raises(InputError, match="use gRPC"):
            side.ask(name, sent)


def test_what_is_not_a_number_stays_so(side: Side) -> None:
    sent = np.array([[np.nan, 1, np.nan]], dtype=np.float32)
    np.testing.assert_array_equal(side.ask("echo_fp32", sent), sent)


@pytest.mark.parametrize("dtype", ["FP32", "BYTES"])
def test_no_rows_get_no_rows(dtype: str, side: Side) -> None:
    sent = np.empty((0, 3), object if dtype == "BYTES" else np.float32)
    answer = side.ask(f"echo_{dtype.lower()}", sent)
    assert (answer.dtype, answer.shape) == (sent.dtype, (0, 3))


def test_model_answers_as_scikit_learn_does(side: Side, mlserver: Running) -> None:
    answer = side.ask("iris", mlserver.flowers, outputs=["predict", "predict_proba"])
    np.testing.assert_array_equal(answer["predict"].ravel(), mlserver.kinds)
    np.testing.assert_allclose(answer["predict_proba"], mlserver.probabilities, rtol=1e-12)


def test_answer_without_all_declared_outputs_is_taken_if_none_was_asked_for(side: Side, mlserver: Running) -> None:
    # MLServer's scikit-learn runtime computes only `predict` then.
    np.testing.assert_array_equal(side.ask("iris", mlserver.flowers).ravel(), mlserver.kinds)


def test_batch_axis_is_added_and_taken_away_again(side: Side, mlserver: Running) -> None:
    answer = side.ask("iris", mlserver.flowers[60], outputs=["predict_proba"])
    assert answer.shape == (3,)
    np.testing.assert_allclose(answer, mlserver.probabilities[60], rtol=1e-12)


def test_safe_cast_and_any_memory_order_are_sent_right(side: Side, mlserver: Running) -> None:
    rows = np.asfortranarray(mlserver.flowers.astype(np.float32))[::-3]
    answer = side.ask("iris", rows, outputs=["predict"])
    np.testing.assert_array_equal(answer.ravel(), mlserver.kinds[::-3])


def test_version_is_what_the_server_calls_it(side: Side, mlserver: Running) -> None:
    answer = side.done(side.model("iris", "v1")(mlserver.flowers))
    np.testing.assert_array_equal(answer.ravel(), mlserver.kinds)


def test_model_that_declares_nothing_is_asked_by_name(side: Side, mlserver: Running) -> None:
    answer = side.ask("petals", sepals=mlserver.flowers[:, :2])
    np.testing.assert_allclose(answer, mlserver.petals, rtol=1e-12)


def test_request_id_and_deadline_are_accepted(side: Side, mlserver: Running) -> None:
    answer = side.ask("iris", mlserver.flowers, request_id="case-7", timeout_s=10)
    np.testing.assert_array_equal(answer.ravel(), mlserver.kinds)


def test_predict_takes_many_rows_and_keeps_their_order(side: Side, mlserver: Running) -> None:
    rows = np.tile(mlserver.flowers, (7, 1))
    answer = side.done(side.model("iris").predict(rows, batch_size=64, outputs=["predict_proba"]))
    np.testing.assert_allclose(answer, np.tile(mlserver.probabilities, (7, 1)), rtol=1e-12)


def test_answers_do_not_make_the_metadata_look_old(side: Side, mlserver: Running) -> None:
    # The versions in MLServer's metadata are those of libraries, and never the one in its answers.
    side.ask("iris", mlserver.flowers)
    side.records.clear()
    for _ in range(3):
        side.ask("iris", mlserver.flowers)
    assert [record.operation for record in side.records] == ["infer"] * 3


# errors


@pytest.mark.parametrize("version", [None, "v1"])
def test_unknown_model_is_its_own_error_with_the_closest_name(version: str | None, side: Side) -> None:
    with pytest.raises(ModelNotFoundError, match=r"not found.*Did you mean 'iris'\?") as caught:
        side.done(side.model("irus", version)(np.zeros((1, 4))))
    assert caught.value.model == "irus"
    assert "iris" in caught.value.valid


def test_unknown_version_is_its_own_error_with_those_there_are(side: Side) -> None:
    with pytest.raises(ModelNotFoundError, match=r"with version v9 not found.*serves version v1") as caught:
        side.done(side.model("iris", "v9")(np.zeros((1, 4))))
    assert caught.value.valid == ("v1",)


def test_shape_that_the_metadata_forbids_is_refused_here(side: Side) -> None:
    with pytest.raises(InputError, match=r"must have shape \(rows, 4\)"):
        side.ask("iris", np.zeros((2, 3)))


def test_failure_of_the_model_is_mapped_with_the_reason_that_the_server_gives(side: Side) -> None:
    # Over HTTP, MLServer keeps the reason to itself.
    reason = "Internal Server Error" if side.protocol == "http" else "X has 3 features, but LinearRegression"
    with pytest.raises(InferenceFailedError, match=reason):
        side.ask("petals", sepals=np.zeros((2, 3)))


def test_request_that_the_model_finds_wrong_is_mapped_with_its_reason(side: Side) -> None:
    with pytest.raises(RequestRejectedError, match="do not support 'predict_proba"):
        side.ask("petals", sepals=np.zeros((2, 2)), outputs=["predict_proba"])


def test_next_call_after_a_failure_is_answered(side: Side, mlserver: Running) -> None:
    # The connection of the failed call is closed behind the client's back.
    for _ in range(5):
        with pytest.raises(ServerError):
            side.ask("petals", sepals=np.zeros((2, 3)))
        answer = side.ask("petals", sepals=mlserver.flowers[:3, :2])
        np.testing.assert_allclose(answer, mlserver.petals[:3], rtol=1e-12)


def _lay_out(folder: Path, http_port: int, grpc_port: int) -> None:
    """The server's settings and those of its models."""
    server = {
        "host": HOST,
        "http_port": http_port,
        "grpc_port": grpc_port,
        "metrics_endpoint": None,
        "parallel_workers": 0,
        "debug": False,
    }
    (folder / "settings.json").write_text(json.dumps(server))
    shutil.copy2(HERE / "mlserver_models/echo.py", folder)
    iris: dict[str, Any] = {
        "platform": "sklearn",
        "versions": ["sklearn/1.9.1"],
        "parameters": {"uri": "model.pickle", "version": "v1"},
        "inputs": [{"name": "flower", "datatype": "FP64", "shape": [-1, 4]}],
        "outputs": [
            {"name": "predict", "datatype": "INT64", "shape": [-1, 1]},
            {"name": "predict_proba", "datatype": "FP64", "shape": [-1, 3]},
        ],
    }
    models: dict[str, dict[str, Any]] = {"iris": iris, "petals": {"parameters": {"uri": "model.pickle"}}}
    for settings in models.values():
        settings["implementation"] = "mlserver_sklearn.SKLearnModel"
    for dtype in [*VALUES, "BYTES"]:
        models[f"echo_{dtype.lower()}"] = {
            "implementation": "echo.Echo",
            "inputs": [{"name": "x", "datatype": dtype, "shape": [-1, 3]}],
            "outputs": [{"name": "x_again", "datatype": dtype, "shape": [-1, 3]}],
        }
    for name, settings in models.items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "model-settings.json").write_text(json.dumps({"name": name, **settings}))


def _free_ports(count: int) -> list[int]:
    """Different ports on loopback that nothing listens on."""
    probes = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports: list[int] = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _says_ready(port: int) -> bool:
    connection = HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=5).close()
    except OSError:
        return False
    return True
