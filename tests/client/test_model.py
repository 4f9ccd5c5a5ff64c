"""A model on a real Triton, over HTTP and over gRPC."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tritium.client import (
    BulkError,
    Client,
    InferenceFailedError,
    InputError,
    Model,
    ModelMetadata,
    ModelNotFoundError,
    Outputs,
    RequestRecord,
    RequestRejectedError,
    TensorSpec,
)
from tritium.repository import GoldenCases, Repository
from tritium.server import TritonServer

from .surfaces import SURFACES, use

Golden = dict[str, GoldenCases]
A = np.array([[1, 2], [3, 4]], dtype=np.float32)
B = np.array([[10, 20], [30, 40]], dtype=np.float32)


@pytest.fixture
def svm(client: Client) -> Model:
    """The reference model with two outputs."""
    return client.model("digits_svm")


@pytest.fixture
def pixels(digits_golden: Golden) -> NDArray[Any]:
    """Real digits, of shape (cases, 784)."""
    return digits_golden["digits_svm"].inputs["pixels"]


@pytest.fixture
def labels(digits_golden: Golden) -> NDArray[Any]:
    """What the framework says that they are, of shape (cases, 1)."""
    return digits_golden["digits_svm"].outputs["label"]


@pytest.fixture
def pair(small_client: Client) -> Model:
    """A model with two inputs `a` and `b`, and their `sum` and `difference`; at most 4 rows."""
    return small_client.model("pair")


# metadata


def test_metadata_has_names_dtypes_and_shapes(svm: Model, zoo: Repository) -> None:
    latest = str(zoo.versions("digits_svm")[-1])
    assert svm.metadata == ModelMetadata(
        name="digits_svm",
        versions=(latest,),
        platform="onnxruntime_onnx",
        inputs=(TensorSpec("pixels", "FP32", (-1, 784)),),
        outputs=(TensorSpec("label", "INT64", (-1, 1)), TensorSpec("probabilities", "FP32", (-1, 10))),
        max_batch_size=64,
    )


def test_metadata_of_a_model_without_batch_axis_says_so(small_client: Client) -> None:
    metadata = small_client.model("words").metadata
    assert (metadata.max_batch_size, metadata.inputs) == (0, (TensorSpec("text", "BYTES", (-1,)),))


def test_metadata_reads_the_numbers_of_both_protocols() -> None:
    metadata: dict[str, Any] = {"name": "m", "inputs": [{"name": "x", "datatype": "FP32", "shape": ["-1", "2"]}]}
    over_grpc = ModelMetadata.from_json(metadata, {"max_batch_size": "8"})
    assert (over_grpc.inputs, over_grpc.max_batch_size) == ((TensorSpec("x", "FP32", (-1, 2)),), 8)


def test_config_is_the_one_in_the_repository(svm: Model) -> None:
    assert (svm.config["name"], svm.config["backend"]) == ("digits_svm", "onnxruntime")


def test_version_that_is_served_answers_by_its_number(client: Client, svm: Model, pixels: NDArray[Any]) -> None:
    numbered = client.model("digits_svm", svm.metadata.versions[0])
    np.testing.assert_array_equal(numbered(pixels).label, svm(pixels).label)


# good calls


@pytest.mark.parametrize("how", ["position", "name", "mapping", "list"])
def test_input_may_be_given_in_several_ways(how: str, svm: Model, pixels: NDArray[Any], labels: NDArray[Any]) -> None:
    answer = {
        "position": lambda: svm(pixels),
        "name": lambda: svm(pixels=pixels),
        "mapping": lambda: svm({"pixels": pixels}),
        "list": lambda: svm(pixels.tolist()),
    }[how]()
    np.testing.assert_array_equal(answer.label, labels)


@pytest.mark.parametrize("how", ["positions", "names", "mixed", "mapping", "mapping-and-name"])
def test_two_inputs_find_their_places(how: str, pair: Model) -> None:
    answer = {
        "positions": lambda: pair(A, B),
        "names": lambda: pair(b=B, a=A),
        "mixed": lambda: pair(A, b=B),
        "mapping": lambda: pair({"b": B, "a": A}),
        "mapping-and-name": lambda: pair({"a": A}, b=B),
    }[how]()
    np.testing.assert_array_equal(answer.difference, A - B)


def test_several_outputs_come_by_name_in_the_models_order(svm: Model, pixels: NDArray[Any]) -> None:
    answer = svm(pixels)
    assert isinstance(answer, Outputs)
    assert {name: (array.dtype.name, array.shape) for name, array in answer.items()} == {
        "label": ("int64", (len(pixels), 1)),
        "probabilities": ("float32", (len(pixels), 10)),
    }
    assert list(answer) == ["label", "probabilities"]


def test_only_output_comes_as_an_array(client: Client, digits_golden: Golden) -> None:
    golden = digits_golden["digits_cnn"]
    answer = client.model("digits_cnn")(golden.inputs["image"])
    np.testing.assert_allclose(answer, golden.outputs["probabilities"], atol=1e-5)


def test_one_requested_output_comes_as_an_array(svm: Model, pixels: NDArray[Any], labels: NDArray[Any]) -> None:
    np.testing.assert_array_equal(svm(pixels, outputs=["label"]), labels)


def test_requested_outputs_come_in_the_order_asked_for(svm: Model, pixels: NDArray[Any]) -> None:
    assert list(svm(pixels, outputs=["probabilities", "label"])) == ["probabilities", "label"]


def test_single_row_without_batch_axis_gets_outputs_without_it(
    svm: Model, pixels: NDArray[Any], labels: NDArray[Any]
) -> None:
    answer = svm(pixels[0])
    assert {name: array.shape for name, array in answer.items()} == {"label": (1,), "probabilities": (10,)}
    assert answer.label.tolist() == labels[0].tolist()


def test_single_row_with_batch_axis_keeps_it(svm: Model, pixels: NDArray[Any]) -> None:
    assert svm(pixels[:1]).probabilities.shape == (1, 10)


def test_safe_cast_happens_by_itself(svm: Model, pixels: NDArray[Any], labels: NDArray[Any]) -> None:
    np.testing.assert_array_equal(svm(pixels.astype(np.uint8)).label, labels)


def test_non_contiguous_input_is_sent_in_its_order(svm: Model, pixels: NDArray[Any], labels: NDArray[Any]) -> None:
    np.testing.assert_array_equal(svm(np.asfortranarray(pixels)[::-1]).label, labels[::-1])


def test_as_many_rows_as_the_model_takes_are_answered(pair: Model) -> None:
    rows = np.arange(8, dtype=np.float32).reshape(4, 2)
    np.testing.assert_array_equal(pair(rows, rows).sum, 2 * rows)


@pytest.mark.parametrize("text", [["ab", "é"], ["", "日本語", "a\x00b"], []], ids=["two", "three", "none"])
def test_strings_go_there_and_back(small_client: Client, text: list[str]) -> None:
    answer = small_client.model("words")(np.array(text, dtype=object))
    assert (answer.dtype, answer.tolist()) == (np.dtype(object), text)


def test_request_id_is_accepted(svm: Model, pixels: NDArray[Any], labels: NDArray[Any]) -> None:
    np.testing.assert_array_equal(svm(pixels, request_id="case-7").label, labels)


# wrong calls


def test_unknown_input_is_refused_with_the_closest(svm: Model, pixels: NDArray[Any]) -> None:
    with pytest.raises(InputError) as caught:
        svm(pixel=pixels)
    assert str(caught.value) == (
        "'digits_svm' has no input 'pixel'; it has pixels FP32[-1,784]. Did you mean 'pixels'?"
    )


def test_missing_input_is_refused_by_name(pair: Model) -> None:
    with pytest.raises(InputError, match=r"Input 'b' of 'pair' is missing; .* a FP32\[-1,2\], b FP32\[-1,2\]"):
        pair(A)


def test_call_without_any_input_is_refused(svm: Model) -> None:
    with pytest.raises(InputError, match="Input 'pixels' of 'digits_svm' is missing"):
        svm()


@pytest.mark.parametrize("how", ["position-and-name", "mapping-and-name"])
def test_input_given_twice_is_refused(how: str, pair: Model) -> None:
    calls = {"position-and-name": lambda: pair(A, B, a=A), "mapping-and-name": lambda: pair({"a": A, "b": B}, a=A)}
    with pytest.raises(InputError, match="Input 'a' of 'pair' is given twice"):
        calls[how]()


def test_too_many_positional_inputs_are_refused(pair: Model) -> None:
    with pytest.raises(InputError, match=r"'pair' has 2 inputs .*, got 3"):
        pair(A, B, A)


def test_wrong_dtype_is_refused_with_the_fix(svm: Model, pixels: NDArray[Any]) -> None:
    with pytest.raises(InputError, match=r"Input 'pixels' must be FP32 .* pass x\.astype\('float32'\)"):
        svm(pixels.astype(np.float64))


def test_wrong_shape_is_refused_with_the_right_one(client: Client) -> None:
    with pytest.raises(InputError) as caught:
        client.model("digits_cnn")(np.zeros((2, 28, 28), dtype=np.float32))
    assert "must have shape (rows, 1, 28, 28) (or one row, (1, 28, 28)), got (2, 28, 28)" in str(caught.value)


def test_different_numbers_of_rows_are_refused(pair: Model) -> None:
    with pytest.raises(InputError, match="All inputs must have the same number of rows, got a: 2, b: 1"):
        pair(A, B[:1])


def test_more_rows_than_the_model_takes_are_refused(svm: Model) -> None:
    with pytest.raises(InputError, match=r"takes at most 64 rows a request, got 65; predict\(\) takes any number"):
        svm(np.zeros((65, 784), dtype=np.float32))


def test_unknown_output_is_refused_with_the_closest(svm: Model, pixels: NDArray[Any]) -> None:
    with pytest.raises(InputError, match=r"has no output 'lable'; it has label .*Did you mean 'label'\?"):
        svm(pixels, outputs=["lable"])


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize(
    ("method", "inputs", "options", "valid"),
    [
        ("__call__", {"indx": [[1]]}, {}, ("index",)),
        ("__call__", {"index": [["one"]]}, {}, ()),
        ("__call__", {"index": [[1]]}, {"outputs": "valve"}, ("value",)),
        ("predict", {"index": [[1], [2, 3]]}, {}, ()),
        ("classify", {"index": [[1]]}, {"output": "valve"}, ("value",)),
    ],
)
def test_what_is_refused_before_it_is_sent_knows_whom_it_is_about(
    surface: str, method: str, inputs: dict[str, Any], options: dict[str, Any], valid: Any, small_server: TritonServer
) -> None:
    with pytest.raises(InputError) as caught:
        use(surface, small_server.http_url, "pick", method, **inputs, **options)
    about = caught.value
    assert (about.model, about.url, about.valid, about.status) == ("pick", small_server.http_url, valid, None)


@pytest.mark.parametrize("surface", SURFACES)
def test_rows_that_failed_know_the_request_of_the_first(surface: str, small_server: TritonServer) -> None:
    with pytest.raises(BulkError) as caught:
        use(surface, small_server.http_url, "pick", "predict", [[1], [99], [1]], batch_size=1)
    ((_, first),) = caught.value.failed
    about = caught.value
    assert (about.model, about.url, about.status) == ("pick", small_server.http_url, first.status)
    assert about.request_id == first.request_id != ""


def test_refused_call_is_not_sent(small_server: TritonServer) -> None:
    records: list[RequestRecord] = []
    with Client(small_server.http_url, on_request=records.append) as client, pytest.raises(InputError):
        client.model("pair")(A.astype(np.float64), B)
    assert {record.operation for record in records} == {"ModelMetadata", "ModelConfig", "ServerMetadata"}


@pytest.mark.parametrize("timeout_s", [0, -1.0, float("nan"), float("inf")])
def test_timeout_that_is_no_time_is_refused(timeout_s: float, svm: Model, pixels: NDArray[Any]) -> None:
    with pytest.raises(InputError, match="The 'timeout_s' parameter must be"):
        svm(pixels, timeout_s=timeout_s)


# what the server refuses


def test_unknown_model_is_not_found_with_the_closest(client: Client) -> None:
    with pytest.raises(
        ModelNotFoundError, match=r"There are digits_cnn, digits_mlp, digits_svm\. Did you mean 'digits_cnn'"
    ):
        _ = client.model("digits_cn").metadata


def test_unknown_version_is_not_found_with_those_served(client: Client, svm: Model) -> None:
    with pytest.raises(ModelNotFoundError, match=f"It serves version {svm.metadata.versions[0]}$"):
        _ = client.model("digits_svm", 9999).metadata


def test_unknown_model_has_no_statistics(client: Client) -> None:
    with pytest.raises(ModelNotFoundError, match="Did you mean 'digits_svm'"):
        client.model("digits_svn").statistics()


@pytest.mark.parametrize("version", ["latest", "-1", "1.0"])
def test_version_that_is_no_number_is_not_found(version: str, client: Client) -> None:
    # Words are versions to some V2 servers, so it is the server that refuses them.
    with pytest.raises((InputError, ModelNotFoundError, RequestRejectedError)):
        _ = client.model("digits_svm", version).metadata


def test_name_of_a_model_is_no_path(client: Client, svm: Model) -> None:
    # In a URL this would be the version's own address.
    with pytest.raises((InputError, ModelNotFoundError)):
        _ = client.model(f"digits_svm/versions/{svm.metadata.versions[0]}").metadata


def test_request_that_the_model_cannot_take_fails_alone(small_client: Client) -> None:
    pick = small_client.model("pick")
    with pytest.raises(InferenceFailedError, match="indices element out of data bounds"):
        pick([[99]])
    assert pick([[1]]).tolist() == [[20.0]]


def test_bytes_that_are_no_text_come_back_as_they_were(small_client: Client) -> None:
    assert small_client.model("words")([b"\xff", b"text"]).tolist() == [b"\xff", b"text"]


# statistics


def test_statistics_count_the_rows(pair: Model) -> None:
    def rows() -> int:
        return int(pair.statistics()["model_stats"][0].get("inference_count", 0))

    before = rows()
    pair(A, B)
    # Triton counts after it has answered.
    deadline = time.monotonic() + 10
    while rows() == before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert rows() == before + 2


def test_statistics_are_numbers(pair: Model) -> None:
    pair(A, B)
    stats = pair.statistics()["model_stats"][0]
    counters = [stats["inference_count"], stats["execution_count"], stats["inference_stats"]["success"]["ns"]]
    assert [type(counter) for counter in counters] == [int, int, int]


def test_model_shows_its_name_version_and_url(client: Client) -> None:
    assert repr(client.model("m", 3)) == f"Model('m', version='3', url='{client.url}')"


@pytest.mark.parametrize("outputs", ["label", ["label"], {"label": 1}.keys()], ids=["name", "list", "view"])
def test_one_output_may_be_named_by_itself(svm: Model, pixels: NDArray[Any], outputs: Any) -> None:
    assert svm(pixels, outputs=outputs).dtype == np.int64
