"""A model's config, from specs to protobuf to text and back."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup, ModelQueuePolicy

from tritium.client import InputError, TensorSpec
from tritium.repository import (
    ConfigError,
    Serving,
    check_name,
    config_text,
    input_specs,
    model_config,
    output_specs,
    read_config,
)
from tritium.repository._config import artifact_name

ROOT = Path(__file__).resolve().parents[2]
IMAGE = TensorSpec("image", "FP32", (-1, 1, 28, 28))
LABEL = TensorSpec("label", "INT64", (-1,))
NAMES = TensorSpec("names", "BYTES", (-1, -1))
# All that Triton has.
DTYPES = ["BF16", "BOOL", "BYTES", "FP16", "FP32", "FP64", "INT16", "INT32", "INT64", "INT8"]
DTYPES += ["UINT16", "UINT32", "UINT64", "UINT8"]


def make(**changes: Any) -> ModelConfig:
    given: dict[str, Any] = {"backend": "onnxruntime", "inputs": [IMAGE], "outputs": [NAMES], **changes}
    serving = Serving(**{item.name: given.pop(item.name) for item in fields(Serving) if item.name in given})
    return model_config(given.pop("name", "m"), serving=serving, **given)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(make(), id="plain"),
        pytest.param(make(outputs=[LABEL, NAMES]), id="scalar-rows"),
        pytest.param(make(max_batch_size=0), id="no-batch-axis"),
        pytest.param(make(backend="pytorch", instances=3), id="instances"),
        pytest.param(make(parameters={"intra_op_thread_count": "2", "quoted": 'a "b"\n'}), id="parameters"),
        pytest.param(make(label_files={"names": "labels.txt"}), id="labels"),
        pytest.param(make(target="gpu"), id="gpu"),
        pytest.param(make(queue_delay_us=100, queue_timeout_us=5, max_queue_size=3), id="queue"),
    ],
)
def test_config_survives_its_text(config: ModelConfig, tmp_path: Path) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_text(config_text(config), encoding="utf-8")
    assert read_config(path) == config


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("model_repository/*/config.pbtxt")), ids=lambda path: path.parent.name
)
def test_committed_config_is_as_tritium_writes_it(path: Path) -> None:
    assert config_text(read_config(path)) == path.read_text(encoding="utf-8")


def test_missing_batch_axis_is_visible_in_the_text() -> None:
    assert "max_batch_size: 0" in config_text(make(max_batch_size=0)).splitlines()


@pytest.mark.parametrize(("max_batch_size", "batching"), [(0, False), (1, True), (64, True)])
def test_dynamic_batching_is_on_where_there_is_a_batch_axis(max_batch_size: int, batching: bool) -> None:
    config = make(max_batch_size=max_batch_size)
    assert (config.max_batch_size, config.HasField("dynamic_batching")) == (max_batch_size, batching)


def test_config_says_all_that_a_server_would_guess() -> None:
    config = make(instances=2, parameters={"k": "v"})
    assert config.version_policy.latest.num_versions == 1
    assert [(group.count, group.kind) for group in config.instance_group] == [(2, ModelInstanceGroup.KIND_AUTO)]
    assert {key: value.string_value for key, value in config.parameters.items()} == {
        "inter_op_thread_count": "1",
        "intra_op_thread_count": "1",
        "k": "v",
    }


def test_a_given_number_of_threads_stands() -> None:
    assert make(parameters={"intra_op_thread_count": "4"}).parameters["intra_op_thread_count"].string_value == "4"


def test_with_several_instances_a_request_does_not_wait_for_ever_in_a_queue_without_end() -> None:
    policy = make(instances=2).dynamic_batching.default_queue_policy
    assert (policy.default_timeout_microseconds, policy.max_queue_size) == (30_000_000, 1024)
    assert policy.allow_timeout_override
    assert policy.timeout_action == ModelQueuePolicy.REJECT


@pytest.mark.parametrize("serving", [{}, {"instances": 2, "queue_timeout_us": 0, "max_queue_size": 0}])
def test_a_queue_without_limits_has_no_policy_not_even_an_empty_one(serving: dict[str, int]) -> None:
    assert not make(**serving).dynamic_batching.HasField("default_queue_policy")


def test_one_instance_has_the_bounds_that_are_asked_for() -> None:
    policy = make(max_queue_size=8).dynamic_batching.default_queue_policy
    assert (policy.max_queue_size, policy.default_timeout_microseconds) == (8, 0)


def test_triton_waits_for_a_batch_only_where_that_was_asked_for() -> None:
    assert make().dynamic_batching.max_queue_delay_microseconds == 0
    assert make(queue_delay_us=250).dynamic_batching.max_queue_delay_microseconds == 250


def test_the_gpu_target_names_tensorrt_and_then_cuda_for_onnx_only() -> None:
    def accelerators(config: ModelConfig) -> list[str]:
        return [item.name for item in config.optimization.execution_accelerators.gpu_execution_accelerator]

    assert accelerators(make(target="gpu")) == ["tensorrt", "cuda"]
    assert accelerators(make(target="gpu", backend="pytorch")) == []
    assert accelerators(make()) == []
    # The same file on a machine without a GPU.
    assert make(target="gpu").instance_group[0].kind == ModelInstanceGroup.KIND_AUTO


def test_label_file_stands_at_its_output() -> None:
    config = make(outputs=[LABEL, NAMES], label_files={"names": "labels.txt"})
    assert [output.label_filename for output in config.output] == ["", "labels.txt"]


def test_dims_leave_the_batch_axis_out() -> None:
    assert list(make().input[0].dims) == [1, 28, 28]


def test_dims_without_batch_axis_are_the_whole_shape() -> None:
    assert list(make(max_batch_size=0).input[0].dims) == [-1, 1, 28, 28]


def test_scalar_rows_become_one_element_that_a_reshape_takes_away() -> None:
    output = make(outputs=[LABEL]).output[0]
    assert (list(output.dims), output.HasField("reshape"), list(output.reshape.shape)) == ([1], True, [])


def test_scalar_without_batch_axis_has_no_reshape() -> None:
    output = make(outputs=[TensorSpec("total", "FP32", ())], max_batch_size=0).output[0]
    assert (list(output.dims), output.HasField("reshape")) == ([1], False)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_comes_back_under_the_name_that_clients_know(dtype: str) -> None:
    spec = TensorSpec("x", dtype, (-1, 2))
    assert input_specs(make(inputs=[spec])) == [spec]


def test_specs_are_what_a_client_sees() -> None:
    config = make(outputs=[LABEL, NAMES])
    assert output_specs(config) == [TensorSpec("label", "INT64", (-1, 1)), NAMES]


def test_specs_without_batch_axis_are_the_dims() -> None:
    assert input_specs(make(max_batch_size=0)) == [IMAGE]


# errors


@pytest.mark.parametrize("name", ["m", "9", "digits_cnn", "a.b-c_d", "x" * 64])
def test_good_name_passes(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", ".hidden", "-x", "_x", "a/b", "..", "a b", "é", "x" * 65, "m\n"])
def test_bad_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="A model's name must be 1 to 64 letters"):
        make(name=name)


@pytest.mark.parametrize("dtype", ["", "fp32", "FLOAT32", "STRING", "INVALID"])
def test_bad_dtype_is_refused_with_the_valid_ones(dtype: str) -> None:
    with pytest.raises(InputError, match=f"The dtype of 'x' must be one of .*'BYTES'.*, got {dtype!r} instead"):
        make(inputs=[TensorSpec("x", dtype, (-1, 2))])


@pytest.mark.parametrize("name", ["", "y;rm", "../../evil", "a/../b", "new\x00line", "$(x)", "n" * 1025])
def test_name_of_a_tensor_that_could_do_harm_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="The name of an input or output must be"):
        make(inputs=[TensorSpec(name, "FP32", (-1, 2))])


@pytest.mark.parametrize("name", ["serving_default_x:0", "a b", "StatefulPartitionedCall/x", "größe"])
def test_name_of_a_tensor_as_frameworks_write_it_passes(name: str) -> None:
    assert make(inputs=[TensorSpec(name, "FP32", (-1, 2))]).input[0].name == name


@pytest.mark.parametrize("length", [0, -2])
def test_length_that_no_tensor_has_is_refused(length: int) -> None:
    with pytest.raises(InputError, match="must be 1 or more, or -1 for any"):
        make(inputs=[TensorSpec("x", "FP32", (-1, length))])


@pytest.mark.parametrize("backend", ["", "onnx", "tensorrt", "libtorch"])
def test_bad_backend_is_refused_with_the_valid_ones(backend: str) -> None:
    with pytest.raises(InputError, match=r"must be one of \['onnxruntime', 'pytorch'\], got"):
        make(backend=backend)


@pytest.mark.parametrize("shape", [(), (1, 2), (8, 2)])
def test_missing_batch_axis_is_refused_with_the_fix(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"has no batch axis: .* or use max_batch_size=0"):
        make(inputs=[TensorSpec("x", "FP32", shape)])


@pytest.mark.parametrize(
    ("choice", "value"),
    [
        ("max_batch_size", -1),
        ("max_batch_size", 2**31),
        ("max_batch_size", 1.5),
        ("instances", 0),
        ("queue_delay_us", -1),
        ("queue_timeout_us", -1),
        ("max_queue_size", -1),
        ("target", "tpu"),
    ],
)
def test_a_choice_out_of_range_is_refused_by_its_name(choice: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"The '{choice}' parameter of Serving must be .*, got {value!r} instead"):
        make(**{choice: value})


def test_missing_config_is_an_error_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.pbtxt cannot be read: No such file"):
        read_config(tmp_path / "config.pbtxt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b'name: "m"\nbackend = "x"\n', "2:9", id="syntax"),
        pytest.param(b'name: "m"\nmax_batchsize: 8\n', "2:1 .*max_batchsize", id="unknown-key"),
        pytest.param(b"input { data_type: TYPE_FLOAT }\n", "TYPE_FLOAT", id="unknown-dtype"),
        pytest.param(b"\xff\xfe\x00", "codec can't decode", id="binary"),
    ],
)
def test_broken_config_is_an_error_with_the_place(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"is no Triton model config: .*{message}"):
        read_config(path)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (ModelConfig(backend="onnxruntime"), "model.onnx"),
        (ModelConfig(backend="pytorch"), "model.pt"),
        (ModelConfig(backend="onnxruntime", default_model_filename="best.onnx"), "best.onnx"),
    ],
    ids=["onnx", "torchscript", "named"],
)
def test_artifact_has_the_name_that_the_backend_looks_for(config: ModelConfig, name: str) -> None:
    assert artifact_name(config) == name


def test_artifact_of_an_unknown_backend_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"must be one of \['onnxruntime', 'pytorch'\], got 'tensorrt' instead"):
        artifact_name(ModelConfig(name="m", backend="tensorrt"))
