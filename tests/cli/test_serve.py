"""`tritium serve` as the process that it is: how it gets ready, what it says, and how it ends."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tritium.client import AccessDeniedError, Client
from tritium.repository import Repository, load_golden, promote
from tritium.server import TritonServer

from .conftest import DEADLINE_S, FREE_PORTS, left

ONNXRUNTIME = next(package.version for package in distributions() if package.name in ("onnxruntime", "onnxruntime-gpu"))

Spawn = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_it_in_order_and_leaves_nothing(serve: Any, number: signal.Signals) -> None:
    with serve("--json", "--model", "digits_cnn", "--model", "digits_mlp") as serving:
        ready = serving.document()
        assert ready["models"] == {"digits_cnn": "onnxruntime", "digits_mlp": "pytorch"}
        for key, scheme in (("http_url", "http"), ("grpc_url", "grpc"), ("metrics_url", "http")):
            assert ready[key].startswith(f"{scheme}://127.0.0.1:")
        processes = serving.started()
        assert [process.pid for process in processes if process.name() == "tritonserver"] == [ready["pid"]]
        assert (ready["onnx_backend"], ready["onnx_backend_reason"]) == ("native", None)
        assert len(processes) >= 2, "Triton, and a process for the TorchScript model"
        assert serving.shared_memory()
        log = Path(ready["log"])
        assert "Started HTTPService" in log.read_text()
        for url in (ready["http_url"], ready["grpc_url"]):
            with Client(url) as client:
                assert all(client.is_ready(model) for model in ready["models"])
                assert not client.is_ready("digits_svm")
        with urllib.request.urlopen(ready["metrics_url"], timeout=10) as response:
            assert b"nv_inference_count" in response.read()

        serving.process.send_signal(number)
        assert serving.process.wait(DEADLINE_S) == 0
        assert left(processes) == []
        assert serving.shared_memory() == []
        assert not log.parent.exists()
        assert json.loads(serving.out.read_text()) == ready, "one document, and nothing after it"
        assert serving.err.read_text().endswith("Stopped\n")


def test_a_second_signal_while_it_stops_leaves_nothing_either(serve: Any) -> None:
    """Who presses Ctrl-C twice is in a hurry, and must not have to tidy up."""
    # With a backend process, because that takes its time to end.
    with serve("--json", "--model", "digits_cnn", "--onnx-backend", "python") as serving:
        ready = serving.document()
        processes, log = serving.started(), Path(ready["log"])
        serving.process.send_signal(signal.SIGINT)
        # Triton's own words once it was told to stop. It takes another second or two.
        stopping = "Waiting for in-flight requests to complete"
        serving.wait_for("a stop", lambda: stopping in log.read_text())
        serving.process.send_signal(signal.SIGINT)
        try:
            serving.process.wait(DEADLINE_S)
            assert left(processes) == []
            assert serving.shared_memory() == []
            assert not log.parent.exists()
        finally:
            psutil.wait_procs(processes, timeout=DEADLINE_S)
            shutil.rmtree(log.parent, ignore_errors=True)


@pytest.mark.parametrize("onnx_backend", ["native", "python"])
def test_the_banner_has_what_one_needs_and_its_commands_work(
    serve: Any, zoo: Repository, spawn: Spawn, onnx_backend: str
) -> None:
    engines = {
        "onnxruntime": f"native, ONNX Runtime {ONNXRUNTIME}"
        if onnx_backend == "native"
        else f"Python-based, ONNX Runtime {ONNXRUNTIME} (asked for)",
        "pytorch": "Python-based, PyTorch ",
    }
    with serve("--onnx-backend", onnx_backend) as serving:
        banner = serving.banner()
        assert serving.out.read_text() == "", "standard output is for results"
        for name, backend in {
            "digits_cnn": "onnxruntime",
            "digits_mlp": "pytorch",
            "digits_svm": "onnxruntime",
        }.items():
            (line,) = (line for line in banner.splitlines() if line.strip().startswith(f"{name} "))
            assert f"version {zoo.versions(name)[-1]}" in line
            assert f"backend  {backend}: {engines[backend]}" in banner
        lines = [shlex.split(line) for line in banner.splitlines() if line.startswith("  ") and "infer" in line]
        (curl,) = (words for words in lines if words[0] == "curl")
        (infer,) = (words for words in lines if words[0] == "tritium")

        expected = load_golden(zoo.version_folder("digits_cnn"), zoo.config("digits_cnn")).outputs["probabilities"][:1]
        answer = json.loads(fetch(curl))
        assert answer["model_name"] == "digits_cnn"
        (output,) = answer["outputs"]
        assert (output["name"], output["shape"]) == ("probabilities", [1, 10])
        np.testing.assert_allclose([output["data"]], expected, rtol=0, atol=1e-5)

        done = spawn(*infer[1:], "--json")
        assert done.returncode == 0, done.stderr
        np.testing.assert_allclose(json.loads(done.stdout)["probabilities"]["data"], expected, rtol=0, atol=1e-5)


def fetch(curl: list[str]) -> str:
    """What a curl command prints, also where there is no curl."""
    assert curl[:2] == ["curl", "-s"]
    if shutil.which("curl"):
        return subprocess.run(curl, capture_output=True, text=True, check=True, timeout=DEADLINE_S).stdout
    url, flag, body = curl[2:]
    assert (flag, body[0]) == ("-d", "@")
    with urllib.request.urlopen(url, data=Path(body[1:]).read_bytes(), timeout=DEADLINE_S) as response:
        text: str = response.read().decode()
    return text


@pytest.fixture
def nothing_to_compile_with(server: TritonServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache with the runtime and no native backend, on a machine where none can be made."""
    cache = tmp_path / "cache"
    cache.mkdir()
    for part in ("runtime", "wheels"):
        (cache / part).symlink_to(server.folder.parents[1] / part)
    monkeypatch.setenv("TRITIUM_CACHE_DIR", str(cache))
    monkeypatch.setenv("CXX", "/nonexistent/c++")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))


