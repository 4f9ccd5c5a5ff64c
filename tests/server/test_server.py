"""The life of a server: start, stop, and everything that can go wrong on the way."""

from __future__ import annotations

import errno
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import psutil
import pytest

from tritium.client import InputError, ServerError
from tritium.repository import ArtifactError, Repository, cache_dir
from tritium.server import ModelLoadError, PortInUseError, StartError, TritonServer
from tritium.server._log import ServerLog, load_failures
from tritium.server._process import BoundProcess

from .conftest import DOUBLER_CONFIG, WriteModel, doubler, wait_until

SHM = Path("/dev/shm")


def family(pid: int) -> list[psutil.Process]:
    """A process and all that it started."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def listening(server: TritonServer) -> list[str]:
    """The addresses that Triton listens on, one a port."""
    connections = psutil.Process(server.pid).net_connections()
    return [connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN]


def gone(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


@pytest.fixture(scope="module")
def repository(folder: Path, write_model: WriteModel) -> Path:
    """A repository with one good model."""
    write_model("doubler", doubler(), DOUBLER_CONFIG)
    return folder


@pytest.fixture
def broken(tmp_path: Path, repository: Path) -> Path:
    """A copy of it, for a test that breaks it."""
    shutil.copytree(repository / "doubler", tmp_path / "broken" / "doubler")
    return tmp_path / "broken"


def shared_memory() -> set[Path]:
    """What servers of this process have; tests beside it have their own."""
    return set(SHM.glob(f"tritium-{os.getpid()}-*"))


def test_three_starts_and_stops_leave_no_process_and_no_shared_memory(repository: Path) -> None:
    before = shared_memory()
    for _ in range(3):
        with TritonServer(repository, onnx_backend="python") as server:
            processes = family(server.pid)
            assert len(processes) >= 2, "no backend process was started"
            assert shared_memory() > before
            run = server.folder
        assert gone(processes)
        assert shared_memory() == before
        assert not run.exists()


def test_the_zoo_leaves_nothing_after_sigterm(zoo: Repository) -> None:
    code = (
        "import signal, sys\n"
        "from tritium.server import TritonServer\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        f"with TritonServer({str(zoo.path)!r}) as server:\n"
        "    print(server.pid, flush=True)\n"
        "    server.wait()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        processes = family(int(owner.stdout.readline()))
        owner.send_signal(signal.SIGTERM)
        assert owner.wait(60) == 0
    assert gone(processes)
    assert not list(SHM.glob(f"tritium-{owner.pid}-*"))


def test_an_owner_that_is_killed_takes_triton_along(repository: Path) -> None:
    code = (
        "from tritium.server import TritonServer\n"
        f"with TritonServer({str(repository)!r}) as server:\n"
        "    print(server.pid, flush=True)\n"
        "    server.wait()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        processes = family(int(owner.stdout.readline()))
        owner.kill()
    wait_until(lambda: gone(processes))
    with TritonServer(repository):
        pass  # a later start sweeps what a dead owner left
    assert not list(SHM.glob(f"tritium-{owner.pid}-*"))


def test_an_idle_connection_holds_the_stop_no_longer_than_its_budget(repository: Path) -> None:
    server = TritonServer(repository, shutdown_timeout_s=2)
    server.start()
    host, port = server.http_url.removeprefix("http://").split(":")
    idle = http.client.HTTPConnection(host, int(port))
    idle.request("GET", "/v2/health/live")
    idle.getresponse().read()
    processes = family(server.pid)
    started = time.monotonic()
    server.stop()
    assert time.monotonic() - started < 10
    idle.close()
    assert gone(processes)
    assert not list(SHM.glob(f"tritium-{os.getpid()}-{server.folder.name.split('-')[1]}-*"))


def test_triton_listens_on_loopback_only(repository: Path) -> None:
    with TritonServer(repository) as server:
        addresses = listening(server)
    assert len(addresses) == 3
    # gRPC listens by an IPv6 socket.
    assert {address.removeprefix("::ffff:") for address in addresses} == {"127.0.0.1"}


def test_exposed_it_listens_on_every_interface(repository: Path) -> None:
    with TritonServer(repository, expose=True) as server:
        with server.client() as client:
            assert client.is_ready()
        assert set(listening(server)) == {"0.0.0.0", "::"}


def test_model_code_sees_no_secret_of_the_environment(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    passed_over = ("NVIDIA_API_KEY", "CUDA_Token", "ORT_SECRET", "TORCH_HUB_PASSWORD", "NCCL_CREDENTIALS")
    for name in passed_over:
        monkeypatch.setenv(name, "hunter2")
    passed_on = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    for name, value in passed_on.items():
        monkeypatch.setenv(name, value)
    with TritonServer(repository, models=["doubler"]) as server:
        environment = psutil.Process(server.pid).environ()
    assert not environment.keys() & {"AWS_SECRET_ACCESS_KEY", *passed_over}
    assert passed_on.items() <= environment.items()


@pytest.mark.parametrize("kind", ["http", "grpc", "metrics"])
def test_a_port_in_use_is_named_before_anything_starts(repository: Path, kind: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = TritonServer(repository, **{f"{kind}_port": port})
        with pytest.raises(PortInUseError, match=rf"Port {port} \({kind}\) is in use"):
            server.start()
        assert not server.folder.exists()


def test_what_a_publisher_has_staged_is_no_version(broken: Path) -> None:
    shutil.copytree(broken / "doubler" / "1", broken / "doubler" / ".doubler-staging-x" / "version")
    with TritonServer(broken) as server, server.client() as client:
        assert [(status.name, status.version) for status in client.models()] == [("doubler", "1")]


def test_a_port_that_was_asked_for_is_used(repository: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with TritonServer(repository, http_port=port) as server:
        assert server.http_url == f"http://127.0.0.1:{port}"


def test_an_unknown_model_is_refused_with_those_there_are(repository: Path) -> None:
    with pytest.raises(InputError, match=r"no model 'dubler'.*it has doubler"):
        TritonServer(repository, models=["dubler"])


@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_a_repository_without_models_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "empty":
        path.mkdir()
    with pytest.raises(InputError, match=r"no model repository at|no models in"):
        TritonServer(path)


def test_a_corrupt_model_file_is_named_with_the_runtimes_reason(broken: Path) -> None:
    (broken / "doubler" / "1" / "model.onnx").write_bytes(b"no protobuf at all")
    with pytest.raises(ModelLoadError, match=r"doubler: .*ONNX Runtime .* cannot load") as caught:
        TritonServer(broken).start()
    assert list(caught.value.reasons) == ["doubler"]
    assert caught.value.log is not None
    assert "cannot load" in caught.value.log.read_text()
    assert not list(SHM.glob(f"tritium-{caught.value.log.parent.name}-*"))


def test_a_pickle_beside_a_model_keeps_it_from_being_loaded(broken: Path) -> None:
    (broken / "doubler" / "1" / "scaler.joblib").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelLoadError, match=r"doubler: .*scaler\.joblib: it is a pickle"):
        TritonServer(broken).start()


def test_a_config_that_cannot_be_read_here_loads_nothing_unchecked(broken: Path) -> None:
    # Triton takes a comment of any bytes.
    config = broken / "doubler" / "config.pbtxt"
    config.write_bytes(b"# caf\xe9\n" + config.read_bytes())
    with pytest.raises(ModelLoadError, match=r"doubler: .*config\.pbtxt is no Triton model config: .*utf-8") as caught:
        TritonServer(broken).start()
    assert list(caught.value.reasons) == ["doubler"]


def test_a_restart_counts_a_model_whose_folder_is_gone_as_failed_and_serves_the_others(broken: Path) -> None:
    shutil.copytree(broken / "doubler", broken / "other")
    with TritonServer(broken, onnx_backend="native") as server:
        shutil.rmtree(broken / "other")
        failed = server.restart(["doubler", "other"])
        with server.client() as client:
            assert client.model("doubler")([[1.0, 2.0]]).tolist() == [[2.0, 4.0]]
    assert list(failed) == ["other"]
    assert "is not in the repository any more" in failed["other"]


ENSEMBLE_CONFIG = """
platform: "ensemble"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: 2 }
output { name: "y" data_type: TYPE_FP32 dims: 2 }
ensemble_scheduling {
  step {
    model_name: "doubler"
    model_version: -1
    input_map { key: "x" value: "x" }
    output_map { key: "y" value: "y" }
  }
}
"""


def test_an_ensemble_brings_the_models_of_its_steps_and_these_are_checked(broken: Path) -> None:
    (broken / "twice" / "1").mkdir(parents=True)
    (broken / "twice" / "config.pbtxt").write_text(ENSEMBLE_CONFIG)
    shutil.copytree(broken / "doubler", broken / "other")
    with TritonServer(broken, models=["twice"], onnx_backend="native") as server:
        assert server.models == ["twice", "doubler"]
        with server.client() as client:
            assert client.model("twice")([[1.0, 2.0]]).tolist() == [[2.0, 4.0]]
            (broken / "doubler" / "1" / "scaler.joblib").write_bytes(b"\x80\x04.")
            with pytest.raises(ArtifactError, match="it is a pickle"):
                server.load("twice")
    with pytest.raises(ModelLoadError) as caught:
        server.start()
    assert list(caught.value.reasons) == ["twice", "doubler"]


def test_a_config_to_load_with_needs_no_version_policy_and_is_refused_if_it_is_none(broken: Path) -> None:
    with TritonServer(broken, onnx_backend="native") as server:
        with pytest.raises(InputError, match="The 'config' parameter must be a model's config as Triton has it"):
            server.load("doubler", config={"input": 3})
        with server.client() as client:
            config = {key: value for key, value in client.model("doubler").config.items() if key != "version_policy"}
            server.load("doubler", config=config | {"max_batch_size": 4})
        with server.client() as client:
            assert client.model("doubler").config["max_batch_size"] == 4


def test_an_ensemble_whose_steps_are_not_there_is_refused(broken: Path) -> None:
    (broken / "twice" / "1").mkdir(parents=True)
    (broken / "twice" / "config.pbtxt").write_text(ENSEMBLE_CONFIG.replace("doubler", "dubler"))
    with pytest.raises(ModelLoadError, match=r"twice: There is no model 'dubler'.*Did you mean 'doubler'\?"):
        TritonServer(broken, models=["twice"]).start()


CONFIG_FAULTS = {
    "an unknown input": ('name: "x"', 'name: "z"', "input 'z' is not in the model; it has \\['x'\\]"),
    "an unknown output": ('name: "y"', 'name: "q"', "output 'q' is not in the model; it has \\['y'\\]"),
    "another dtype": ("TYPE_FP32", "TYPE_INT64", "input 'x' is TYPE_FP32 in the model and TYPE_INT64 in the config"),
    "another shape": ("dims: 2", "dims: 3", "input 'x' has shape \\[-1, 2\\] in the model and \\[-1, 3\\]"),
    "no batch axis": ("max_batch_size: 8", "max_batch_size: 0", "has shape \\[-1, 2\\] in the model and \\[2\\]"),
    "a misspelt key": ("instance_group", "instance_grupp", "(?s)config.pbtxt|instance_grupp"),
}


@pytest.mark.parametrize("onnx_backend", ["native", "python"])
@pytest.mark.parametrize("fault", CONFIG_FAULTS)
def test_a_config_that_does_not_match_the_artifact_is_explained(broken: Path, fault: str, onnx_backend: str) -> None:
    old, new, message = CONFIG_FAULTS[fault]
    config = broken / "doubler" / "config.pbtxt"
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises(ModelLoadError, match=message):
        TritonServer(broken, onnx_backend=onnx_backend).start()


def test_a_cache_that_triton_cannot_start_backend_processes_from_is_refused_at_once(
    broken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spaced = tmp_path / "two words"
    spaced.symlink_to(cache_dir(), target_is_directory=True)
    monkeypatch.setenv("TRITIUM_CACHE_DIR", str(spaced))
    with pytest.raises(StartError, match=r"letters, digits.*two words.*TRITIUM_CACHE_DIR"):
        TritonServer(broken, onnx_backend="python").start()
    with TritonServer(broken, onnx_backend="native") as server, server.client() as client:
        assert client.model("doubler")([[1.0, 2.0]]).tolist() == [[2.0, 4.0]]


def test_a_backend_process_that_dies_while_loading_ends_the_start_at_once(broken: Path, tmp_path: Path) -> None:
    # A Python model of the user's own: Triton's python backend runs it in the same kind of process.
    (broken / "doubler" / "1" / "model.py").write_text(
        "import os\nclass TritonPythonModel:\n    def initialize(self, args):\n        os._exit(3)\n"
    )
    config = broken / "doubler" / "config.pbtxt"
    config.write_text(config.read_text().replace("onnxruntime", "python"))
    with pytest.raises(ModelLoadError, match=r"doubler: .*(stub|Stub)"):
        TritonServer(broken, startup_timeout_s=90).start()


def test_a_start_that_takes_too_long_ends_with_an_error(broken: Path) -> None:
    (broken / "doubler" / "1" / "model.py").write_text(
        "import time\nclass TritonPythonModel:\n    def initialize(self, args):\n        time.sleep(600)\n"
    )
    config = broken / "doubler" / "config.pbtxt"
    config.write_text(config.read_text().replace("onnxruntime", "python"))
    server = TritonServer(broken, startup_timeout_s=3, shutdown_timeout_s=1)
    with pytest.raises(StartError, match="not ready after 3 s"):
        server.start()
    assert not list(SHM.glob(f"tritium-{server.folder.name}-*"))


def test_using_a_server_that_does_not_run_is_an_error(repository: Path) -> None:
    server = TritonServer(repository)
    with pytest.raises(StartError, match="not running"):
        _ = server.pid
    assert server.stop() is None


def test_starting_twice_is_an_error(repository: Path) -> None:
    with TritonServer(repository) as server, pytest.raises(StartError, match="started already"):
        server.start()


@pytest.fixture(scope="module")
def running(repository: Path) -> Iterator[TritonServer]:
    with TritonServer(repository) as server:
        yield server


def test_a_new_version_serves_after_load_and_a_bad_one_leaves_the_old(repository: Path, running: TritonServer) -> None:
    model = repository / "doubler"
    with running.client() as client:
        assert client.model("doubler").metadata.versions == ("1",)
        shutil.copytree(model / "1", model / "2")
        running.load("doubler")
        with running.client() as another:  # this one keeps what it knows until it is told otherwise
            assert another.model("doubler").metadata.versions == ("2",)
        (model / "3").mkdir()
        (model / "3" / "model.onnx").write_bytes(b"broken")
        with pytest.raises(ServerError, match="cannot load"):
            running.load("doubler")
        assert client.model("doubler")([1.0, 2.0]).tolist() == [2.0, 4.0]
        shutil.rmtree(model / "3")
        running.unload("doubler")
        wait_until(lambda: all(status.state != "READY" for status in client.models()))
        running.load("doubler")
        shutil.rmtree(model / "2")


def test_the_log_stays_within_its_bounds(tmp_path: Path) -> None:
    code = "import sys\nfor i in range(300_000): print('x' * 99)"
    log = ServerLog(tmp_path / "log")
    process = BoundProcess([sys.executable, "-c", code], env=dict(os.environ), folder=tmp_path, log=log)
    process.start()
    assert process.wait(60) == 0
    process.stop(1)
    assert len(process.tail) == 400
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert max(sizes) <= 8 * 1024 * 1024


def test_whoever_is_interrupted_while_triton_starts_leaves_nothing(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, begun = BoundProcess.start, []

    def interrupted(process: BoundProcess) -> None:
        start(process)
        begun.append(process)
        raise KeyboardInterrupt

    monkeypatch.setattr(BoundProcess, "start", interrupted)
    server = TritonServer(repository)
    with pytest.raises(KeyboardInterrupt):
        server.start()
    (process,) = begun
    assert process.exit_code() is not None
    assert not server.is_running
    assert not server.folder.exists()


def test_a_program_that_is_called_off_never_starts(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    process = BoundProcess(
        ["/usr/bin/touch", str(ran)], env=dict(os.environ), folder=tmp_path, log=ServerLog(tmp_path / "log")
    )
    assert process.call_off()
    with pytest.raises(CancelledError):
        process.start()
    assert not ran.exists()


def test_a_program_that_cannot_start_needs_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_args: Any, **_options: Any) -> None:
        raise BlockingIOError(errno.EAGAIN, "no more processes")

    process = BoundProcess(["/bin/true"], env={}, folder=tmp_path, log=ServerLog(tmp_path / "log"))
    monkeypatch.setattr(subprocess, "Popen", refused)
    with pytest.raises(BlockingIOError):
        process.start()
    assert process.call_off()


def test_reasons_are_read_from_tritons_own_log_lines() -> None:
    stamp = "1121 22:49:48.7 1 model.cc:642]"
    lines = [
        f'I{stamp} "loading: conf:1"',
        f"E{stamp} \"failed to load 'conf' version 1: Internal: ValueError: max_batch_size 8, not "
        '\\"4\\"\\n\\nAt:\\n  /x/model.py(19): f\\n"',
        f"E{stamp} \"Poll failed for model directory 'bad': unexpected end\"",
    ]
    assert load_failures(lines) == {
        "conf": 'Internal: ValueError: max_batch_size 8, not "4"',
        "bad": "unexpected end",
    }
