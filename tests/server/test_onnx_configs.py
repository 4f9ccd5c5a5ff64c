"""What the ONNX Runtime backends make of a config at load: refuse it, complete it, find the model's files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tritium.client import Client, ServerError
from tritium.server import TritonServer

from .conftest import Serve, config, doubler, identity, native_only, onnx_bytes, serving, wait_until

OPTIONAL_X = 'input { name: "x" data_type: TYPE_FP32 dims: 2 optional: true }'

# y = x + bias, where bias need not be sent; any rows at once.
WITH_DEFAULT = onnx_bytes(
    [helper.make_node("Add", ["x", "bias"], ["y"])],
    [("x", TensorProto.FLOAT, ("batch", 2)), ("bias", TensorProto.FLOAT, ("rows", 2))],
    [("y", TensorProto.FLOAT, ("batch", 2))],
    [numpy_helper.from_array(np.array([[10, 20]], np.float32), "bias")],
)
TWO = onnx_bytes(
    [helper.make_node("Add", ["a", "b"], ["c"])],
    [("a", TensorProto.FLOAT, ("batch", 2)), ("b", TensorProto.FLOAT, ("batch", 2))],
    [("c", TensorProto.FLOAT, ("batch", 2))],
)
# A map is no tensor.
TO_MAP = onnx.helper.make_model(
    helper.make_graph(
        [helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", 2))],
        [
            helper.make_value_info(
                "y",
                helper.make_sequence_type_proto(
                    helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
                ),
            )
        ],
    ),
    opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)],
    ir_version=9,
).SerializeToString()


def shrinking(devices: str) -> str:
    """The config of a doubler that gives memory back after each run."""
    key = "memory.enable_memory_arena_shrinkage"
    return config("x FP32 2", "y FP32 2", more=f"parameters {{ key: '{key}' value {{ string_value: '{devices}' }} }}")


REFUSED: Mapping[str, tuple[bytes, str, str]] = {
    "dtype of an input": (doubler(), config("x FP64 2", "y FP32 2"), "input 'x'.*TYPE_FP64 in the config"),
    "dtype of an output": (doubler(), config("x FP32 2", "y INT32 2"), "output 'y'.*TYPE_INT32 in the config"),
    "length of an axis": (doubler(), config("x FP32 3", "y FP32 2"), "input 'x' has shape.*-1, ?2.*-1, ?3"),
    "an axis too many": (doubler(), config("x FP32 2,1", "y FP32 2"), "input 'x' has shape.*in the config"),
    "an axis too few": (doubler(), config("x FP32 2", "y FP32 2", batch=0), "input 'x' has shape.*in the config"),
    "more open than the model": (doubler(), config("x FP32 -1", "y FP32 2"), "input 'x' has shape.*in the config"),
    "batch of a model without": (doubler((3, 2)), config("x FP32 2", "y FP32 2"), "max_batch_size is above 0"),
    "no such input": (doubler(), config("z FP32 2", "y FP32 2"), "input 'z' is not in the model; it has .*'x'"),
    "no such output": (doubler(), config("x FP32 2", "z FP32 2"), "output 'z' is not in the model; it has .*'y'"),
    "an input left out": (TWO, config("a FP32 2", "c FP32 2"), "needs an input 'b' that the config does not declare"),
    "no tensor": (TO_MAP, config("x FP32 2", "y FP32 2"), "'y'.* is (no tensor|a seq)"),
    "no model at all": (b"no onnx", config("x FP32 2", "y FP32 2"), "ONNX Runtime .* cannot load"),
    "absurdly many threads": (
        doubler(),
        config(
            "x FP32 2",
            "y FP32 2",
            more="parameters { key: 'inter_op_thread_count' value { string_value: '100000' } }",
        ),
        "'inter_op_thread_count' must be a whole number from 0 to 1024, got '100000' instead",
    ),
    "an arena of nothing": (doubler(), shrinking("disk:0"), "must be a list such as cpu:0;gpu:0, got 'disk:0'"),
    "an arena that is off": (
        doubler(),
        shrinking("cpu:0") + "parameters { key: 'enable_mem_arena' value { string_value: 'false' } }",
        "names the CPU's arena, which enable_mem_arena turns off",
    ),
    "a batch output": (
        doubler(),
        config(
            "x FP32 2",
            "y FP32 2",
            more="batch_output { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: 'y' source_input: 'x' }",
        ),
        "the config has a batch_output, which this backend does not have",
    ),
    "an empty file": (b"", config("x FP32 2", "y FP32 2"), "ONNX Runtime .* cannot load"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_config_that_is_not_the_models_is_refused_at_load(serve: Serve, what: str) -> None:
    content, text, message = REFUSED[what]
    with pytest.raises(ServerError, match=message):
        serve(content, text)


NO_TYPE = "sequence_batching { state { input_name: 's' output_name: 't' data_type: TYPE_INVALID dims: 1 } }"


REFUSED_NATIVELY: Mapping[str, tuple[bytes, str, str]] = {
    "a library of operators that is not there": (
        doubler(),
        config("x FP32 2", "y FP32 2", more="model_operations { op_library_filename: '/nowhere/ops.so' }"),
        "ONNX Runtime: Failed to load library /nowhere/ops.so",
    ),
    "optional in a batch": (
        WITH_DEFAULT,
        config("x FP32 2", "y FP32 2", more='input { name: "bias" data_type: TYPE_FP32 dims: 2 optional: true }'),
        "'bias' must not be optional where max_batch_size is above 0",
    ),
    "optional without a default": (
        doubler((2,)),
        f'backend: "onnxruntime" max_batch_size: 0 {OPTIONAL_X} output {{ name: "y" data_type: TYPE_FP32 dims: 2 }}',
        "'x' is optional in the config, but the model has no default for it",
    ),
    "a ragged input": (
        doubler(),
        config("x FP32 2", "y FP32 2").replace("dims: [2] }", "dims: [2] allow_ragged_batch: true }", 1),
        "'x' says allow_ragged_batch, which this backend does not have",
    ),
    "a type that ONNX has not": (doubler(), config("x FP32 2", "y FP32 2", more=NO_TYPE), "'s'"),
    "an arena of no device": (doubler(), shrinking("cpu:0;gpu:x"), "must be a whole number from 0 to 1023, got 'x'"),
}


def test_an_arena_may_shrink_after_each_run(onnx_server: TritonServer, serve: Serve) -> None:
    name = serve(doubler(), shrinking("cpu:0"))
    with onnx_server.client() as client:
        assert client.model(name)([[1.0, 2.0]]).tolist() == [[2.0, 4.0]]


def test_a_parameter_without_effect_is_said_to_be_one(onnx_server: TritonServer, serve: Serve) -> None:
    known = "intra_op_thread_count", "session.use_device_allocator_for_initializers", "profiling"
    name = serve(
        doubler(),
        config(
            "x FP32 2",
            "y FP32 2",
            more="cc_model_filenames { key: '7.5' value: 'model.onnx' }"
            + "".join(f"parameters {{ key: '{key}' value {{ string_value: '1' }} }}" for key in known),
        ),
    )
    # One after the other.
    wait_until(lambda: f"{name}: cc_model_filenames has no effect" in onnx_server.log.read_text())
    assert f"{name}: parameter 'profiling' has no effect" in onnx_server.log.read_text()
    assert onnx_server.log.read_text().count(f"{name}: ") == 2


@native_only
@pytest.mark.parametrize("what", REFUSED_NATIVELY)
def test_a_config_for_what_only_the_native_backend_has_is_refused_at_load(serve: Serve, what: str) -> None:
    content, text, message = REFUSED_NATIVELY[what]
    with pytest.raises(ServerError, match=message):
        serve(content, text)


def test_bf16_is_refused_by_the_python_based_backend(onnx_server: TritonServer, serve: Serve) -> None:
    text = config("x BF16 -1", "y BF16 -1")
    if onnx_server.onnx_backend == "native":
        serve(identity(TensorProto.BFLOAT16), text)
    else:
        with pytest.raises(
            ServerError, match=r"'x' is a tensor.bfloat16., which the Python-based backend cannot carry"
        ):
            serve(identity(TensorProto.BFLOAT16), text)


def with_external_data(location: str) -> tuple[bytes, bytes]:
    """A model that adds [1, 2], which lie in a file of that name: the model's file, and that one."""
    data = np.array([1, 2], np.float32)
    model = onnx.load_from_string(
        onnx_bytes(
            [helper.make_node("Add", ["x", "w"], ["y"])],
            [("x", TensorProto.FLOAT, ("batch", 2))],
            [("y", TensorProto.FLOAT, ("batch", 2))],
            [numpy_helper.from_array(data, "w")],
        )
    )
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], location)
    model.graph.initializer[0].ClearField("raw_data")
    return model.SerializeToString(), data.tobytes()


