"""A supervisor on a real Triton whose processes are killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from onnx import TensorProto, helper

from tritium.client import Client, InputError, Retries, ServerError
from tritium.server import ModelState, PortInUseError, StartError, Supervisor, TritonServer
from tritium.server._runs import shm_prefix
from tritium.server._stubs import live_stubs

from .conftest import DOUBLER_CONFIG, doubler, onnx_bytes, wait_until, who_shows

# Named so that no instance's name tells its model.
GROUPS = {"first": "workers", "second": "first_0"}
MODELS = tuple(GROUPS)
ENSEMBLE_CONFIG = """
platform: "ensemble"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: 2 }
output { name: "y" data_type: TYPE_FP32 dims: 2 }
ensemble_scheduling { step { model_name: "STEP" model_version: -1
  input_map { key: "x" value: "x" } output_map { key: "y" value: "y" } } }
"""
# Requests a second to each model, where the machine keeps up.
RATE_HZ = 200


def tripler() -> bytes:
    """y = x + x + x, in float32."""
    tensors = [("x", TensorProto.FLOAT, ("batch", 2))], [("y", TensorProto.FLOAT, ("batch", 2))]
    return onnx_bytes([helper.make_node("Sum", ["x", "x", "x"], ["y"])], *tensors)


def write_ensemble(folder: Path, step: str) -> None:
    """Put a model `whole` into a repository, which is that step and no more."""
    (folder / "whole" / "1").mkdir(parents=True)
    (folder / "whole" / "config.pbtxt").write_text(ENSEMBLE_CONFIG.replace("STEP", step), encoding="utf-8")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name, group in GROUPS.items():
        config = DOUBLER_CONFIG.replace("instance_group {", f'instance_group {{ name: "{group}"')
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "model.onnx").write_bytes(doubler())
        (tmp_path / name / "config.pbtxt").write_text(config, encoding="utf-8")
    return tmp_path


@pytest.fixture
def supervisor(repository: Path, request: pytest.FixtureRequest) -> Iterator[Supervisor]:
    backend = getattr(request, "param", "python")
    with Supervisor(TritonServer(repository, onnx_backend=backend), progress=print) as running:
        yield running


def quick_to_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a Triton that hangs ended after three seconds instead of fifteen."""
    monkeypatch.setattr("tritium.server._supervisor._ANSWER_S", 0.5)
    monkeypatch.setattr("tritium.server._pulse._SILENT_S", 0.5)
    monkeypatch.setattr("tritium.server._pulse._HANG_S", 2.0)


def stub_of(server: TritonServer, model: str) -> psutil.Process:
    served = str(server.repository.path / model / "1" / "model.onnx")
    (stub,) = (child for child in psutil.Process(server.pid).children() if served in child.cmdline())
    return stub


def ask(url: str | urllib.request.Request) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as exc:
        return exc.code, json.loads(exc.read())


def metric(supervisor: Supervisor, line: str) -> float:
    with urllib.request.urlopen(f"{supervisor.url}/metrics", timeout=10) as response:
        values = dict(text.rsplit(" ", 1) for text in response.read().decode().splitlines() if text[0] != "#")
    return float(values.get(line, 0))


@contextmanager
def loaded(url: str, *models: str) -> Iterator[dict[str, Future[tuple[int, list[str]]]]]:
    """Load models during the block; afterwards the right answers and the failures of each are there."""
    stop, begun = threading.Event(), threading.Barrier(len(models) + 1)
    with ThreadPoolExecutor(len(models)) as pool:
        try:
            loads = {model: pool.submit(load_until, stop, begun, url, model) for model in models}
            begun.wait(30)
            yield loads
        finally:
            stop.set()


def load_until(stop: threading.Event, begun: threading.Barrier, url: str, model: str) -> tuple[int, list[str]]:
    """Right answers and failures of a client that sends at the rate, with retries, until it is told to stop."""
    right, failures = 0, []
    row = np.array([[1, 2]], np.float32)
    retries = Retries(attempts=40, backoff_s=0.1, max_backoff_s=0.5, budget=10_000)
    with Client(url, timeout_s=30, retries=retries) as client:
        handle = client.model(model)
        handle(row)
        begun.wait(30)
        due_s = time.monotonic()
        while not stop.wait(max(0.0, due_s - time.monotonic())):
            due_s += 1 / RATE_HZ
            try:
                assert np.array_equal(handle(row), 2 * row)
                right += 1
            except ServerError as exc:
                failures.append(str(exc))
    return right, failures


