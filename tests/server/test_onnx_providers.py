"""Which execution providers the Python-based ONNX backend opens a session with; no GPU is needed for that."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import onnxruntime
import pytest

import tritium.server

from .conftest import doubler

CUDA, TENSORRT, CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"
BACKENDS = Path(tritium.server.__file__).parent / "backends"
Provider = tuple[str, Mapping[str, str]]


class Refused(Exception):  # noqa: N818 — Triton's name for it is another
    """What stands for `TritonModelException` here."""


@pytest.fixture
def warnings_logged() -> list[str]:
    return []


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch, warnings_logged: list[str]) -> ModuleType:
    """The backend's modules, as the stub imports them."""
    pb = SimpleNamespace(TritonModelException=Refused, Logger=SimpleNamespace(log_warn=warnings_logged.append))
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", pb)
    monkeypatch.setitem(sys.modules, "batching", imported("batching", BACKENDS / "batching.py", monkeypatch))
    return imported("onnx_backend", BACKENDS / "onnxruntime/model.py", monkeypatch)


def imported(name: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def opened(backend: ModuleType, tmp_path: Path) -> Callable[..., Any]:
    """Opens the session of a model on a GPU, with these accelerators."""
    (tmp_path / "1").mkdir()
    (tmp_path / "1/model.onnx").write_bytes(doubler())

    def open_on_gpu(device_id: int = 1, **accelerators: Mapping[str, str]) -> Any:
        asked = [{"name": name, "parameters": dict(given)} for name, given in accelerators.items()]
        optimization = {"execution_accelerators": {"gpu_execution_accelerator": asked}}
        config = {"name": "doubler", "max_batch_size": 8, "optimization": optimization, "parameters": {}}
        model = sys.modules["batching"].ModelArgs(config, "doubler_0", str(tmp_path / "1"), device_id)
        json.dumps(config)  # as Triton sends it
        return backend._session(model)

    return open_on_gpu


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, backend: ModuleType) -> SimpleNamespace:
    """An ONNX Runtime on a machine with a GPU: which providers it has, and which of them fail or are left out."""
    told = SimpleNamespace(has=[TENSORRT, CUDA, CPU], fails=set(), leaves_out=set(), options={"device_id"}, asked=[])

    def session(_path: Path, _options: Any, providers: Sequence[Provider], enable_fallback: bool = True) -> Any:
        told.asked.append(list(providers))
        for name, options in providers:
            if name in told.fails or not told.options.issuperset(options):
                assert not enable_fallback, "ONNX Runtime falls back by itself, without the device"
                raise RuntimeError(f"{name} fails with {options}")
        return SimpleNamespace(get_providers=lambda: [name for name, _ in providers if name not in told.leaves_out])

    monkeypatch.setattr(backend.ort, "InferenceSession", session)
    monkeypatch.setattr(backend.ort, "get_available_providers", lambda: told.has)
    return told


def test_without_tensorrt_s_libraries_cuda_keeps_its_device_and_its_options(
    machine: SimpleNamespace, opened: Callable[..., Any], warnings_logged: list[str]
) -> None:
    machine.fails, machine.options = {TENSORRT}, {"device_id", "use_tf32", "trt_fp16_enable"}
    opened(1, tensorrt={"precision_mode": "FP16"}, cuda={"use_tf32": "0"})
    assert machine.asked[-1] == [(CUDA, {"device_id": "1", "use_tf32": "0"}), (CPU, {})]
    assert len(warnings_logged) == 1
    assert "TensorrtExecutionProvider cannot be used here" in warnings_logged[0]


@pytest.mark.parametrize("accelerator", ["tensorrt", "cuda"])
def test_an_option_that_a_provider_does_not_take_is_refused(
    machine: SimpleNamespace, opened: Callable[..., Any], accelerator: str
) -> None:
    with pytest.raises(Refused, match=r"fails with .*no_such_option"):
        opened(0, **{accelerator: {"no_such_option": "1"}})


def test_a_cuda_that_onnx_runtime_leaves_out_is_logged(
    machine: SimpleNamespace, opened: Callable[..., Any], warnings_logged: list[str]
) -> None:
    machine.leaves_out = {CUDA}
    assert opened().get_providers() == [CPU]
    assert warnings_logged == [
        "doubler: CUDAExecutionProvider cannot be used here: see its own lines above; going on without"
    ]


def test_a_gpu_where_all_is_there_is_asked_once_and_nothing_is_logged(
    machine: SimpleNamespace, opened: Callable[..., Any], warnings_logged: list[str]
) -> None:
    opened(3)
    assert machine.asked == [[(CUDA, {"device_id": "3"}), (CPU, {})]]
    assert warnings_logged == []


@pytest.mark.skipif(
    not {CUDA, TENSORRT}.issubset(onnxruntime.get_available_providers()), reason="this onnxruntime is without GPUs"
)
def test_the_real_onnx_runtime_without_cuda_goes_on_with_the_cpu(
    opened: Callable[..., Any], warnings_logged: list[str]
) -> None:
    session = opened(0, tensorrt={"precision_mode": "FP16"})
    if session.get_providers() == [CPU]:
        assert sorted(line.split()[1] for line in warnings_logged) == [CUDA, TENSORRT]
    else:
        assert CUDA in session.get_providers()
