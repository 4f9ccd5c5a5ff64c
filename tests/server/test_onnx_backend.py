"""The ONNX Runtime backends, native and Python-based, through a real server: one behaviour, and where it differs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from tritonclient.http import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from tritium.client import Client, InferenceFailedError, ServerError
from tritium.repository import Repository, verify_server
from tritium.server import ModelLoadError, TritonServer, _native

from .conftest import (
    DOUBLER_CONFIG,
    DTYPES,
    PATIENT,
    WriteModel,
    batch_sizes,
    config,
    doubler,
    identity,
    onnx_bytes,
    together,
    wait_until,
)

# Looks rows up in a table of three: an index beyond it fails the run, and only the model can know.
LOOKUP = onnx_bytes(
    [helper.make_node("Gather", ["table", "index"], ["row"]), helper.make_node("Identity", ["index"], ["echo"])],
    [("index", TensorProto.INT64, ("batch",))],
    [("row", TensorProto.FLOAT, ("batch", 2)), ("echo", TensorProto.INT64, ("batch",))],
    [numpy_helper.from_array(np.array([[0, 1], [2, 3], [4, 5]], dtype=np.float32), "table")],
)
LOOKUP_CONFIG = """
backend: "onnxruntime"
max_batch_size: 8
input { name: "index" data_type: TYPE_INT64 dims: 1 reshape { } }
output { name: "row" data_type: TYPE_FP32 dims: 2 }
output { name: "echo" data_type: TYPE_INT64 dims: 1 reshape { } }
instance_group { count: 1 kind: KIND_CPU }
"""


@pytest.fixture(scope="module")
def repository(folder: Path, write_model: WriteModel) -> Path:
    write_model("doubler", doubler(), DOUBLER_CONFIG)
    write_model("patient", doubler(("batch", "n")), config("x FP32 -1", "y FP32 -1", more=PATIENT))
    write_model("lookup", LOOKUP, LOOKUP_CONFIG)
    write_model("patient_lookup", LOOKUP, LOOKUP_CONFIG + PATIENT)
    write_model("strings", identity(TensorProto.STRING), config("x STRING -1", "y STRING -1", more=PATIENT))
    for name, element in DTYPES.items():
        write_model(f"identity_{name}", identity(element), config(f"x {name} -1", f"y {name} -1"))
    scalar = onnx_bytes(
        [helper.make_node("Add", ["a", "b"], ["sum"])],
        [("a", TensorProto.FLOAT, ()), ("b", TensorProto.FLOAT, (2, 3))],
        [("sum", TensorProto.FLOAT, (2, 3))],
    )
    write_model("unbatched", scalar, config("a FP32 1;b FP32 2,3", "sum FP32 2,3", batch=0))
    write_model("other_file", doubler(), DOUBLER_CONFIG + 'default_model_filename: "net.onnx"', file="net.onnx")
    settings = {
        "intra_op_thread_count": "2",
        "inter_op_thread_count": "2",
        "execution_mode": "1",
        "enable_mem_arena": "0",
        "enable_mem_pattern": "false",
    }
    lines = "".join(f'parameters {{ key: "{k}" value {{ string_value: "{v}" }} }}\n' for k, v in settings.items())
    write_model("tuned", doubler(), DOUBLER_CONFIG + lines + "optimization { graph { level: -1 } }")
    # NonZero finds as many rows as there are values other than 0, which nobody can know at load.
    loses_batch = onnx_bytes(
        [helper.make_node("NonZero", ["x"], ["places"]), helper.make_node("Transpose", ["places"], ["y"])],
        [("x", TensorProto.FLOAT, ("batch", 2))],
        [("y", TensorProto.INT64, ("rows", 2))],
    )
    write_model("loses_batch", loses_batch, config("x FP32 2", "y INT64 2"))
    return folder


@pytest.fixture(scope="module", params=["native", "python"])
def server(repository: Path, request: pytest.FixtureRequest) -> Iterator[TritonServer]:
    # What a test adds, it loads itself: some of it does not load.
    models = [path.name for path in repository.iterdir() if not path.name.startswith("added_")]
    with TritonServer(repository, models=models, onnx_backend=request.param) as running:
        assert running.onnx_backend == request.param
        yield running


@pytest.fixture(scope="module")
def http(server: TritonServer) -> Iterator[Client]:
    with server.client() as client:
        yield client


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_passes_through_unchanged(http: Client, dtype: str) -> None:
    model = http.model(f"identity_{dtype}")
    values = np.array([[0, 1, 1], [1, 0, 1]]).astype(np.bool_ if dtype == "BOOL" else np.float64)
    numpy_name = dtype.lower().replace("fp", "float")
    sent = values.astype(numpy_name)
    got = model(sent)
    assert got.dtype == sent.dtype
    np.testing.assert_array_equal(got, sent)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_strings_pass_both_ways(server: TritonServer, protocol: str) -> None:
    text = [["", "plain", "Grüße, 世界", "a\nb\0c"]]
    with server.client(protocol=protocol) as client:
        assert client.model("strings")(text).tolist() == text


def test_bytes_that_are_no_text_pass_natively_and_are_refused_by_python(server: TritonServer) -> None:
    bad = InferInput("x", [1, 1], "BYTES").set_data_from_numpy(np.array([[b"\xff\xfe"]], dtype=object))
    # The SDK gives strings as text, so this goes below it.
    with InferenceServerClient(server.http_url.removeprefix("http://")) as client:
        if server.onnx_backend == "native":
            assert client.infer("strings", [bad]).as_numpy("y").tolist() == [[b"\xff\xfe"]]
        else:
            with pytest.raises(InferenceServerException, match="UnicodeDecodeError"):
                client.infer("strings", [bad])


def test_requests_that_wait_together_run_as_one_batch(http: Client) -> None:
    model = http.model("patient")
    _ = model.metadata
    before = batch_sizes(http, "patient").get(5, 0)
    inputs = [np.full((1, 3), i, dtype=np.float32) for i in range(5)]
    for got, sent in zip(together(http, "patient", inputs), inputs, strict=True):
        np.testing.assert_array_equal(got, sent * 2)
    wait_until(lambda: batch_sizes(http, "patient").get(5, 0) == before + 1)


def test_requests_of_different_shapes_are_answered_each_in_its_own(http: Client) -> None:
    inputs = [np.ones((1, 2), np.float32), np.ones((2, 7), np.float32), np.ones((1, 7), np.float32)]
    for got, sent in zip(together(http, "patient", inputs), inputs, strict=True):
        np.testing.assert_array_equal(got, sent * 2)


def test_one_bad_request_fails_alone_and_not_its_batch(http: Client) -> None:
    inputs = [np.array([[index]], dtype=np.int64) for index in (0, 1, 99, 2, 1)]
    good, bad = [0, 1, 3, 4], 2
    # Five that are sent together do travel in one batch: otherwise this would show nothing.
    together(http, "patient_lookup", inputs[:1] * 5)
    wait_until(lambda: max(batch_sizes(http, "patient_lookup"), default=0) == 5)
    answers = together(http, "patient_lookup", inputs, outputs=["row"])
    assert isinstance(answers[bad], InferenceFailedError)
    assert "99" in str(answers[bad])
    for place in good:
        index = int(inputs[place][0, 0])
        np.testing.assert_array_equal(answers[place], [[2 * index, 2 * index + 1]])


def test_only_requested_outputs_are_returned(http: Client) -> None:
    model = http.model("lookup")
    assert list(model(np.array([[1]]))) == ["row", "echo"]
    assert model(np.array([[1]]), outputs=["row"]).tolist() == [[2.0, 3.0]]


def test_a_model_without_a_batch_axis_and_with_a_scalar(http: Client) -> None:
    got = http.model("unbatched")(a=[10.0], b=np.zeros((2, 3), np.float32))
    np.testing.assert_array_equal(got, np.full((2, 3), 10.0))


def test_zero_rows_are_refused_by_triton(http: Client) -> None:
    none = InferInput("x", [0, 2], "FP32").set_data_from_numpy(np.zeros((0, 2), np.float32))
    # The SDK answers no rows itself, so this goes below it.
    with (
        InferenceServerClient(http.url.removeprefix("http://")) as client,
        pytest.raises(InferenceServerException, match="input 'x'"),
    ):
        client.infer("doubler", [none])
    assert http.model("doubler")(np.zeros((0, 2), np.float32)).shape == (0, 2)


def test_an_output_that_loses_the_batch_axis_is_an_error_with_the_way_out(http: Client) -> None:
    with pytest.raises(InferenceFailedError, match="max_batch_size must be 0"):
        http.model("loses_batch")(np.ones((2, 2), np.float32))


@pytest.mark.parametrize("model", ["other_file", "tuned"])
def test_the_native_backends_config_keys_are_honoured(http: Client, model: str) -> None:
    assert http.model(model)([[1.0, 2.0]]).tolist() == [[2.0, 4.0]]


def accelerator(name: str) -> str:
    return f"optimization {{ execution_accelerators {{ cpu_execution_accelerator {{ name: '{name}' }} }} }}"


BAD_SETTINGS = {
    "parameters { key: 'intra_op_thread_count' value { string_value: 'many' } }": "intra_op_thread_count.*got 'many'",
    "parameters { key: 'intra_op_thread_count' value { string_value: '-1' } }": "whole number from 0",
    "parameters { key: 'inter_op_thread_count' value { string_value: '100000' } }": "from 0 to 1024, got '100000'",
    "parameters { key: 'execution_mode' value { string_value: '7' } }": "execution_mode.*got '7'",
    "parameters { key: 'enable_mem_arena' value { string_value: 'maybe' } }": "must be true, false, 1 or 0",
    "optimization { graph { level: 9 } }": "graph.level.*one of.*got.*9",
    accelerator("warp"): "unknown execution accelerator 'warp'",
    accelerator("tensorrt"): "unknown execution accelerator 'tensorrt'; here it may be one of .*openvino",
    "default_model_filename: 'nowhere.onnx'": "there is no .*nowhere.onnx",
    "default_model_filename: '../../doubler/1/model.onnx'": "must stay in the version's folder",
}


@pytest.mark.parametrize("setting", BAD_SETTINGS)
def test_a_bad_setting_is_refused_at_load(server: TritonServer, write_model: WriteModel, setting: str) -> None:
    name = f"added_{list(BAD_SETTINGS).index(setting)}_{server.onnx_backend}"
    write_model(name, doubler(), DOUBLER_CONFIG + setting)
    with pytest.raises(ServerError, match=BAD_SETTINGS[setting]):
        server.load(name)


def test_an_accelerator_that_is_not_there_is_passed_over_with_a_line_in_the_log(
    server: TritonServer, http: Client, write_model: WriteModel
) -> None:
    name = f"added_openvino_{server.onnx_backend}"
    write_model(name, doubler(), DOUBLER_CONFIG + accelerator("openvino"))
    server.load(name)
    assert http.model(name)([[1.0, 2.0]]).tolist() == [[2.0, 4.0]]
    wait_until(lambda: "has no OpenVINOExecutionProvider" in server.log.read_text())


@pytest.mark.parametrize("onnx_backend", ["native", "python"])
def test_a_missing_config_is_completed_from_the_model_file(tmp_path: Path, onnx_backend: str) -> None:
    for name, content in {"plain": doubler(("batch", 2)), "fixed": doubler((3, 2)), "lookup": LOOKUP}.items():
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "model.onnx").write_bytes(content)
    with TritonServer(tmp_path, onnx_backend=onnx_backend) as server, server.client() as client:
        plain = client.model("plain")
        assert plain.metadata.max_batch_size == 4
        assert "dynamic_batching" in plain.config
        assert plain([[1.0, 2.0]]).tolist() == [[2.0, 4.0]]
        assert client.model("fixed").metadata.max_batch_size == 0
        assert client.model("fixed")(np.ones((3, 2), np.float32)).shape == (3, 2)
        lookup = client.model("lookup")
        if onnx_backend == "native":  # one value a row, as Triton's own backend has it
            assert lookup.metadata.max_batch_size == 4
            assert lookup(np.array([[1], [2]]), outputs=["row"]).tolist() == [[2.0, 3.0], [4.0, 5.0]]
        else:  # a Python-based backend cannot declare that: the model takes its rows as they come
            assert lookup.metadata.max_batch_size == 0
            assert lookup(np.array([1]), outputs=["row"]).tolist() == [[2.0, 3.0]]


# What stands in the place of libonnxruntime, and how the native backend's check at its start refuses it.
STRANGERS = {
    "nothing of ONNX Runtime": ("int other;", "is no ONNX Runtime: it has no OrtGetApiBase"),
    "an older API": ('"1.14.1"', "ONNX Runtime 1.14.1 in .* is not one that this backend knows: it must be 1.15 or"),
    "another major version": ('"2.0.0"', r"ONNX Runtime 2.0.0 in .* or a later 1\.x"),
    "a version that does not give its own API": ('"1.31.0"', "ONNX Runtime 1.31.0 in .* is not one"),
}
ORT_OF_VERSION = """
struct Base { const void* (*GetApi)(unsigned); const char* (*GetVersionString)(); };
static const void* api(unsigned) { return nullptr; }
static const char* version() { return %s; }
static const Base base = {api, version};
extern "C" const Base* OrtGetApiBase() { return &base; }
"""


@pytest.mark.parametrize("stranger", STRANGERS)
def test_an_onnx_runtime_that_it_does_not_know_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stranger: str
) -> None:
    content, message = STRANGERS[stranger]
    library = tmp_path / "libonnxruntime.so.1.99.0"
    source = ORT_OF_VERSION % content if content.startswith('"') else content
    subprocess.run(["c++", "-shared", "-fPIC", "-x", "c++", "-", "-o", library], input=source.encode(), check=True)
    (tmp_path / "repository/doubler/1").mkdir(parents=True)
    (tmp_path / "repository/doubler/1/model.onnx").write_bytes(doubler())
    (tmp_path / "repository/doubler/config.pbtxt").write_text(DOUBLER_CONFIG)
    monkeypatch.setattr(_native, "ort_library", lambda: library)
    with pytest.raises(ModelLoadError, match=message):
        TritonServer(tmp_path / "repository", onnx_backend="native").start()


def test_a_bool_that_is_neither_0_nor_1_is_refused(server: TritonServer) -> None:
    bad = np.array([[0, 1, 255]], np.uint8).view(np.bool_)
    # The SDK gives booleans as booleans, so this goes below it.
    with InferenceServerClient(server.http_url.removeprefix("http://")) as client:
        tensor = InferInput("x", [1, 3], "BOOL").set_data_from_numpy(bad)
        with pytest.raises(InferenceServerException, match="'x' is BOOL, so its bytes must be 0 or 1"):
            client.infer("identity_BOOL", [tensor])


@pytest.mark.parametrize("onnx_backend", ["native", "python"])
def test_the_reference_models_keep_their_golden_cases(zoo: Repository, onnx_backend: str) -> None:
    before = {path: path.read_bytes() for path in zoo.path.rglob("*") if path.is_file()}
    with TritonServer(zoo.path, onnx_backend=onnx_backend) as server, server.client() as client:
        verdicts = list(verify_server(client, zoo))
    assert [verdict.model for verdict in verdicts] == zoo.models()
    assert all(verdict.ok for verdict in verdicts), "\n".join(map(str, verdicts))
    assert {path: path.read_bytes() for path in zoo.path.rglob("*") if path.is_file()} == before