def test_a_killed_backend_process_is_noticed_and_healed_while_its_siblings_go_on(supervisor: Supervisor) -> None:
    server = supervisor.server
    with loaded(server.http_url, *MODELS) as loads:
        stub_of(server, "first").kill()
        killed_s = time.monotonic()
        wait_until(lambda: supervisor.states()["first"].state is ModelState.DEGRADED, timeout_s=5)
        wait_until(lambda: metric(supervisor, 'tritium_model_heals_total{model="first"}') == 1, timeout_s=10)
        healed_s = time.monotonic() - killed_s
    answered = {model: future.result() for model, future in loads.items()}
    assert healed_s < 10
    assert answered["second"][1] == []
    assert all(right > 0 for right, _ in answered.values())
    assert supervisor.states()["second"].state is ModelState.READY
    assert metric(supervisor, 'tritium_model_heals_total{model="second"}') == 0
    with server.client() as client:
        assert np.array_equal(client.model("first")(np.array([[3, 4]], np.float32)), [[6, 8]])


def test_a_backend_process_that_dies_as_soon_as_its_model_is_loaded_is_noticed_all_the_same(
    supervisor: Supervisor,
) -> None:
    with supervisor._changing:
        stub_of(supervisor.server, "first").kill()
        wait_until(lambda: not live_stubs(supervisor.server.pid)["first"])
        supervisor._healer.serving("first")
    wait_until(lambda: metric(supervisor, 'tritium_model_heals_total{model="first"}') == 1)


@pytest.mark.parametrize("supervisor", ["native", "python"], indirect=True)
def test_a_triton_killed_under_load_serves_again_on_the_same_ports_with_nothing_left_over(
    supervisor: Supervisor,
) -> None:
    server = supervisor.server
    urls, old = (server.http_url, server.grpc_url), psutil.Process(server.pid)
    orphans = old.children()
    regions = set(Path("/dev/shm").glob(f"{shm_prefix(server.folder.name)}*"))
    assert bool(regions) == (server.onnx_backend == "python")
    with loaded(server.http_url, *MODELS) as loads:
        old.kill()
        wait_until(lambda: server.pid != old.pid and ask(f"{supervisor.url}/ready")[0] == 200, timeout_s=20)
    for right, failures in (future.result() for future in loads.values()):
        assert right > 0
        assert failures == []
    assert (server.http_url, server.grpc_url) == urls
    wait_until(lambda: not any(orphan.is_running() and orphan.status() != "zombie" for orphan in orphans))
    assert not any(region.exists() for region in regions)
    for url in urls:
        with Client(url) as client:
            assert np.array_equal(client.model("second")(np.array([[3, 4]], np.float32)), [[6, 8]])
    assert metric(supervisor, "tritium_triton_restarts_total") == 1


@pytest.mark.parametrize("supervisor", ["native"], indirect=True)
def test_after_a_restart_no_list_of_processes_shows_the_secret_and_it_still_works(supervisor: Supervisor) -> None:
    server, old = supervisor.server, supervisor.server.pid
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: server.pid != old and ask(f"{supervisor.url}/ready")[0] == 200, timeout_s=20)
    assert who_shows(server.secret) == []
    for protocol in ("http", "grpc"):
        with server.client(protocol=protocol) as client:
            assert {status.name for status in client.models()} == set(MODELS)


def test_a_model_that_keeps_dying_is_quarantined_until_it_is_reloaded(supervisor: Supervisor) -> None:
    server = supervisor.server
    for heals in (1, 2, 3):
        stub_of(server, "first").kill()
        wait_until(lambda: metric(supervisor, 'tritium_model_heals_total{model="first"}') == heals)  # noqa: B023
    stub_of(server, "first").kill()
    wait_until(lambda: supervisor.states()["first"].state is ModelState.QUARANTINED)
    status, document = ask(f"{supervisor.url}/ready/first")
    assert status == 503
    assert "backend processes died, the 4th time" in document["models"]["first"]["reason"]
    assert ask(f"{supervisor.url}/ready/second")[0] == 200
    assert ask(f"{supervisor.url}/ready")[0] == 503
    assert ask(f"{supervisor.url}/ready/third")[0] == 404
    supervisor.reload("first")
    assert ask(f"{supervisor.url}/ready")[0] == 200


