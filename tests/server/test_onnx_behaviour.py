"""What the ONNX Runtime backends do with tensors of every kind: scalars, empty ones, strings, odd places in memory."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from http.client import HTTPConnection
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from onnx import TensorProto, helper, numpy_helper
from tritonclient.utils import InferenceServerException, shared_memory

from tritium.client import Client, InferenceFailedError
from tritium.server import TritonServer

from .conftest import (
    DTYPES,
    ON_CPU,
    PATIENT,
    Serve,
    Tensor,
    at_once,
    batch_sizes,
    config,
    identity,
    native_only,
    onnx_bytes,
    post,
    together,
    wait_until,
)

# y = x + bias, where bias need not be sent.
WITH_DEFAULT = onnx_bytes(
    [helper.make_node("Add", ["x", "bias"], ["y"])],
    [("x", TensorProto.FLOAT, (2,)), ("bias", TensorProto.FLOAT, (2,))],
    [("y", TensorProto.FLOAT, (2,))],
    [numpy_helper.from_array(np.array([10, 20], np.float32), "bias")],
)
OPTIONAL_BIAS = 'input { name: "bias" data_type: TYPE_FP32 dims: 2 optional: true }'


def array(numpy_type: Any, *values: Any) -> Any:
    return np.array(values, dtype=numpy_type)


def numpy_type(dtype: str) -> Any:
    return ml_dtypes.bfloat16 if dtype == "BF16" else np.dtype(dtype.lower().replace("fp", "float"))


def strings(*values: bytes) -> bytes:
    """BYTES as they travel."""
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


@native_only
def test_an_optional_input_takes_the_models_default_if_left_out_natively(
    onnx_server: TritonServer, serve: Serve
) -> None:
    """ONNX Runtime's Python binding does not list such inputs among a session's own."""
    name = serve(WITH_DEFAULT, config("x FP32 2", "y FP32 2", batch=0, more=OPTIONAL_BIAS))
    x, bias = ("x", "FP32", [2], array("f4", 1, 2).tobytes()), ("bias", "FP32", [2], array("f4", 3, 4).tobytes())
    for sent, expected in (([x], [11, 22]), ([x, bias], [4, 6]), ([bias, x], [4, 6]), ([x], [11, 22])):
        answer = post(onnx_server, name, sent)
        assert np.frombuffer(answer.outputs["y"], np.float32).tolist() == expected, answer.error
    refused = post(onnx_server, name, [bias])  # x itself is not optional
    assert refused.status == 400
    assert "'x'" in refused.error


@native_only
def test_bf16_passes_both_ways_natively(onnx_client: Client, serve: Serve) -> None:
    """numpy has no BF16, so the Python-based backend refuses it at load."""
    dims = ("batch", "n")
    both = onnx_bytes(
        [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT)],
        [("x", TensorProto.BFLOAT16, dims)],
        [("y", TensorProto.BFLOAT16, dims), ("f", TensorProto.FLOAT, dims)],
    )
    model = onnx_client.model(serve(both, config("x BF16 -1", "y BF16 -1;f FP32 -1")))
    sent = np.array([[1.5, -2.25, np.inf], [0.0, 3e38, -0.0]], dtype=ml_dtypes.bfloat16)
    got = model(sent)
    np.testing.assert_array_equal(got["y"].view(np.uint16), sent.view(np.uint16))
    np.testing.assert_array_equal(got["f"], sent.astype(np.float32))


def test_a_model_without_inputs_gives_its_constants(onnx_client: Client, serve: Serve) -> None:
    value = numpy_helper.from_array(array("f4", 1, 2, 3), "value")
    words = numpy_helper.from_array(np.array(["é", ""], dtype=object), "words")
    nodes = [helper.make_node("Constant", [], ["y"], value=value), helper.make_node("Constant", [], ["s"], value=words)]
    constant = onnx_bytes(nodes, [], [("y", TensorProto.FLOAT, (3,)), ("s", TensorProto.STRING, (2,))])
    outputs = 'output { name: "y" data_type: TYPE_FP32 dims: 3 } output { name: "s" data_type: TYPE_STRING dims: 2 }'
    model = onnx_client.model(serve(constant, f'backend: "onnxruntime" max_batch_size: 0 {outputs} {ON_CPU}'))
    for _ in range(2):
        got = model()
        assert got["y"].tolist() == [1, 2, 3]
        assert got["s"].tolist() == ["é", ""]


SCALARS = onnx_bytes(
    [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Identity", ["word"], ["same"])],
    [("x", TensorProto.FLOAT, ()), ("word", TensorProto.STRING, ())],
    [("y", TensorProto.FLOAT, ()), ("same", TensorProto.STRING, ())],
)


def test_scalars_travel_as_one_axis_of_one(onnx_client: Client, serve: Serve) -> None:
    name = serve(SCALARS, config("x FP32 1;word STRING 1", "y FP32 1;same STRING 1", batch=0))
    got = onnx_client.model(name)(x=[3.0], word=["é"])
    assert got["y"].tolist() == [-3.0]
    assert got["same"].tolist() == ["é"]


@native_only
def test_scalars_travel_with_as_many_axes_as_the_config_says_natively(onnx_client: Client, serve: Serve) -> None:
    """The Python-based backend knows scalars by one axis only."""
    name = serve(SCALARS, config("x FP32 1,1;word STRING 1,1,1", "y FP32 1,1;same STRING 1,1", batch=0))
    got = onnx_client.model(name)(x=[[3.0]], word=[[["é"]]])
    assert got["y"].tolist() == [[-3.0]]
    assert got["same"].tolist() == [["é"]]


def test_a_reshape_is_between_the_client_and_the_model(onnx_client: Client, serve: Serve) -> None:
    model = onnx_bytes(
        [
            helper.make_node("Transpose", ["x"], ["y"], perm=[0, 2, 1]),
            helper.make_node("ReduceSum", ["x", "axes"], ["total"], keepdims=0),
        ],
        [("x", TensorProto.FLOAT, ("batch", 2, 3))],
        [("y", TensorProto.FLOAT, ("batch", 3, 2)), ("total", TensorProto.FLOAT, ("batch",))],
        [numpy_helper.from_array(np.array([1, 2]), "axes")],
    )
    text = """
        backend: "onnxruntime" max_batch_size: 8
        input { name: "x" data_type: TYPE_FP32 dims: 6 reshape { shape: [2, 3] } }
        output { name: "y" data_type: TYPE_FP32 dims: [6] reshape { shape: [3, 2] } }
        output { name: "total" data_type: TYPE_FP32 dims: [1] reshape { } }
    """
    name = serve(model, text + ON_CPU + PATIENT)
    x = np.arange(12, dtype=np.float32).reshape(2, 6)
    for answer in (onnx_client.model(name)(x), *together(onnx_client, name, [x] * 2)):
        np.testing.assert_array_equal(answer["y"], x.reshape(2, 2, 3).transpose(0, 2, 1).reshape(2, 6))
        assert answer["total"].tolist() == [[15.0], [51.0]]


def test_empty_tensors_go_in_and_come_out(onnx_client: Client, serve: Serve) -> None:
    dims = ("rows", "n")
    nodes = [
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Identity", ["words"], ["same_words"]),
        helper.make_node("ReduceSum", ["x", "axes"], ["sums"], keepdims=0),
    ]
    model = onnx_bytes(
        nodes,
        [("x", TensorProto.FLOAT, dims), ("words", TensorProto.STRING, dims)],
        [
            ("same", TensorProto.FLOAT, dims),
            ("same_words", TensorProto.STRING, dims),
            ("sums", TensorProto.FLOAT, ("n",)),
        ],
        [numpy_helper.from_array(np.array([0]), "axes")],
    )
    outputs = "same FP32 -1,-1;same_words STRING -1,-1;sums FP32 -1"
    handle = onnx_client.model(serve(model, config("x FP32 -1,-1;words STRING -1,-1", outputs, batch=0)))
    got = handle(x=np.zeros((0, 3), np.float32), words=np.zeros((2, 0), dtype=object))
    assert got["same"].shape == (0, 3)
    assert got["same_words"].shape == (2, 0)
    assert got["sums"].tolist() == [0, 0, 0]  # the sum of nothing
    got = handle(x=np.ones((2, 3), np.float32), words=np.array([["a"]], dtype=object))
    assert got["sums"].tolist() == [2, 2, 2]
    assert got["same_words"].tolist() == [["a"]]


def test_an_output_of_unknown_rank_comes_as_it_is(onnx_client: Client, serve: Serve) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    inputs: list[Tensor] = [("x", TensorProto.FLOAT, ("n",)), ("shape", TensorProto.INT64, ("rank",))]
    reshape = onnx_bytes(nodes, inputs, [("y", TensorProto.FLOAT, None)], check=False)  # the checker wants a shape
    model = onnx_client.model(serve(reshape, config("x FP32 -1;shape INT64 -1", "y FP32 -1", batch=0)))
    x = np.arange(6, dtype=np.float32)
    for shape in ((6,), (2, 3), (1, 3, 2), (6,)):
        np.testing.assert_array_equal(model(x=x, shape=np.array(shape)), x.reshape(shape))
    assert model(x=x[:1], shape=np.zeros(0, np.int64)).tolist() == [0.0]  # a scalar


def test_an_output_that_cannot_be_reshaped_as_the_config_says_is_an_error_of_its_request(
    onnx_client: Client, serve: Serve
) -> None:
    inputs: list[Tensor] = [("x", TensorProto.FLOAT, ("n",)), ("shape", TensorProto.INT64, ("rank",))]
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    content = onnx_bytes(nodes, inputs, [("y", TensorProto.FLOAT, None)], check=False)  # the checker wants a shape
    text = config("x FP32 -1;shape INT64 -1", "y FP32 6", batch=0)
    model = onnx_client.model(serve(content, text.replace("dims: [6]", "dims: [6] reshape {shape: [2, 3]}")))
    x = np.arange(6, dtype=np.float32)
    for shape in ([6], [3, 2], [1, 2, 3]):
        with pytest.raises(InferenceFailedError, match=r"has shape .*, and the config reshapes it from \[2, 3\]"):
            model(x=x, shape=np.array(shape))
    np.testing.assert_array_equal(model(x=x, shape=np.array([2, 3])), x)


def test_an_output_that_is_an_input_or_a_weight_is_given_too(onnx_client: Client, serve: Serve) -> None:
    dims = (3,)
    model = onnx_bytes(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        [("x", TensorProto.FLOAT, dims)],
        [("y", TensorProto.FLOAT, dims), ("x", TensorProto.FLOAT, dims), ("w", TensorProto.FLOAT, dims)],
        [numpy_helper.from_array(array("f4", 1, 2, 3), "w")],
    )
    handle = onnx_client.model(serve(model, config("x FP32 3", "y FP32 3;x FP32 3;w FP32 3", batch=0)))
    for value in range(4):
        got = handle(np.full(dims, value, np.float32))
        assert got["x"].tolist() == [value] * 3
        assert got["w"].tolist() == [1, 2, 3]
        assert got["y"].tolist() == [value + 1, value + 2, value + 3]


def test_an_input_of_unknown_rank_takes_what_comes(
    onnx_server: TritonServer, onnx_client: Client, serve: Serve
) -> None:
    shapes = [("-1", [3]), ("-1,-1", [2, 1]), ("2,3,1", [2, 3, 1])]
    if onnx_server.onnx_backend == "native":  # ONNX Runtime's Python binding does not tell this from a scalar
        shapes.append(("1", [1]))
    model = onnx_bytes(
        [helper.make_node("Size", ["x"], ["size"]), helper.make_node("Shape", ["x"], ["shape"])],
        [("x", TensorProto.FLOAT, None)],
        [("size", TensorProto.INT64, ()), ("shape", TensorProto.INT64, ("rank",))],
        check=False,
    )
    for dims, shape in shapes:
        handle = onnx_client.model(serve(model, config(f"x FP32 {dims}", "size INT64 1;shape INT64 -1", batch=0)))
        got = handle(np.ones(shape, np.float32))
        assert got["shape"].tolist() == shape
        assert got["size"].tolist() == [np.prod(shape)]


def test_a_tensor_that_comes_in_many_pieces_is_put_together(onnx_client: Client, serve: Serve) -> None:
    dims = ("batch", "n")
    model = onnx_bytes(
        [helper.make_node("Neg", ["x"], ["minus"]), helper.make_node("Identity", ["words"], ["same"])],
        [("x", TensorProto.FLOAT, dims), ("words", TensorProto.STRING, dims)],
        [("minus", TensorProto.FLOAT, dims), ("same", TensorProto.STRING, dims)],
    )
    handle = onnx_client.model(serve(model, config("x FP32 -1;words STRING -1", "minus FP32 -1;same STRING -1")))
    x = np.arange(3_000_003, dtype=np.float32).reshape(3, -1)
    words = np.array([[f"{row}.{place}" * 3 for place in range(20_000)] for row in range(3)], dtype=object)
    got = handle(x=x, words=words)
    np.testing.assert_array_equal(got["minus"], -x)
    np.testing.assert_array_equal(got["same"], words)


def test_names_with_slashes_and_digits(onnx_client: Client, serve: Serve) -> None:
    model = onnx_bytes(
        [helper.make_node("Sub", ["0", "gpu_0/data_0"], ["gpu_0/fc:0"])],
        [("0", TensorProto.FLOAT, ("batch", 1)), ("gpu_0/data_0", TensorProto.FLOAT, ("batch", 1))],
        [("gpu_0/fc:0", TensorProto.FLOAT, ("batch", 1))],
    )
    handle = onnx_client.model(serve(model, config("0 FP32 1;gpu_0/data_0 FP32 1", "gpu_0/fc:0 FP32 1")))
    named: dict[str, Any] = {"0": [[5.0]], "gpu_0/data_0": [[3.0]]}
    assert handle(**named).tolist() == [[2.0]]


def test_strings_of_every_length_travel_in_one_batch(onnx_client: Client, serve: Serve) -> None:
    name = serve(identity(TensorProto.STRING), config("x STRING -1", "y STRING -1", more=PATIENT))
    long = "ß" * (1 << 19)
    rows = [["", "a"], ["nul\0in", "世界"], [long, ""], ["\n", "b" * 70], ["", ""]]
    answers = together(onnx_client, name, [np.array([row], dtype=object) for row in rows])
    wait_until(lambda: 5 in batch_sizes(onnx_client, name))
    for answer, row in zip(answers, rows, strict=True):
        assert answer.tolist() == [row]


BROKEN_STRINGS = {
    "no length": b"\1\0\0",
    "a length and no text": strings(b"ab")[:-1],
    "a length beyond all": b"\xff\xff\xff\xff" + b"ab",
    "a byte too many": strings(b"ab") + b"\0",
    "a string too many": strings(b"a", b"b"),
    "nothing": b"",
}


@native_only
@pytest.mark.parametrize("broken", BROKEN_STRINGS)
def test_broken_strings_are_an_error_of_their_own_request_only_natively(
    onnx_server: TritonServer, serve: Serve, broken: str
) -> None:
    """Triton's Python backend, which the Python-based one runs on, refuses the whole batch."""
    name = serve(identity(TensorProto.STRING), config("x STRING -1", "y STRING -1", more=PATIENT))
    sent = [strings(b"one"), strings(b"two"), BROKEN_STRINGS[broken], strings(b""), strings(b"\xc3\x9f")]
    asked = [partial(post, onnx_server, name, [("x", "BYTES", [1, 1], data)]) for data in sent]
    # Five that are sent together do travel in one batch: otherwise this would show nothing.
    at_once(asked[:1] * 5)
    with onnx_server.client() as client:
        wait_until(lambda: 5 in batch_sizes(client, name))
    answers = at_once(asked)
    for data, answer in zip(sent, answers, strict=True):
        if data is BROKEN_STRINGS[broken]:
            assert answer.status == 400
            assert "'x'" in answer.error or "BYTES" in answer.error
        else:
            assert answer.outputs == {"y": data}, answer.error


