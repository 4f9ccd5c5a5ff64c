"""The served models as anybody's client sees them: NVIDIA's own tritonclient gets the golden outputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import tritonclient.grpc
import tritonclient.http

from tritium.repository import (
    Manifest,
    Repository,
    compare,
    golden_batches,
    input_specs,
    load_golden,
    output_specs,
)
from tritium.server import TritonServer


@contextmanager
def opened(protocol: Any, url: str) -> Iterator[Any]:
    """Tritonclient takes the address without a scheme."""
    client = protocol.InferenceServerClient(url.partition("://")[2])
    try:
        yield client
    finally:
        client.close()


@pytest.mark.parametrize("requested", [False, True], ids=["all-outputs", "requested-outputs"])
@pytest.mark.parametrize("protocol", [tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])
@pytest.mark.parametrize("model", ["digits_cnn", "digits_mlp", "digits_svm"])
def test_golden_inputs_give_the_golden_outputs(
    model: str, protocol: Any, requested: bool, server: TritonServer, zoo: Repository
) -> None:
    config, folder = zoo.config(model), zoo.version_folder(model)
    names = [spec.name for spec in output_specs(config)]
    outputs = [protocol.InferRequestedOutput(name) for name in names] if requested else None
    url = server.http_url if protocol is tritonclient.http else server.grpc_url
    with opened(protocol, url) as client:
        for batch in golden_batches(load_golden(folder, config), config):
            tensors = []
            for spec in input_specs(config):
                array = batch.inputs[spec.name]
                tensor = protocol.InferInput(spec.name, list(array.shape), spec.dtype)
                tensor.set_data_from_numpy(array)
                tensors.append(tensor)
            result = client.infer(model, tensors, model_version=folder.name, outputs=outputs)
            answer = {name: result.as_numpy(name) for name in names}
            differences = compare(batch.outputs, answer, Manifest.load(folder).tolerance)
            assert [str(difference) for difference in differences if not difference.ok] == []
