"""The same repository on a GPU. Needs one, and an onnxruntime and a torch that can use it."""

from __future__ import annotations

import shutil

import pytest

from tritium.repository import Repository, Tolerance, compare, load_golden, named_outputs
from tritium.server import TritonServer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="there is no NVIDIA GPU on this machine"),
]


def test_the_zoo_gives_its_golden_outputs_on_the_gpu(zoo: Repository) -> None:
    with TritonServer(zoo.path) as server, server.client() as client:
        for name in zoo.models():
            assert client.model(name).config["instance_group"][0]["kind"] == "KIND_GPU"
            golden = load_golden(zoo.version_folder(name), zoo.config(name))
            answer = named_outputs(client.model(name)(dict(golden.inputs)), list(golden.outputs))
            # TF32 and other orders of summation: wider than on the CPU, and still no other digit.
            differences = compare(golden.outputs, answer, Tolerance(atol=1e-3))
            assert [str(difference) for difference in differences if not difference.ok] == []