@pytest.mark.parametrize("supervisor", ["native"], indirect=True)
def test_a_restart_quarantines_a_model_that_became_bad_and_serves_the_others(supervisor: Supervisor) -> None:
    server = supervisor.server
    (server.repository.path / "first" / "1" / "model.onnx").write_bytes(b"half a file")
    with pytest.raises(ServerError, match="first"):
        supervisor.reload("first")
    # What was loaded goes on, until Triton has to start again.
    assert supervisor.states()["first"].state is ModelState.READY
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: supervisor.states()["first"].state is ModelState.QUARANTINED, timeout_s=20)
    wait_until(lambda: supervisor.states()["second"].state is ModelState.READY, timeout_s=20)
    with server.client() as client:
        assert np.array_equal(client.model("second")(np.array([[3, 4]], np.float32)), [[6, 8]])


@pytest.mark.parametrize("supervisor", ["native"], indirect=True)
def test_a_restart_quarantines_a_model_whose_folder_is_gone_and_serves_the_others(supervisor: Supervisor) -> None:
    server = supervisor.server
    shutil.rmtree(server.repository.path / "first")
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: supervisor.states()["first"].state is ModelState.QUARANTINED, timeout_s=20)
    wait_until(lambda: supervisor.states()["second"].state is ModelState.READY, timeout_s=20)
    assert "is not in the repository any more" in supervisor.states()["first"].reason
    with server.client() as client:
        assert np.array_equal(client.model("second")(np.array([[3, 4]], np.float32)), [[6, 8]])
    assert metric(supervisor, "tritium_triton_restarts_total") == 1


@pytest.mark.parametrize("supervisor", ["native", "python"], indirect=True)
@pytest.mark.parametrize("bad", ["version", "config"])
def test_what_was_served_goes_on_after_a_restart_and_a_heal_where_the_repository_has_something_bad_now(
    supervisor: Supervisor, bad: str
) -> None:
    server, row = supervisor.server, np.array([[3, 4]], np.float32)
    folder = server.repository.path / "first"
    if bad == "version":
        (folder / "2").mkdir()
        (folder / "2" / "model.onnx").write_bytes(b"half a file")
    else:
        (folder / "config.pbtxt").write_text("no config at all", encoding="utf-8")
    if server.onnx_backend == "python":
        stub_of(server, "first").kill()
    else:
        os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: "as it was before" in supervisor.states()["first"].reason, timeout_s=20)
    wait_until(lambda: ask(f"{supervisor.url}/ready")[0] == 200, timeout_s=20)
    with server.client() as client:
        first = client.model("first")
        assert np.array_equal(first(row), 2 * row)
        if bad == "version":
            (folder / "2" / "model.onnx").write_bytes(tripler())
        else:
            (folder / "config.pbtxt").write_text(DOUBLER_CONFIG, encoding="utf-8")
        supervisor.reload("first")
        assert np.array_equal(client.model("first")(row), (3 if bad == "version" else 2) * row)
    assert supervisor.states()["first"].reason == ""