@pytest.mark.parametrize("folder_name", ["", "model.onnx/", "net/"])
def test_external_data_is_found_beside_the_model(onnx_client: Client, serve: Serve, folder_name: str) -> None:
    model, data = with_external_data("weights.bin")
    named = 'default_model_filename: "net"' if folder_name == "net/" else ""
    files = {f"1/{folder_name}model.onnx": model, f"1/{folder_name}weights.bin": data}
    name = serve(files, config("x FP32 2", "y FP32 2", more=named))
    assert onnx_client.model(name)([[10.0, 10.0]]).tolist() == [[11.0, 12.0]]


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "missing.bin"])
def test_external_data_elsewhere_is_refused_by_onnx_runtime(serve: Serve, location: str) -> None:
    model, data = with_external_data(location)
    with pytest.raises(ServerError, match=r"ONNX Runtime .* cannot load"):
        serve({"1/model.onnx": model, "weights.bin": data}, config("x FP32 2", "y FP32 2"))


native_completing = pytest.mark.parametrize("completing", ["native"], indirect=True)


@pytest.fixture(scope="module", params=["native", "python"])
def completing(folder: Path, request: pytest.FixtureRequest) -> Iterator[TritonServer]:
    """A server that completes configs: it starts with a model that has none."""
    version = folder / f"bare_{request.param}" / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(doubler())
    with TritonServer(folder, models=[version.parent.name], onnx_backend=request.param) as running:
        yield running