# What a kernel reads with vector instructions, where it has them for the dtype; otherwise it is copied.
DOUBLED = ("FP32", "FP64", "INT32", "INT64")


@pytest.mark.parametrize("dtype", [*DTYPES, "BF16", "BYTES"])
def test_tensors_are_read_wherever_they_lie(onnx_server: TritonServer, serve: Serve, dtype: str) -> None:
    if dtype == "BF16" and onnx_server.onnx_backend == "python":
        pytest.skip("the Python-based backend has no BF16")
    element = {**DTYPES, "BF16": TensorProto.BFLOAT16, "BYTES": TensorProto.STRING}[dtype]
    node = (
        helper.make_node("Add", ["x", "x"], ["y"]) if dtype in DOUBLED else helper.make_node("Identity", ["x"], ["y"])
    )
    model = onnx_bytes(
        [node, helper.make_node("Identity", ["odd"], ["same"])],
        [("odd", TensorProto.UINT8, ("m",)), ("x", element, ("n",))],
        [("same", TensorProto.UINT8, ("m",)), ("y", element, ("n",))],
    )
    config_dtype = "STRING" if dtype == "BYTES" else dtype
    declared = config(f"odd UINT8 -1;x {config_dtype} -1", f"same UINT8 -1;y {config_dtype} -1", batch=0)
    name = serve(model, declared)
    if dtype == "BYTES":
        count, x, y = 3, strings(b"", b"abc", b"\0"), strings(b"", b"abc", b"\0")
    else:
        values = (np.arange(37) % (2 if dtype == "BOOL" else 100)).astype(numpy_type(dtype))
        count, x, y = 37, values.tobytes(), (values * 2 if dtype in DOUBLED else values).tobytes()
    for shift in range(16):
        odd = bytes(range(1 + shift % 3))
        # The JSON lies before the tensors, so a byte more of it moves them by one.
        sent = [("odd", "UINT8", [len(odd)], odd), ("x", dtype, [count], x)]
        assert post(onnx_server, name, sent, id="i" * (1 + shift)).outputs == {"same": odd, "y": y}


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_an_output_may_have_another_shape_than_the_model_file_declares(
    onnx_server: TritonServer, serve: Serve, protocol: str
) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    inputs: list[Tensor] = [("x", TensorProto.FLOAT, ("n",)), ("shape", TensorProto.INT64, (2,))]
    reshape = onnx_bytes(nodes, inputs, [("y", TensorProto.FLOAT, (2, 2))])
    name = serve(reshape, config("x FP32 -1;shape INT64 2", "y FP32 2,2", batch=0))
    with onnx_server.client(protocol=protocol) as client:
        for shape in ((2, 3), (2, 2), (3, 2), (1, 4)):
            x = np.arange(shape[0] * shape[1], dtype=np.float32)
            np.testing.assert_array_equal(client.model(name)(x=x, shape=np.array(shape)), x.reshape(shape))