@pytest.mark.parametrize("supervisor", ["native"], indirect=True)
def test_a_triton_that_hangs_is_started_again(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    quick_to_judge(monkeypatch)
    old = supervisor.server.pid
    os.kill(old, signal.SIGSTOP)
    wait_until(lambda: "Triton has not answered for" in ask(f"{supervisor.url}/ready")[1]["models"]["first"]["reason"])
    wait_until(lambda: supervisor.server.pid != old and ask(f"{supervisor.url}/ready")[0] == 200, timeout_s=30)
    assert not psutil.pid_exists(old)


@pytest.mark.parametrize("supervisor", ["python"], indirect=True)
def test_a_busy_machine_is_no_death(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tritium.server._pulse._HANG_S", 3.0)
    spinning = [psutil.Popen(["python3", "-c", "while True: pass"]) for _ in range(4)]
    try:
        with supervisor.server.client() as client:
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline:
                client.model("first")(np.array([[3, 4]], np.float32))
    finally:
        for process in spinning:
            process.kill()
            process.wait()
    assert metric(supervisor, "tritium_triton_restarts_total") == 0
    assert metric(supervisor, 'tritium_model_heals_total{model="first"}') == 0
    assert all(report.state is ModelState.READY for report in supervisor.states().values())


@pytest.mark.parametrize("supervisor", ["native"], indirect=True)
def test_reloads_under_traffic_fail_no_request_and_mix_no_versions(supervisor: Supervisor) -> None:
    folder = supervisor.server.repository.path / "first"
    (folder / "2").mkdir()
    (folder / "2" / "model.onnx").write_bytes(tripler())
    rows, stop, seen = np.arange(8, dtype=np.float32).reshape(4, 2) + 1, threading.Event(), set()

    def send() -> None:
        with Client(supervisor.server.http_url) as client:
            handle = client.model("first")
            while not stop.is_set():
                answer = handle(rows)
                assert np.array_equal(answer, 2 * rows) or np.array_equal(answer, 3 * rows)
                seen.add(float(answer[0, 0]))

    with ThreadPoolExecutor(4) as pool:
        try:
            sending = [pool.submit(send) for _ in range(4)]
            for turn in range(100):
                policy = f"version_policy {{ specific {{ versions: {1 + turn % 2} }} }}"
                (folder / "config.pbtxt").write_text(f"{DOUBLER_CONFIG}{policy}\n", encoding="utf-8")
                supervisor.reload("first")
        finally:
            stop.set()
    for thread in sending:
        thread.result()
    assert seen == {2.0, 3.0}
    assert metric(supervisor, 'tritium_model_reloads_total{model="first",outcome="done"}') == 100


def test_a_triton_that_does_not_start_is_tried_again_after_growing_pauses(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor, pauses = Supervisor(TritonServer(repository)), list[float]()

    def fails(models: object) -> dict[str, str]:
        raise StartError("its port is taken")

    def no_wait(pause_s: float) -> bool:
        pauses.append(pause_s)
        return False

    monkeypatch.setattr(supervisor.server, "restart", fails)
    monkeypatch.setattr(supervisor._hurry, "wait", no_wait)
    # It ran for long enough, before.
    monkeypatch.setattr("tritium.server._pulse._STEADY_S", -1.0)
    supervisor._backoff.started()
    for _ in range(7):
        with pytest.raises(StartError):
            supervisor._restart("it died")
    assert pauses == [0, 1, 2, 5, 10, 30, 30]
    supervisor._backoff.started()
    with pytest.raises(StartError):
        supervisor._restart("it died")
    assert pauses[-1] == 0


@pytest.mark.parametrize("supervisor", ["native"], indirect=True)
def test_a_reload_ends_the_pause_before_a_restart(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    # Longer than any test may take.
    monkeypatch.setattr(supervisor._backoff, "pause_s", lambda: 3600.0)
    os.kill(supervisor.server.pid, signal.SIGKILL)
    wait_until(lambda: "starting it again in 3600 s" in supervisor.server.log.read_text())
    supervisor.reload("first")
    assert ask(f"{supervisor.url}/ready")[0] == 200
    assert not supervisor._hurry.is_set()


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (ModelState.READY, "first was not reloaded, and what was served goes on: no"),
        (ModelState.QUARANTINED, "first was not reloaded, and stays quarantined: no"),
        (ModelState.DEGRADED, "first was not reloaded: no"),
    ],
)
def test_a_refusal_says_what_becomes_of_the_model(repository: Path, state: ModelState, said: str) -> None:
    lines: list[str] = []
    supervisor = Supervisor(TritonServer(repository), progress=lines.append)
    supervisor._states.set("first", state)
    supervisor._refuse("first", InputError("no"))
    assert lines == [said]


@pytest.mark.parametrize("supervisor", ["native"], indirect=True)
def test_an_ensemble_that_comes_by_reload_brings_its_steps(supervisor: Supervisor) -> None:
    folder = supervisor.server.repository.path
    shutil.copytree(folder / "first", folder / "step")
    write_ensemble(folder, "step")
    supervisor.reload("whole")
    states = supervisor.states()
    assert set(states) == {*MODELS, "step", "whole"}
    assert all(report.state is ModelState.READY for report in states.values())


def test_a_model_without_a_config_is_reloaded_and_its_version_named(repository: Path) -> None:
    said: list[str] = []
    (repository / "bare" / "1").mkdir(parents=True)
    (repository / "bare" / "1" / "model.onnx").write_bytes(doubler())
    with Supervisor(TritonServer(repository, onnx_backend="native"), progress=said.append) as supervisor:
        supervisor.reload("bare")
    assert "bare was reloaded: version 1" in said


def test_a_step_that_asks_for_fewer_processes_after_its_ensemble_was_reloaded_is_not_healed(
    repository: Path,
) -> None:
    write_ensemble(repository, "first")
    config = repository / "first" / "config.pbtxt"
    one = config.read_text()
    assert "count: 1" in one
    config.write_text(one.replace("count: 1", "count: 2"))
    with Supervisor(TritonServer(repository, onnx_backend="python"), progress=print) as supervisor:
        assert supervisor._healer._stubs["first"] == 2
        config.write_text(one)
        supervisor.reload("whole")
        wait_until(lambda: live_stubs(supervisor.server.pid)["first"] == supervisor._healer._stubs["first"] == 1)
        row = np.array([[3, 4]], np.float32)
        with supervisor.server.client() as client:
            for _ in range(20):
                assert np.array_equal(client.model("whole")(row), 2 * row)
                time.sleep(0.1)
        assert metric(supervisor, 'tritium_model_heals_total{model="first"}') == 0


@pytest.mark.parametrize("name", ["whole", "a_whole"])
@pytest.mark.parametrize("again", ["first", "whole"])
def test_an_ensemble_is_not_ready_without_its_step_and_comes_back_with_it(
    repository: Path, again: str, name: str
) -> None:
    write_ensemble(repository, "first")
    (repository / "whole").rename(repository / name)
    with (
        Supervisor(TritonServer(repository, onnx_backend="python"), progress=print) as supervisor,
        supervisor.server.client() as client,
    ):

        def lacks_its_step() -> bool:
            status, document = ask(f"{supervisor.url}/ready/{name}")
            return status == 503 and document["models"][name]["reason"] == "its step first is not ready"

        with supervisor._changing:  # nothing is mended meanwhile
            stub_of(supervisor.server, "first").kill()
            wait_until(lacks_its_step)
        wait_until(lambda: ask(f"{supervisor.url}/ready")[0] == 200)
        with supervisor._changing:
            supervisor._healer.quarantine("first", "it died too often")
        # Triton unloads the ensemble, which is nobody's wish.
        wait_until(lambda: name in supervisor._healer._owed)
        assert not client.is_ready(name)
        assert lacks_its_step()
        supervisor.reload(name if again == "whole" else again)
        wait_until(lambda: ask(f"{supervisor.url}/ready")[0] == 200)
        row = np.array([[3, 4]], np.float32)
        assert np.array_equal(client.model(name)(row), 2 * row)
        assert metric(supervisor, f'tritium_model_quarantines_total{{model="{name}"}}') == 0


def test_a_signal_while_it_begins_to_watch_leaves_no_triton(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = Supervisor(TritonServer(repository, onnx_backend="native"))
    pids: list[int] = []

    def interrupted() -> None:
        pids.append(supervisor.server.pid)
        raise KeyboardInterrupt

    monkeypatch.setattr(supervisor._looking, "start", interrupted)
    with pytest.raises(KeyboardInterrupt), supervisor:
        pass
    assert not psutil.pid_exists(pids[0])
    supervisor._mending.join(10)
    assert not supervisor._mending.is_alive()


def test_a_health_port_in_use_is_named_before_anything_starts(repository: Path, supervisor: Supervisor) -> None:
    port = int(supervisor.url.rpartition(":")[2])
    with (
        pytest.raises(PortInUseError, match=f"Port {port} \\(health\\) is in use"),
        Supervisor(TritonServer(repository), health_port=port),
    ):
        pass
