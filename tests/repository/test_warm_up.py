"""A model that is warmed up with its first golden case, from publishing to a server that is ready."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tritium.client import TensorSpec
from tritium.repository import (
    Candidate,
    GateError,
    GoldenCases,
    Repository,
    Serving,
    add_warm_up,
    model_config,
    publish,
)
from tritium.server import TritonServer

from .conftest import X, Y


def warmed(candidate: Candidate) -> Candidate:
    config = model_config("plus_one", backend="onnxruntime", inputs=[X], outputs=[Y], serving=Serving())
    return replace(candidate, config=config, labels={}, warm_up=add_warm_up(config, candidate.golden))


def test_the_config_names_files_that_hold_the_first_golden_case(candidate: Candidate, repository: Repository) -> None:
    publish(repository, warmed(candidate))
    (warm_up,) = repository.config("plus_one").model_warmup
    data = warm_up.inputs["x"]
    content = (repository.path / "plus_one" / "warmup" / data.input_data_file).read_bytes()
    np.testing.assert_array_equal(np.frombuffer(content, np.float32), candidate.golden.inputs["x"][0])
    assert (warm_up.batch_size, list(data.dims)) == (1, [2])


def test_another_versions_case_lies_beside_the_first_ones(candidate: Candidate, repository: Repository) -> None:
    publish(repository, warmed(candidate))
    x = candidate.golden.inputs["x"] + 5
    publish(repository, warmed(replace(candidate, golden=GoldenCases({"x": x}, {"y": x + 1}))))
    assert len(list((repository.path / "plus_one" / "warmup").iterdir())) == 2
    (warm_up,) = repository.config("plus_one").model_warmup
    content = (repository.path / "plus_one" / "warmup" / warm_up.inputs["x"].input_data_file).read_bytes()
    np.testing.assert_array_equal(np.frombuffer(content, np.float32), x[0])


@pytest.mark.parametrize("batched", [True, False])
def test_strings_are_kept_as_triton_reads_them(batched: bool) -> None:
    text = np.array([["a", "é"], ["b", "c"]], dtype=object)
    specs = [TensorSpec(name, "BYTES", (-1, 2) if batched else (2,)) for name in ("text", "same")]
    serving = Serving(max_batch_size=4 if batched else 0)
    config = model_config("m", backend="onnxruntime", inputs=specs[:1], outputs=specs[1:], serving=serving)
    (content,) = add_warm_up(config, GoldenCases({"text": text}, {"same": text})).values()
    assert content == b"\1\0\0\0a\2\0\0\0\xc3\xa9"


@pytest.mark.parametrize("name", ["serving_default_x:0", "a/b", "layer.weight"])
def test_a_tensor_may_be_called_anything(name: str) -> None:
    x = np.ones((2, 2), np.float32)
    specs = [TensorSpec(tensor, "FP32", (-1, 2)) for tensor in (name, "y")]
    config = model_config("m", backend="onnxruntime", inputs=specs[:1], outputs=specs[1:])
    (file,) = add_warm_up(config, GoldenCases({name: x}, {"y": x}))
    assert file.startswith("input0-")
    assert config.model_warmup[0].inputs[name].input_data_file == file


def test_a_warm_up_file_outside_its_folder_is_refused(candidate: Candidate, repository: Repository) -> None:
    with pytest.raises(GateError, match="input_data_file"):
        publish(repository, replace(warmed(candidate), warm_up={"../../x": b""}))
    assert repository.models() == []


def test_a_server_is_ready_after_the_warm_up(
    candidate: Candidate, repository: Repository, string_onnx_file: Path
) -> None:
    publish(repository, warmed(candidate))
    text = np.array([["a", "b"]], dtype=object)
    golden = GoldenCases({"text": text}, {"same": text})
    specs = [TensorSpec(name, "BYTES", (-1, 2)) for name in ("text", "same")]
    config = model_config("words", backend="onnxruntime", inputs=specs[:1], outputs=specs[1:])
    words = replace(
        candidate,
        config=config,
        artifact=string_onnx_file,
        golden=golden,
        labels={},
        manifest=replace(candidate.manifest, model="words"),
        warm_up=add_warm_up(config, golden),
    )
    publish(repository, words)
    with TritonServer(repository.path) as server, server.client() as client:
        for model in ("plus_one", "words"):
            # Triton counts what a warm-up runs, and nobody else has called yet.
            (counted,) = client.model(model).statistics()["model_stats"]
            assert counted["execution_count"] == 1
        np.testing.assert_array_equal(client.model("plus_one")([1.0, 2.0]), [2.0, 3.0])
