"""The Python-based TorchScript backend, through a real server."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import nn

from tritium.client import Client, InferenceFailedError, ServerError
from tritium.server import TritonServer

from .conftest import WriteModel

# Triton's PyTorch backend takes TorchScript, which torch has deprecated as a whole.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


class Sum(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return a + b, a - b


class Named(nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"double": x * 2, "half": x / 2}


class Shout(nn.Module):
    def forward(self, words: list[str]) -> list[str]:
        return [word + "!" for word in words]


class Double(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


class Picky(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert float(x.max()) < 10.0, "too large"
        return x


def script(module: nn.Module) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(module), buffer)
    return buffer.getvalue()


def config(inputs: str, outputs: str, *, batch: int = 8, more: str = "") -> str:
    """As in ``config("x FP32 2", "y__0 FP32 2")``."""
    lines = ['backend: "pytorch"', f"max_batch_size: {batch}", "instance_group { count: 1 kind: KIND_CPU }", more]
    for kind, text in (("input", inputs), ("output", outputs)):
        for item in text.split(";"):
            name, dtype, dims = item.split()
            lines.append(f'{kind} {{ name: "{name}" data_type: TYPE_{dtype} dims: [{dims}] }}')
    return "\n".join(lines)


THREADS = "".join(
    f"parameters {{ key: '{key}' value {{ string_value: '{value}' }} }}\n"
    for key, value in {
        "INTRA_OP_THREAD_COUNT": "1",
        "INTER_OP_THREAD_COUNT": "1",
        "DISABLE_OPTIMIZED_EXECUTION": "true",
        "INFERENCE_MODE": "false",
        "ENABLE_WEIGHT_SHARING": "true",
    }.items()
)


@pytest.fixture(scope="module")
def server(folder: Path, write_model: WriteModel) -> Iterator[TritonServer]:
    def write(name: str, module: nn.Module, text: str) -> None:
        write_model(name, script(module), text, file="model.pt")

    write("by_name", Sum(), config("b FP32 2;a FP32 2", "sum__0 FP32 2;difference__1 FP32 2"))
    write("by_index", Sum(), config("INPUT__1 FP32 2;INPUT__0 FP32 2", "OUTPUT__1 FP32 2"))
    write("named", Named(), config("x FP32 2", "double FP32 2;half FP32 2"))
    write("shout", Shout(), config("words STRING 1", "words__0 STRING 1", batch=0).replace("dims: [1]", "dims: [-1]"))
    write("bfloat", Double(), config("x BF16 2", "y__0 BF16 2"))
    write("tuned", Double(), config("x FP32 2", "y__0 FP32 2", more=THREADS))
    write("wrong_output_dtype", Double(), config("x FP32 2", "y__0 FP64 2"))
    patient = "dynamic_batching { max_queue_delay_microseconds: 200000 preferred_batch_size: 3 }"
    write("picky", Picky(), config("x FP32 1", "y__0 FP32 1", more=patient))
    with TritonServer(folder) as running:
        yield running


@pytest.fixture(scope="module")
def http(server: TritonServer) -> Iterator[Client]:
    with server.client() as client:
        yield client


A, B = np.array([[5, 7]], np.float32), np.array([[1, 2]], np.float32)


def test_inputs_are_mapped_by_the_names_of_forwards_arguments(http: Client) -> None:
    got = http.model("by_name")(a=A, b=B)
    np.testing.assert_array_equal(got["sum__0"], A + B)
    np.testing.assert_array_equal(got["difference__1"], A - B)


def test_inputs_and_outputs_are_mapped_by_the_number_at_their_end(http: Client) -> None:
    np.testing.assert_array_equal(http.model("by_index")(INPUT__0=A, INPUT__1=B), A - B)


def test_outputs_of_a_dict_are_mapped_by_their_keys(http: Client) -> None:
    got = http.model("named")(A)
    np.testing.assert_array_equal(got["double"], A * 2)
    np.testing.assert_array_equal(got["half"], A / 2)


def test_strings_travel_as_lists(http: Client) -> None:
    assert http.model("shout")(["good", "schön"]).tolist() == ["good!", "schön!"]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_bfloat16_passes_both_ways(server: TritonServer, protocol: str) -> None:
    sent = np.array([[1.5, -2.25]], ml_dtypes.bfloat16)
    with server.client(protocol=protocol) as client:
        got = client.model("bfloat")(sent)
    assert got.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(got.astype(np.float32), [[3.0, -4.5]])


def test_the_native_backends_parameters_are_honoured_or_said_to_have_no_effect(
    server: TritonServer, http: Client
) -> None:
    np.testing.assert_array_equal(http.model("tuned")(A), A * 2)
    assert "parameter 'ENABLE_WEIGHT_SHARING' has no effect" in server.log.read_text()


def test_an_output_of_another_dtype_than_the_configs_is_an_error(http: Client) -> None:
    with pytest.raises(InferenceFailedError, match="TYPE_FP32 in the model and TYPE_FP64 in the config"):
        http.model("wrong_output_dtype")(A)


def test_one_bad_request_fails_alone_and_not_its_batch(http: Client) -> None:
    from .conftest import together

    answers = together(http, "picky", [np.array([[value]], np.float32) for value in (1.0, 99.0, 2.0)])
    np.testing.assert_array_equal([answers[0], answers[2]], [[[1.0]], [[2.0]]])
    assert isinstance(answers[1], InferenceFailedError)
    assert "too large" in str(answers[1])


BAD_CONFIGS = {
    "an unknown input": (config("z FP32 2", "y__0 FP32 2"), "input 'z'.*neither an argument of forward \\(x\\)"),
    "an index too high": (config("x__3 FP32 2", "y__0 FP32 2"), "with an index below 1"),
    "an unnumbered output": (config("x FP32 2", "y FP32 2"), "output 'y'.*must be named <name>__<index>, such as y__0"),
    "a bad thread count": (
        config(
            "x FP32 2", "y__0 FP32 2", more="parameters { key: 'INTRA_OP_THREAD_COUNT' value { string_value: 'x' } }"
        ),
        "INTRA_OP_THREAD_COUNT.*got 'x'",
    ),
}


@pytest.mark.parametrize("fault", BAD_CONFIGS)
def test_a_config_that_does_not_match_is_refused_at_load(
    server: TritonServer, write_model: WriteModel, fault: str
) -> None:
    text, message = BAD_CONFIGS[fault]
    name = fault.replace(" ", "_")
    write_model(name, script(Double()), text, file="model.pt")
    with pytest.raises(ServerError, match=message):
        server.load(name)


def test_a_missing_argument_is_refused_at_load(server: TritonServer, write_model: WriteModel) -> None:
    write_model("missing", script(Sum()), config("a FP32 2", "y__0 FP32 2"), file="model.pt")
    with pytest.raises(ServerError, match="forward's argument 'b' is no input of the config"):
        server.load("missing")


def test_a_corrupt_file_is_refused_with_torchs_reason(server: TritonServer, write_model: WriteModel) -> None:
    write_model("corrupt", b"not a zip", config("x FP32 2", "y__0 FP32 2"), file="model.pt")
    with pytest.raises(ServerError, match=r"torch .* cannot load"):
        server.load("corrupt")


def test_without_a_config_the_error_says_that_one_is_needed(tmp_path: Path) -> None:
    from tritium.server import ModelLoadError

    (tmp_path / "bare" / "1").mkdir(parents=True)
    (tmp_path / "bare" / "1" / "model.pt").write_bytes(script(Double()))
    with pytest.raises(ModelLoadError, match=r"write them into config\.pbtxt"):
        TritonServer(tmp_path).start()