@pytest.mark.usefixtures("nothing_to_compile_with")
class TestWithoutACompiler:
    def test_the_python_based_backend_serves_and_the_banner_says_why(self, serve: Any) -> None:
        with serve("--model", "digits_cnn") as serving:
            banner = serving.banner()
        (line,) = (line for line in banner.splitlines() if line.startswith("  backend  onnxruntime: "))
        assert "Python-based" in line
        assert "(/nonexistent/c++ failed: No such file or directory; pip could not fetch ziglang" in line
        with serve("--model", "digits_cnn", "--json") as serving:
            document = serving.document()
        assert document["onnx_backend"] == "python"
        assert "/nonexistent/c++" in document["onnx_backend_reason"]
        assert "Compiling" not in serving.err.read_text(), "a later start does not try again"

    def test_asking_for_the_native_one_is_an_error_with_the_way_out(self, spawn: Spawn, zoo: Repository) -> None:
        done = spawn("serve", "--repository", zoo.path, *FREE_PORTS, "--onnx-backend", "native", "--json")
        assert done.returncode == 1
        document = json.loads(done.stdout)
        assert document["kind"] == "NativeBackendError"
        assert "/nonexistent/c++" in document["error"]
        assert "apt-get install g++" in document["error"]


def test_another_onnx_backend_is_wrong_usage_with_those_there_are(spawn: Spawn, zoo: Repository) -> None:
    done = spawn("serve", "--repository", zoo.path, *FREE_PORTS, "--onnx-backend", "cpp")
    assert done.returncode == 2
    assert "'auto', 'native', 'python'" in done.stderr


def test_a_triton_that_is_killed_serves_again_at_the_same_place(serve: Any) -> None:
    with serve("--model", "digits_cnn", "--json") as serving:
        document = serving.document()
        (triton,) = (process for process in serving.started() if process.name() == "tritonserver")
        triton.kill()
        serving.wait_for("the restart", lambda: "Triton is serving again" in serving.err.read_text())
        with Client(document["http_url"]) as client:
            assert client.is_ready("digits_cnn")
        processes = serving.started()
        serving.process.send_signal(signal.SIGTERM)
        assert serving.process.wait(DEADLINE_S) == 0
        assert left(processes) == []
        assert serving.shared_memory() == []


def test_a_new_version_is_reloaded_and_rolled_back_by_command(
    serve: Any, spawn: Spawn, zoo: Repository, tmp_path: Path
) -> None:
    shutil.copytree(zoo.path / "digits_cnn", tmp_path / "digits_cnn")
    repository = Repository(tmp_path)
    (first,) = repository.versions("digits_cnn")
    with serve("--json", repository=tmp_path) as serving:
        document = serving.document()

        def served() -> tuple[str, ...]:
            with Client(document["http_url"]) as client:
                return tuple(client.model("digits_cnn").metadata.versions)

        second = promote(repository.version_folder("digits_cnn"), repository).version
        assert served() == (str(first),)
        done = spawn("reload", "digits_cnn", "--repository", tmp_path)
        assert (done.returncode, served()) == (0, (str(second),)), done.stderr
        done = spawn("rollback", "digits_cnn", "--repository", tmp_path, "--json")
        answer = json.loads(done.stdout)
        assert answer == {"model": "digits_cnn", "version": first, "reloaded": [document["http_url"]]}
        assert served() == (str(first),)
        # A damaged version is refused, and what is served goes on.
        with (repository.version_folder("digits_cnn", first) / "model.onnx").open("ab") as artifact:
            artifact.write(b"x")
        done = spawn("reload", "digits_cnn", "--repository", tmp_path)
        assert done.returncode == 1
        assert "model.onnx was changed" in done.stderr
        assert served() == (str(first),)
    done = spawn("reload", "digits_cnn", "--repository", tmp_path)
    assert done.returncode == 2
    assert "No `tritium serve` of yours runs over" in done.stderr


