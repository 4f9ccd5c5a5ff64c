"""The images and the compose file: what they promise, read from the files and from Compose's own output."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker/compose.yaml"
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
PORTS = {8000, 8001, 8002}

Service = dict[str, Any]
Services = dict[str, Service]


def compose_command() -> list[str] | None:
    if found := shutil.which("docker-compose"):
        return [found]
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True, timeout=60).returncode == 0:
        return [docker, "compose"]
    return None


def published(service: Service) -> Iterator[tuple[str, int]]:
    """The host's address and the container's port, from Compose 1's strings and Compose 2's mappings alike."""
    for port in service.get("ports", []):
        if isinstance(port, str):
            address, _, target = port.removesuffix("/tcp").rpartition(":")
            yield address.rpartition(":")[0], int(target)
        else:
            yield port.get("host_ip", ""), int(port["target"])


def instructions(dockerfile: Path) -> Iterator[tuple[str, str]]:
    """The name and the words of each instruction, its lines joined."""
    lines = [line for line in dockerfile.read_text().splitlines() if line and not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", "").splitlines():
        name, _, words = line.partition(" ")
        yield name, words.strip()


def gpu_command() -> set[str]:
    return set(json.loads(dict(instructions(ROOT / "docker/gpu.Dockerfile"))["CMD"]))


def allowed_in_build_context() -> set[str]:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    return {line[1:] for line in lines if line.startswith("!")}


def build_arguments(dockerfile: Path) -> dict[str, str]:
    return dict(words.split("=", 1) for name, words in instructions(dockerfile) if name == "ARG")


def tritium_commands() -> list[tuple[str, ...]]:
    """The arguments of every call of `tritium` in the Dockerfiles and in the compose file."""
    lines: set[tuple[str, ...]] = set()
    entrypoints: dict[str, list[str]] = {}
    for path in DOCKERFILES:
        steps = dict(instructions(path))
        entrypoints[f"docker/{path.name}"] = entrypoint = json.loads(steps.get("ENTRYPOINT", "[]"))
        lines.add((*entrypoint, *json.loads(steps["CMD"])))
        runs = [words for name, words in instructions(path) if name == "RUN" and words.startswith("tritium ")]
        lines |= {tuple(shlex.split(words)) for words in runs}
    for service in yaml.safe_load(COMPOSE.read_text())["services"].values():
        if "command" in service:
            lines.add((*entrypoints[service["build"]["dockerfile"]], *service["command"]))
    return sorted(line[1:] for line in lines if line[0] == "tritium")


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def profile(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def services(profile: str) -> Services:
    command = compose_command()
    if command is None:
        pytest.skip("Compose is not installed: `apt-get install docker-compose`, or Docker with its compose plugin")
    command += ["--file", str(COMPOSE), "--profile", profile, "config"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    # Compose 1 prints the services of every profile, Compose 2 only those that would start.
    return {
        name: service
        for name, service in yaml.safe_load(done.stdout)["services"].items()
        if profile in service.get("profiles", [profile])
    }


@pytest.fixture(scope="module")
def server(services: Services, profile: str) -> Service:
    return services[f"triton-{profile}"]


@pytest.fixture(scope="module")
def loadtest(services: Services, profile: str) -> Service:
    return services[f"loadtest-{profile}"]


@pytest.fixture(params=DOCKERFILES, ids=lambda path: path.name)
def dockerfile(request: pytest.FixtureRequest) -> Path:
    assert isinstance(request.param, Path)
    return request.param


def test_a_profile_has_one_server_and_one_load_test(services: Services, profile: str) -> None:
    assert set(services) == {f"triton-{profile}", f"loadtest-{profile}"}


def test_the_ports_are_published_on_loopback_only(server: Service, loadtest: Service) -> None:
    assert set(published(server)) == {("127.0.0.1", port) for port in PORTS}
    assert list(published(loadtest)) == []


def test_the_repository_is_all_that_is_mounted_and_it_is_read_only(services: Services) -> None:
    for name, service in services.items():
        (mount,) = service["volumes"]
        assert mount["type"] == "bind", name
        assert Path(mount["source"]) == ROOT / "model_repository", name
        assert mount["target"] == "/models", name
        assert mount["read_only"] is True, name


def test_no_service_has_capabilities_or_can_gain_privileges(services: Services) -> None:
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not {"cap_add", "devices", "ipc", "network_mode", "pid", "privileged", "user"} & set(service), name


def test_the_root_file_system_is_read_only_where_no_cache_needs_it(services: Services) -> None:
    writable = {name for name, service in services.items() if not service.get("read_only")}
    assert writable <= {"triton-cpu"}
    assert all("/tmp" in str(service["tmpfs"]) for name, service in services.items() if name not in writable)


def test_images_are_built_from_the_repository_and_never_tagged_latest(services: Services, profile: str) -> None:
    built = {name: service["build"] for name, service in services.items()}
    assert {Path(build["context"]) for build in built.values()} == {ROOT}
    assert {name: build["dockerfile"] for name, build in built.items()} == {
        f"triton-{profile}": f"docker/{profile}.Dockerfile",
        f"loadtest-{profile}": "docker/loadtest.Dockerfile",
    }
    assert {name: service["image"] for name, service in services.items()} == {
        f"triton-{profile}": f"tritium-{profile}:dev",
        f"loadtest-{profile}": "tritium-loadtest:dev",
    }


def test_the_load_test_waits_for_a_healthy_server_and_calls_it_by_its_alias(
    server: Service, loadtest: Service, profile: str
) -> None:
    assert set(loadtest["depends_on"]) == {f"triton-{profile}"}
    assert loadtest["depends_on"][f"triton-{profile}"]["condition"] == "service_healthy"
    assert server["networks"]["default"]["aliases"] == ["triton"]
    command = loadtest["command"]
    assert command[command.index("--url") + 1] == "http://triton:8000"
    assert command[command.index("--repository") + 1] == "/models"


def test_the_server_has_a_gigabyte_of_shared_memory(server: Service) -> None:
    assert str(server["shm_size"]) in {"1g", str(2**30)}


def test_only_the_gpu_server_reserves_gpus(server: Service, loadtest: Service, profile: str) -> None:
    assert "deploy" not in loadtest
    if profile == "cpu":
        assert "deploy" not in server
    else:
        (device,) = server["deploy"]["resources"]["reservations"]["devices"]
        assert device["driver"] == "nvidia"
        assert device["capabilities"] == ["gpu"]


def test_compose_waits_longer_than_triton_does_for_requests_under_way(server: Service) -> None:
    allowed_s = next(int(flag.split("=")[1]) for flag in gpu_command() if flag.startswith("--exit-timeout-secs="))
    assert int(server["stop_grace_period"].removesuffix("s")) > allowed_s


def test_every_base_image_has_a_tag_other_than_latest(dockerfile: Path) -> None:
    defaults = build_arguments(dockerfile)
    for name, words in instructions(dockerfile):
        if name == "FROM":
            image = re.sub(r"\$\{(\w+)\}", lambda match: defaults[match[1]], words)
            assert re.fullmatch(r"[\w./-]+:(?!latest)[\w.-]+", image), image


def test_triton_is_at_least_2606() -> None:
    year, month = map(int, build_arguments(ROOT / "docker/gpu.Dockerfile")["TRITON_VERSION"].split("."))
    assert (year, month) >= (26, 6)


def test_the_gpu_server_loads_explicitly_and_speaks_only_its_own_protocols() -> None:
    assert gpu_command() >= {
        "--model-repository=/models",
        "--model-control-mode=explicit",
        "--load-model=*",
        "--disable-auto-complete-config",
        "--allow-sagemaker=false",
        "--allow-vertex-ai=false",
    }


def test_what_is_copied_exists_and_reaches_the_build(dockerfile: Path) -> None:
    allowed = allowed_in_build_context()
    for name, words in instructions(dockerfile):
        if name in ("COPY", "ADD"):
            for source in shlex.split(words)[:-1]:
                assert (ROOT / source).exists(), source
                assert source == "." or source.split("/")[0] in allowed, f".dockerignore leaves out {source}"


def test_the_build_context_is_what_the_package_is_built_from_and_no_more() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    files = {pyproject["project"]["readme"], *pyproject["project"]["license-files"]}
    needed = {package.split("/")[0] for package in packages} | files | {"pyproject.toml", "constraints.txt"}
    assert allowed_in_build_context() == needed
    assert {name for name in needed if not (ROOT / name).exists()} == set()


def test_containers_run_as_a_user_by_number_who_is_not_root(dockerfile: Path) -> None:
    users = [words for name, words in instructions(dockerfile) if name == "USER"]
    assert users
    assert users[-1] == "1000:1000"


@pytest.mark.parametrize(
    ("name", "ready", "more"), [("cpu", "8003/ready", {8003}), ("gpu", "8000/v2/health/ready", set())]
)
def test_a_server_image_says_when_it_is_ready_and_stops_on_sigterm(name: str, ready: str, more: set[int]) -> None:
    steps = dict(instructions(ROOT / f"docker/{name}.Dockerfile"))
    assert f"http://127.0.0.1:{ready}" in steps["HEALTHCHECK"]
    assert set(map(int, steps["EXPOSE"].split())) == PORTS | more
    assert steps["STOPSIGNAL"] == "SIGTERM"


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (400, False), (503, False)])
def test_the_health_check_of_the_cpu_image_follows_the_supervisors_readiness(status: int, healthy: bool) -> None:
    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/ready" else 404)
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            pass

    steps = dict(instructions(ROOT / "docker/cpu.Dockerfile"))
    _, *arguments = json.loads(steps["HEALTHCHECK"].split("CMD", 1)[1])
    with HTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            command = [sys.executable, *(word.replace("8003", str(server.server_port)) for word in arguments)]
            # Docker hands its user's proxy to every container, and the check must not ask it.
            done = subprocess.run(command, capture_output=True, env={"http_proxy": "http://127.0.0.1:9"}, timeout=60)
        finally:
            server.shutdown()
            thread.join()
    assert (done.returncode == 0) is healthy, done.stderr


@pytest.mark.parametrize("words", tritium_commands(), ids=" ".join)
def test_the_cli_has_what_the_containers_call(words: tuple[str, ...]) -> None:
    # --help is obeyed only after every other flag is known, and before any value is looked at.
    command = [sys.executable, "-m", "tritium.cli", *words, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_command_lines_of_tritium_are_found() -> None:
    starts = {" ".join(words[:2]) for words in tritium_commands()}
    assert starts >= {"serve --repository", "load smoke", "runtime install"}
