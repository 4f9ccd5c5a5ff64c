"""The same repository on a GPU: needs one, and packages that use it; `tritium doctor` says what is missing."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from tritium.client import Client
from tritium.repository import Repository, add_warm_up, config_text, golden_batches, load_golden, verify_server
from tritium.server import ModelLoadError, Supervisor, TritonServer
from tritium.server._stubs import stubs

from .conftest import wait_until

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="there is no NVIDIA GPU on this machine"),
]
Edit = Callable[[ModelConfig], None]
ON_GPU = ModelInstanceGroup(count=1, kind=ModelInstanceGroup.KIND_GPU, gpus=[0])
ON_CPU = ModelInstanceGroup(count=1, kind=ModelInstanceGroup.KIND_CPU)
# What a process has opened that computes on a GPU.
CUDA = {"libonnxruntime_providers_cuda.so", "libtorch_cuda.so"}
# No machine has so many.
FAR_AWAY = 99


@pytest.fixture(scope="module", params=["native", "python"])
def server(whole_zoo: Repository, request: pytest.FixtureRequest) -> Iterator[TritonServer]:
    """All reference models, with each ONNX backend in turn."""
    with TritonServer(whole_zoo.path, onnx_backend=request.param) as running:
        yield running


def test_all_models_give_their_golden_outputs_on_the_gpu(client: Client, whole_zoo: Repository) -> None:
    for name in whole_zoo.models():
        assert {group["kind"] for group in client.model(name).config["instance_group"]} == {"KIND_GPU"}
    assert [str(verdict) for verdict in verify_server(client, whole_zoo) if not verdict.ok] == []


def test_every_process_that_runs_models_computes_with_cuda(server: TritonServer) -> None:
    running = [*([server.pid] if server.onnx_backend == "native" else []), *stubs(server.pid)]
    assert [pid for pid in running if not opened_cuda(pid)] == []
    assert "going on with" not in server.log.read_text(encoding="utf-8")


def opened_cuda(pid: int) -> set[str]:
    """What of CUDA a process has opened."""
    maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
    return {name for name in CUDA if f"/{name}" in maps}


class TestConfigs:
    """What of a config concerns GPUs, on the network of digits."""

    @pytest.fixture(params=["native", "python"])
    def backend(self, request: pytest.FixtureRequest) -> str:
        backend: str = request.param
        return backend

    @pytest.fixture
    def serving(self, zoo: Repository, tmp_path: Path, backend: str) -> Callable[[Edit], TritonServer]:
        """A server, not started yet, of that model with an edited config."""

        def edited(edit: Edit) -> TritonServer:
            copy_model(zoo, "digits_cnn", tmp_path / "models", edit)
            return TritonServer(tmp_path / "models", onnx_backend=backend)

        return edited

    def test_an_instance_on_the_cpu_leaves_the_gpu_alone(
        self, serving: Callable[[Edit], TritonServer], zoo: Repository
    ) -> None:
        with serving(lambda config: placed(config, ON_CPU)) as server:
            assert is_right(server, zoo)
            assert [pid for pid in (server.pid, *stubs(server.pid)) if opened_cuda(pid)] == []

    @pytest.mark.parametrize("groups", [(ON_GPU,), (ON_GPU, ON_GPU), (ON_GPU, ON_CPU)], ids=["one", "two", "mixed"])
    def test_instances_run_where_the_config_puts_them(
        self, serving: Callable[[Edit], TritonServer], zoo: Repository, groups: tuple[ModelInstanceGroup, ...]
    ) -> None:
        with serving(lambda config: placed(config, *groups)) as server:
            assert is_right(server, zoo)
            assert any(opened_cuda(pid) for pid in (server.pid, *stubs(server.pid)))

    def test_a_gpu_that_is_not_there_is_refused_by_its_number(self, serving: Callable[[Edit], TritonServer]) -> None:
        far = ModelInstanceGroup(count=1, kind=ModelInstanceGroup.KIND_GPU, gpus=[FAR_AWAY])
        with pytest.raises(ModelLoadError, match=str(FAR_AWAY)), serving(lambda config: placed(config, far)):
            pass

    @pytest.mark.parametrize(
        "options",
        [
            {"gpu_mem_limit": str(1 << 30), "arena_extend_strategy": "kSameAsRequested"},
            {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"},
        ],
        ids=["memory", "arithmetic"],
    )
    def test_options_of_cuda_are_taken(
        self, serving: Callable[[Edit], TritonServer], zoo: Repository, options: dict[str, str]
    ) -> None:
        with serving(lambda config: accelerated(config, "cuda", **options)) as server:
            assert is_right(server, zoo)
            assert "going on with" not in server.log.read_text(encoding="utf-8")

    def test_an_option_that_cuda_does_not_take_is_refused(self, serving: Callable[[Edit], TritonServer]) -> None:
        with (
            pytest.raises(ModelLoadError, match="no_such_option"),
            serving(lambda config: accelerated(config, "cuda", no_such_option="1")),
        ):
            pass

    def test_older_places_of_options_are_taken(self, serving: Callable[[Edit], TritonServer], zoo: Repository) -> None:
        def edit(config: ModelConfig) -> None:
            placed(config, ON_GPU)
            config.parameters["gpu_mem_limit"].string_value = str(1 << 30)
            config.parameters["cudnn_conv_algo_search"].string_value = "1"
            config.parameters["memory.enable_memory_arena_shrinkage"].string_value = "cpu:0;gpu:0"

        with serving(edit) as server:
            assert is_right(server, zoo)

    def test_where_there_is_no_tensorrt_cuda_serves_and_the_log_says_so(
        self, serving: Callable[[Edit], TritonServer], zoo: Repository
    ) -> None:
        with serving(lambda config: accelerated(config, "tensorrt", precision_mode="FP32")) as server:
            assert is_right(server, zoo)
            assert any(opened_cuda(pid) for pid in (server.pid, *stubs(server.pid)))
            log = server.log.read_text(encoding="utf-8")
            maps = "".join(Path(f"/proc/{pid}/maps").read_text() for pid in (server.pid, *stubs(server.pid)))
            assert "libnvinfer" in maps or "TensorrtExecutionProvider cannot be used here" in log

    def test_a_warm_up_runs_before_the_model_is_ready(
        self, serving: Callable[[Edit], TritonServer], zoo: Repository, tmp_path: Path
    ) -> None:
        def edit(config: ModelConfig) -> None:
            golden = load_golden(zoo.version_folder("digits_cnn"), config)
            folder = tmp_path / "models/digits_cnn/warmup"
            folder.mkdir()
            for name, content in add_warm_up(config, golden).items():
                (folder / name).write_bytes(content)

        with serving(edit) as server, server.client() as client:
            assert int(client.model("digits_cnn").statistics()["model_stats"][0]["execution_count"]) == 1
            assert is_right(server, zoo)


def test_a_backend_process_that_dies_is_healed_on_the_gpu(zoo: Repository) -> None:
    models = ("digits_cnn", "digits_mlp")
    with Supervisor(TritonServer(zoo.path, models=models, onnx_backend="python")) as supervisor:
        server = supervisor.server
        for model in models:
            before = stubs(server.pid)
            os.kill(next(pid for pid, served in before.items() if served == model), signal.SIGKILL)
            wait_until(lambda: supervisor.states()[model].state != "ready")  # noqa: B023 - waited for at once
            wait_until(lambda: supervisor.states()[model].state == "ready", 60)  # noqa: B023 - waited for at once
            assert all(opened_cuda(pid) for pid in stubs(server.pid))
            assert is_right(server, zoo, model)


def copy_model(repository: Repository, model: str, target: Path, edit: Edit) -> None:
    """Copy a model, with another config."""
    shutil.copytree(repository.path / model, target / model)
    config = repository.config(model)
    edit(config)
    (target / model / "config.pbtxt").write_text(config_text(config), encoding="utf-8")


def placed(config: ModelConfig, *groups: ModelInstanceGroup) -> None:
    """Put a model's instances there, and nowhere else."""
    del config.instance_group[:]
    config.instance_group.extend(groups)


def accelerated(config: ModelConfig, accelerator: str, **options: str) -> None:
    """Put a model on the GPU, with an accelerator."""
    placed(config, ON_GPU)
    asked = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name=accelerator)
    asked.parameters.update(options)


def is_right(server: TritonServer, repository: Repository, model: str = "digits_cnn") -> bool:
    """Whether a model gives its golden outputs, several times: the first run on a GPU is unlike the next."""
    golden = load_golden(repository.version_folder(model), repository.config(model))
    with server.client() as client:
        return all(
            np.allclose(client.model(model)(dict(batch.inputs)), next(iter(batch.outputs.values())), atol=1e-3)
            for _ in range(3)
            for batch in golden_batches(golden, repository.config(model), 8)
        )