@pytest.fixture
def complete(completing: TritonServer) -> Iterator[Serve]:
    """As `serve`, for that server."""
    with serving(completing) as write_and_load:
        yield write_and_load


X, Y = '{ name: "x" data_type: TYPE_FP32 dims: 2 }', '{ name: "y" data_type: TYPE_FP32 dims: 2 }'


@pytest.mark.parametrize("given", ["", f"input {X}", f"output {Y}"])
def test_what_a_config_leaves_out_of_a_batching_model_is_completed(
    completing: TritonServer, complete: Serve, given: str
) -> None:
    name = complete(doubler(), f'backend: "onnxruntime" max_batch_size: 3 {given}')
    with completing.client() as client:
        model = client.model(name)
        assert model.metadata.max_batch_size == 3
        assert [tensor["dims"] for key in ("input", "output") for tensor in model.config[key]] == [[2], [2]]
        assert model([[1.0, 2.0], [3.0, 4.0]]).tolist() == [[2.0, 4.0], [6.0, 8.0]]


# What the model declares and what the completed config must say: max_batch_size, dims of input and output.
COMPLETED: Mapping[str, tuple[bytes, int, list[Any]]] = {
    "nothing open": (doubler((3, 2)), 0, [[3, 2], [3, 2]]),
    "open in another axis": (doubler((2, "n")), 0, [[2, -1], [2, -1]]),
    "open in every axis": (doubler(("batch", "n")), 4, [[-1], [-1]]),
    "an axis of no length": (identity(TensorProto.FLOAT, (0, 2)), 0, [[-1, 2], [-1, 2]]),
    "a scalar": (doubler(()), 0, [[1], [1]]),
    "one fixed axis": (doubler((3,)), 0, [[3], [3]]),
    "an output without the batch axis": (
        onnx_bytes(
            [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)],
            [("x", TensorProto.FLOAT, ("batch", 2))],
            [("y", TensorProto.FLOAT, ())],
        ),
        0,
        [[-1, 2], [1]],
    ),
}


@pytest.mark.parametrize("what", COMPLETED)
def test_a_bare_model_batches_if_every_first_axis_is_open(completing: TritonServer, complete: Serve, what: str) -> None:
    content, max_batch_size, dims = COMPLETED[what]
    name = complete(content, None)
    with completing.client() as client:
        config = client.model(name).config
    assert config["max_batch_size"] == max_batch_size
    assert ("dynamic_batching" in config) == (max_batch_size > 0)
    assert [tensor["dims"] for key in ("input", "output") for tensor in config[key]] == dims


@native_completing
def test_one_value_a_row_gets_a_reshape_natively(completing: TritonServer, complete: Serve) -> None:
    """A Python-based backend cannot declare a reshape."""
    name = complete(doubler(("batch",)), None)
    with completing.client() as client:
        model = client.model(name)
        assert model.metadata.max_batch_size == 4
        assert model([[1.0], [2.0]]).tolist() == [[2.0], [4.0]]


@native_completing
def test_batching_is_completed_where_the_config_has_only_inputs_natively(
    completing: TritonServer, complete: Serve
) -> None:
    """As Triton's own backend does; the Python-based one leaves a config that has tensors unbatched."""
    name = complete(doubler(), f'backend: "onnxruntime" input {X}')
    with completing.client() as client:
        model = client.model(name)
        assert model.metadata.max_batch_size == 4
        assert model([[1.0, 2.0]]).tolist() == [[2.0, 4.0]]


def test_a_batch_that_the_model_cannot_have_is_refused(completing: TritonServer, complete: Serve) -> None:
    with pytest.raises(ServerError, match=r"max_batch_size is( above 0| 8)"):
        complete(doubler((3, 2)), 'backend: "onnxruntime" max_batch_size: 8')
    # The server goes on.
    with completing.client() as client:
        assert client.model(f"bare_{completing.onnx_backend}")([[1.0, 2.0]]).tolist() == [[2.0, 4.0]]


def test_sequence_batching_is_not_joined_by_dynamic_batching(completing: TritonServer, complete: Serve) -> None:
    name = complete(doubler(), 'backend: "onnxruntime" max_batch_size: 3 sequence_batching { }')
    with completing.client() as client:
        assert "dynamic_batching" not in client.model(name).config