def test_json_goes_in_and_comes_out_and_a_client_may_ask_for_classes(onnx_server: TritonServer, serve: Serve) -> None:
    dims = ("batch", 2)
    model = onnx_bytes(
        [helper.make_node("Add", ["x", "x"], ["y"]), helper.make_node("Identity", ["words"], ["same"])],
        [("x", TensorProto.FLOAT, dims), ("words", TensorProto.STRING, dims)],
        [("y", TensorProto.FLOAT, dims), ("same", TensorProto.STRING, dims)],
    )
    name = serve(model, config("x FP32 2;words STRING 2", "y FP32 2;same STRING 2"))
    body = {
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]},
            {"name": "words", "datatype": "BYTES", "shape": [1, 2], "data": ["é", ""]},
        ],
        "outputs": [{"name": "same"}, {"name": "y", "parameters": {"classification": 2}}],
    }
    with closing(HTTPConnection(onnx_server.http_url.removeprefix("http://"), timeout=30)) as connection:
        for _ in range(3):
            connection.request("POST", f"/v2/models/{name}/infer", json.dumps(body))
            outputs = {output["name"]: output["data"] for output in json.load(connection.getresponse())["outputs"]}
            assert outputs == {"same": ["é", ""], "y": ["4.000000:1", "2.000000:0"]}


