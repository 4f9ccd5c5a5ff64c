"""A second, small Triton for what the reference models lack: two inputs, strings, no batch axis, requests that fail."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tritium.client import Client, TensorSpec
from tritium.repository import GoldenCases, Repository, Serving, config_text, load_golden, model_config
from tritium.server import ADMIN_GROUPS, TritonServer

from .asking import Ask, in_tasks, in_threads
from .served_models import lay_out

# No queue with a limit of time or length: Triton 2.51 forgets a request there now and then, and finds it half a second
# later, when a deadline may be over.
_ECHO_CONFIG = """
backend: "onnxruntime"
max_batch_size: 8
input { name: "number" data_type: TYPE_INT64 dims: 1 }
output { name: "same" data_type: TYPE_INT64 dims: 1 }
"""
_ONNX_TYPES = {"FP32": TensorProto.FLOAT, "INT64": TensorProto.INT64, "BYTES": TensorProto.STRING}


@pytest.fixture(scope="session")
def digits_golden(zoo: Repository) -> dict[str, GoldenCases]:
    """The golden cases of each reference model."""
    return {name: load_golden(zoo.version_folder(name), zoo.config(name)) for name in zoo.models()}


@pytest.fixture(scope="session")
def small_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A Triton that serves `pair`, `words`, `pick` and `slow`. It has unloaded `gone` and never loaded `spare`."""
    repository = tmp_path_factory.mktemp("small")
    _add_model(
        repository / "pair",
        [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])],
        inputs=[TensorSpec("a", "FP32", (-1, 2)), TensorSpec("b", "FP32", (-1, 2))],
        outputs=[TensorSpec("sum", "FP32", (-1, 2)), TensorSpec("difference", "FP32", (-1, 2))],
        max_batch_size=4,
    )
    _add_model(
        repository / "words",
        [helper.make_node("Identity", ["text"], ["same"])],
        inputs=[TensorSpec("text", "BYTES", (-1,))],
        outputs=[TensorSpec("same", "BYTES", (-1,))],
        max_batch_size=0,
    )
    _add_model(
        repository / "pick",
        [helper.make_node("Gather", ["table", "index"], ["value"])],
        inputs=[TensorSpec("index", "INT64", (-1, 1))],
        outputs=[TensorSpec("value", "FP32", (-1, 1))],
        constants=[helper.make_tensor("table", TensorProto.FLOAT, [3], [10, 20, 30])],
        max_batch_size=4,
    )
    _add_model(
        repository / "slow",
        _counting_loop("steps", "taken"),
        inputs=[TensorSpec("steps", "INT64", (1,))],
        outputs=[TensorSpec("taken", "INT64", (1,))],
        constants=[helper.make_tensor("zero", TensorProto.INT64, [1], [0])],
        max_batch_size=0,
    )
    for name in ("gone", "spare"):
        shutil.copytree(repository / "words", repository / name)
        text = (repository / "words" / "config.pbtxt").read_text(encoding="utf-8")
        (repository / name / "config.pbtxt").write_text(text.replace("words", name), encoding="utf-8")
    with TritonServer(
        repository, models=["gone", "pair", "pick", "slow", "words"], open_groups=ADMIN_GROUPS
    ) as running:
        running.unload("gone")
        with running.client(protocol="grpc") as client:
            while not any(status.name == "gone" and status.state == "UNAVAILABLE" for status in client.models()):
                threading.Event().wait(0.02)
        yield running


@pytest.fixture(params=["http", "grpc"])
def small_client(request: pytest.FixtureRequest, small_server: TritonServer) -> Iterator[Client]:
    """A client of the small server, over each protocol."""
    with small_server.client(protocol=request.param) as connected:
        yield connected


@pytest.fixture(scope="session")
def protocol_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A Triton over the models of `served_models`; its ONNX backend is the native one, which knows every dtype."""
    repository = tmp_path_factory.mktemp("protocol")
    lay_out(repository)
    with TritonServer(repository, onnx_backend="native", open_groups=ADMIN_GROUPS) as running:
        yield running


@pytest.fixture(scope="session")
def echo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A Triton that serves `echo`: numbers in, the same numbers out, at most 8 at once."""
    folder = tmp_path_factory.mktemp("faults") / "echo"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(_ECHO_CONFIG, encoding="utf-8")
    numbers = [helper.make_tensor_value_info(name, TensorProto.INT64, ["rows", 1]) for name in ("number", "same")]
    graph = helper.make_graph([helper.make_node("Identity", ["number"], ["same"])], "echo", numbers[:1], numbers[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "1" / "model.onnx")
    with TritonServer(folder.parent, open_groups=ADMIN_GROUPS) as running:
        yield running


@pytest.fixture(params=[in_threads, in_tasks], ids=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Makes calls by either client."""
    chosen: Ask = request.param
    return chosen


@pytest.fixture
def refusing_address() -> Iterator[str]:
    """An address at which nobody listens, and that nobody else can take meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def silent_address() -> Iterator[str]:
    """An address that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def _counting_loop(steps: str, taken: str) -> list[onnx.NodeProto]:
    """Counting to what the input says, a million in about a second: a deadline is sure to end before the answer."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["count", "one"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("count", TensorProto.INT64, [1]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.INT64, [1]),
        ],
        [helper.make_tensor("one", TensorProto.INT64, [1], [1])],
    )
    return [
        helper.make_node("Squeeze", [steps], ["trips"]),
        helper.make_node("Loop", ["trips", "", "zero"], [taken], body=body),
    ]


def _add_model(
    folder: Path,
    nodes: Sequence[onnx.NodeProto],
    *,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    constants: Sequence[onnx.TensorProto] = (),
    max_batch_size: int,
) -> None:
    """Lay a model out by hand: what publishing does beyond that is not the client's business."""

    def declared(specs: Sequence[TensorSpec]) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(
                spec.name, _ONNX_TYPES[spec.dtype], [f"axis{i}" if n == -1 else n for i, n in enumerate(spec.shape)]
            )
            for spec in specs
        ]

    config = model_config(
        folder.name,
        backend="onnxruntime",
        inputs=inputs,
        outputs=outputs,
        serving=Serving(max_batch_size=max_batch_size),
    )
    graph = helper.make_graph(nodes, folder.name, declared(inputs), declared(outputs), constants)
    # Versions that every ONNX Runtime of the last years reads.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config_text(config), encoding="utf-8")
    onnx.save(model, folder / "1" / "model.onnx")