def test_the_secret_is_for_its_owner_only(serve: Any, spawn: Spawn, zoo: Repository) -> None:
    with serve("--model", "digits_cnn", "--json") as serving:
        document = serving.document()
        record = Path(document["log"]).with_name("server.json")
        assert record.stat().st_mode & 0o777 == 0o600
        for url in (document["http_url"], document["grpc_url"]):
            with Client(url) as client:
                for forbidden in (client.models, lambda c=client: c.load("digits_cnn"), lambda c=client: c.unload("x")):
                    with pytest.raises(AccessDeniedError, match="restricted"):
                        forbidden()
                with pytest.raises(AccessDeniedError), client.shared_memory(64):
                    pass
            assert spawn("models", "--url", url).returncode == 0
        request = urllib.request.Request(f"{document['health_url']}/models/digits_cnn/reload", method="POST")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(request, timeout=10)


@pytest.mark.parametrize("kind", ["http", "grpc", "metrics"])
def test_a_port_in_use_is_named_before_anything_is_started(spawn: Spawn, zoo: Repository, kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = spawn("serve", "--repository", zoo.path, *FREE_PORTS, f"--{kind}-port", port, "--json")
    assert done.returncode == 1
    assert f"Error: Port {port} ({kind}) is in use" in done.stderr
    document = json.loads(done.stdout)
    assert document["kind"] == "PortInUseError"
    assert f"Port {port} ({kind}) is in use" in document["error"]


def test_a_model_that_does_not_load_ends_it_with_the_servers_reason(
    spawn: Spawn, zoo: Repository, tmp_path: Path
) -> None:
    shutil.copytree(zoo.path / "digits_cnn", tmp_path / "models" / "digits_cnn")
    for artifact in tmp_path.rglob("model.onnx"):
        artifact.write_bytes(b"half a file")
    done = spawn("serve", "--repository", tmp_path / "models", *FREE_PORTS, "--json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["kind"] == "ModelLoadError"
    assert "digits_cnn: " in document["error"]
    assert "model.onnx was changed: its sha256 is not the manifest's" in document["error"]
    # What was put there by hand has nothing to compare with: Triton itself is asked.
    for ours in [*tmp_path.rglob("manifest.json"), *tmp_path.rglob("golden.npz")]:
        ours.unlink()
    done = spawn("serve", "--repository", tmp_path / "models", *FREE_PORTS, "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["kind"]) == (1, "ModelLoadError")
    log = Path(document["error"].rpartition(": ")[2])
    assert log.is_file()
    shutil.rmtree(log.parent)


def test_an_empty_repository_is_wrong_usage_with_the_way_to_fill_it(spawn: Spawn, tmp_path: Path) -> None:
    done = spawn("serve", "--repository", tmp_path, *FREE_PORTS)
    assert done.returncode == 2
    assert f"There are no models in {tmp_path}; `tritium zoo train` builds the reference models" in done.stderr
    assert done.stdout == ""


def test_all_models_are_served_by_default(serve: Any, zoo: Repository) -> None:
    with serve("--json") as serving:
        assert list(serving.document()["models"]) == zoo.models()


def test_a_model_without_a_config_is_served_and_shown_with_what_was_completed(
    serve: Callable[..., Any], zoo: Repository, tmp_path: Path
) -> None:
    version = zoo.version_folder("digits_cnn")
    shutil.copytree(version, tmp_path / "models" / "bare" / "1")
    with serve("--repository", tmp_path / "models", "--json") as running:
        assert running.document()["models"] == {"bare": "onnxruntime"}


def test_with_a_json_log_whatever_it_says_is_json(serve: Any) -> None:
    with serve("--log-format", "json", "--model", "digits_cnn") as serving:

        def ready() -> dict[str, str] | None:
            lines = [json.loads(line) for line in serving.err.read_text().splitlines()]
            return next((line for line in lines if line["message"].startswith("Ready: digits_cnn; http ")), None)

        line = serving.wait_for("a ready line", ready)
        log = Path(line["message"].rpartition(" log ")[2])
        logged = [json.loads(text) for text in log.read_text(encoding="utf-8").splitlines()]
        assert line in logged
        assert any(found["message"] == "successfully loaded 'digits_cnn'" for found in logged)
        serving.process.send_signal(signal.SIGTERM)
        assert serving.process.wait(DEADLINE_S) == 0
        assert json.loads(serving.err.read_text().splitlines()[-1])["message"] == "Stopped"
        assert serving.out.read_text() == ""


def test_what_is_no_collectors_url_is_wrong_usage_with_an_example(spawn: Spawn, zoo: Repository) -> None:
    done = spawn("serve", "--repository", zoo.path, *FREE_PORTS, "--otlp", "127.0.0.1:4318")
    assert done.returncode == 2
    assert "such as http://127.0.0.1:4318/v1/traces" in done.stderr