@contextmanager
def shared(server: TritonServer, name: str, size_bytes: int) -> Iterator[Any]:
    """A region of shared memory that the server knows by that name, over HTTP and gRPC alike."""
    with ExitStack() as stack:
        region = shared_memory.create_shared_memory_region(name, f"/{name}", size_bytes)
        stack.callback(shared_memory.destroy_shared_memory_region, region)
        client = stack.enter_context(tritonclient.http.InferenceServerClient(server.http_url.removeprefix("http://")))
        client.register_system_shared_memory(name, f"/{name}", size_bytes)
        yield region
        # The server lets go of a request just after it has answered it.
        wait_until(lambda: unregistered(client, name))


def unregistered(client: Any, name: str) -> bool:
    with suppress(InferenceServerException):
        client.unregister_system_shared_memory(name)
        return True
    return False


@pytest.mark.parametrize("offset", [0, 1, 6, 64])
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_tensors_in_shared_memory_are_read_and_written_where_they_lie(
    onnx_server: TritonServer, serve: Serve, protocol: str, offset: int
) -> None:
    dims = ("batch", 5)
    model = onnx_bytes(
        [helper.make_node("Add", ["x", "x"], ["twice"]), helper.make_node("Neg", ["x"], ["minus"])],
        [("x", TensorProto.FLOAT, dims)],
        [("twice", TensorProto.FLOAT, dims), ("minus", TensorProto.FLOAT, dims)],
    )
    name = serve(model, config("x FP32 5", "twice FP32 5;minus FP32 5"))
    x = np.arange(10, dtype=np.float32).reshape(2, 5)
    api: Any = {"http": tritonclient.http, "grpc": tritonclient.grpc}[protocol]
    url = {"http": onnx_server.http_url, "grpc": onnx_server.grpc_url}[protocol].split("//")[1]
    region_name = f"tritium_test_{name}"
    with shared(onnx_server, region_name, 400) as region, api.InferenceServerClient(url) as client:
        shared_memory.set_shared_memory_region(region, [x], offset)
        sent = api.InferInput("x", [2, 5], "FP32")
        sent.set_shared_memory(region_name, x.nbytes, offset)
        wanted = [api.InferRequestedOutput("twice"), api.InferRequestedOutput("minus")]
        places = {"twice": 128, "minus": 256 + offset}  # one of them can be written in place whatever the other is
        for output in wanted:
            output.set_shared_memory(region_name, x.nbytes, places[output.name()])
        for _ in range(2):
            client.infer(name, [sent], outputs=wanted)
            got = {
                key: shared_memory.get_contents_as_numpy(region, np.uint8, [x.nbytes], at).view(np.float32)
                for key, at in places.items()
            }
            np.testing.assert_array_equal(got["twice"], 2 * x.ravel())
            np.testing.assert_array_equal(got["minus"], -x.ravel())
