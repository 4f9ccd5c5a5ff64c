"""The pytest plugin, in runs of its own: what its fixtures give, what a failure shows, what is left."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import yaml

from tritium.repository import cache_dir
from tritium.server._native import ONNX_BACKENDS
from tritium.server.pytest_plugin import _CHOICES, _SHOWN_BYTES, _tail

from .conftest import DOUBLER_CONFIG, doubler, wait_until

SHM = Path("/dev/shm")
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "testing.md").read_text(encoding="utf-8")
USES_THE_SERVER = """
def test_it(triton_server, triton_client):
    assert triton_client.model("doubler")([[1.0, 2.0]]).tolist() == [[2.0, 4.0]]
"""
# Says who serves, so that this can be looked for afterwards, and then lets the test go on.
TELLS_OF_THE_SERVER = """
import json, os, pathlib, psutil, pytest

@pytest.fixture
def told(triton_server, request):
    family = [triton_server.pid, *(child.pid for child in psutil.Process(triton_server.pid).children(recursive=True))]
    shown = {"pids": family, "folder": triton_server.folder.name, "pytest": os.getpid(), "url": triton_server.http_url}
    aside = pathlib.Path(f"{request.node.name}.part")
    aside.write_text(json.dumps(shown))
    aside.rename(f"{request.node.name}.json")
"""


@pytest.fixture(scope="session")
def real_cache() -> str:
    """Where Triton lies: `pytester` moves the home folder away, so this is asked for before."""
    return str(cache_dir())


@pytest.fixture
def project(real_cache: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder with a model repository of one model, where somebody is about to write tests."""
    monkeypatch.setenv("TRITIUM_CACHE_DIR", real_cache)
    add_model(pytester.path / "model_repository", "doubler")
    return pytester


def add_model(repository: Path, name: str, content: bytes | None = None) -> None:
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "1" / "model.onnx").write_bytes(doubler() if content is None else content)
    (repository / name / "config.pbtxt").write_text(DOUBLER_CONFIG, encoding="utf-8")


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest_subprocess(*arguments, timeout=120)


@contextmanager
def start(project: pytest.Pytester, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A run of pytest that goes on while the test does, and not a moment longer."""
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=project.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def nothing_of_it_left(project: pytest.Pytester) -> Iterator[None]:
    """After the test, what `told` wrote down of servers is gone: processes, shared memory, the server's folder."""
    yield
    servers = [json.loads(path.read_text()) for path in project.path.glob("*.json")]
    assert servers
    for server in servers:
        assert not [pid for pid in server["pids"] if runs(pid)]
        assert not list(SHM.glob(f"tritium-{server['folder']}-*"))
        assert not list(SHM.glob(f"tritium-{server['pytest']}-*"))
        assert not (cache_dir() / "run" / server["folder"]).exists()


@pytest.mark.parametrize("mode", ["prepend", "append", "importlib"])
def test_the_fixtures_serve_the_repository_below_rootdir(project: pytest.Pytester, mode: str) -> None:
    project.makepyfile(USES_THE_SERVER)
    run(project, f"--import-mode={mode}", "-W", "error").assert_outcomes(passed=1)


def test_one_server_serves_the_whole_run(project: pytest.Pytester) -> None:
    same = """
        import pathlib

        def test_it(triton_server, triton_client):
            seen = pathlib.Path("seen")
            me = f"{triton_server.pid} {id(triton_client)}"
            assert not seen.exists() or seen.read_text() == me
            seen.write_text(me)
    """
    project.makepyfile(test_one=same, test_two=same)
    run(project).assert_outcomes(passed=2)


def test_the_ini_file_names_the_repository_from_rootdir_the_models_and_more(project: pytest.Pytester) -> None:
    for name in ("one", "two", "three"):
        add_model(project.path / "else" / "where", name)
    project.makeini(
        """
        [pytest]
        triton_repository = else/where
        triton_models = one, three
        triton_onnx_backend = python
        triton_protocol = grpc
        triton_startup_timeout_s = 77.5
        """
    )
    project.makepyfile(
        f"""
        def test_it(triton_server, triton_client):
            assert str(triton_server.repository.path) == {str(project.path / "else" / "where")!r}
            assert triton_server.models == ["one", "three"]
            assert triton_server.onnx_backend == "python"
            assert triton_server._startup_timeout_s == 77.5
            assert triton_client.url.startswith("grpc://")
            assert triton_client.model("three")([[1.0, 2.0]]).tolist() == [[2.0, 4.0]]
        """
    )
    project.mkdir("below")
    command = [sys.executable, "-m", "pytest", ".."]
    done = subprocess.run(command, cwd=project.path / "below", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


def test_the_command_line_goes_before_the_ini_file_and_from_the_current_folder(project: pytest.Pytester) -> None:
    project.makepyprojecttoml(
        """
        [tool.pytest.ini_options]
        triton_repository = "nowhere"
        triton_models = ["doubler"]
        """
    )
    for name in ("one", "two", "three"):
        add_model(project.path / "below" / "mine", name)
    project.makepyfile('def test_it(triton_server):\n    assert triton_server.models == ["one", "two"]')
    command = [sys.executable, "-m", "pytest", "..", "--triton-repository", "mine", "--triton-models=one,two"]
    done = subprocess.run(command, cwd=project.path / "below", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


def test_a_fixture_of_ones_own_builds_the_repository_first(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\ntriton_repository = built")
    project.makeconftest(
        """
        import pytest, shutil

        @pytest.fixture(scope="session")
        def triton_repository(triton_repository, tmp_path_factory):
            assert not triton_repository.exists()
            shutil.copytree("model_repository", triton_repository)
            return triton_repository
        """
    )
    project.makepyfile(USES_THE_SERVER + '    assert triton_server.repository.path.name == "built"')
    run(project).assert_outcomes(passed=1)


def test_a_failure_shows_what_triton_logged_during_that_test_and_only_then(project: pytest.Pytester) -> None:
    add_model(project.path / "model_repository", "broken", b"no model")
    project.makepyfile(
        """
        import pytest, time
        from tritium.client import ServerError

        def provoke(server):
            with pytest.raises(ServerError):
                server.load("broken")
            deadline = time.monotonic() + 30
            while "failed to load 'broken'" not in server.log.read_text():
                assert time.monotonic() < deadline

        @pytest.fixture
        def provoked(triton_server):
            provoke(triton_server)

        def test_passes(triton_server):
            pass

        def test_fails_in_its_body(triton_server):
            provoke(triton_server)
            assert "body" == ""

        def test_fails_after_another_did(triton_client):
            assert "quiet" == ""

        def test_without_a_server():
            assert "alone" == ""

        def test_fails_after_its_setup(provoked):
            assert "setup" == ""
        """
    )
    done = run(project, "--triton-models=doubler")
    done.assert_outcomes(passed=1, failed=4)
    reports = done.stdout.str().split("___ test_")[1:]
    shown = {report.split()[0]: report for report in reports}
    assert "Captured Triton log call" in shown["fails_in_its_body"]
    assert "failed to load 'broken'" in shown["fails_in_its_body"]
    assert "Started HTTPService" not in shown["fails_in_its_body"]
    assert "Triton log" not in shown["fails_after_another_did"]
    assert "Triton log" not in shown["without_a_server"]
    assert "Captured Triton log setup" in shown["fails_after_its_setup"]


def test_the_end_of_a_long_log_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(5000)))
    text, end = _tail(log)
    assert end == log.stat().st_size
    assert len(text) <= _SHOWN_BYTES
    assert text.startswith("…\nline ")
    assert text.endswith("line 4999\n")
    assert _tail(log, end) == ("", end)


def test_a_log_that_was_rotated_meanwhile_is_read_from_its_beginning(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("old " * 10)
    _, end = _tail(log)
    log.write_text("new\n")
    assert _tail(log, end) == ("new\n", 4)


@pytest.mark.parametrize(
    ("option", "value", "valid"),
    [
        ("triton_onnx_backend", "cuda", "auto or native or python"),
        ("triton_protocol", "https", "http or grpc"),
        ("triton_startup_timeout_s", "soon", "a number of seconds above 0"),
        ("triton_startup_timeout_s", "0", "a number of seconds above 0"),
        ("triton_startup_timeout_s", "nan", "a number of seconds above 0"),
    ],
)
def test_an_option_that_cannot_be_right_is_a_usage_error(
    project: pytest.Pytester, option: str, value: str, valid: str
) -> None:
    done = run(project, "-o", f"{option}={value}")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([f"ERROR: The ini option {option} must be {valid}, got '{value}' instead"])


def test_the_choices_are_those_of_the_server() -> None:
    assert _CHOICES["triton_onnx_backend"] == tuple(ONNX_BACKENDS)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--triton-repository=nowhere"], "There is no model repository at {path}/nowhere; *"),
        (["--triton-models=trebler"], "There is no model 'trebler' in {path}/model_repository; it has doubler"),
    ],
)
def test_a_repository_or_model_that_is_not_there_is_an_error_that_says_where_it_was_looked_for(
    project: pytest.Pytester, arguments: list[str], complaint: str
) -> None:
    project.makepyfile(USES_THE_SERVER)
    done = run(project, *arguments)
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(
        [complaint.format(path=project.path), "The repository is what --triton-repository, else the ini option *"]
    )
    done.stdout.no_fnmatch_line("*pytest_plugin.py*")


def test_a_model_that_does_not_load_is_an_error_with_tritons_reason_and_the_end_of_its_log(
    project: pytest.Pytester,
) -> None:
    add_model(project.path / "model_repository", "broken", b"no model")
    project.makepyfile("def test_one(triton_server): ...\ndef test_two(triton_client): ...")
    done = run(project)
    done.assert_outcomes(errors=2)
    done.stdout.fnmatch_lines(["These models did not load:", "  broken: *cannot load*", "It ends so:", "E*'broken'*"])
    done.stdout.no_fnmatch_line("During handling of*")
    # The second test has the first one's error: nothing is started again.
    logs = {line for line in done.outlines if line.startswith("The whole log: ")}
    assert len(logs) == 1


def test_a_run_without_the_plugin_knows_no_such_fixture(project: pytest.Pytester) -> None:
    project.makepyfile(USES_THE_SERVER + "\n\ndef test_else(): ...")
    done = run(project, "-p", "no:tritium")
    done.assert_outcomes(passed=1, errors=1)
    done.stdout.fnmatch_lines(["*fixture 'triton_server' not found"])


@pytest.mark.usefixtures("nothing_of_it_left")
@pytest.mark.parametrize("arguments", [[], ["-x"]])
def test_a_run_that_fails_leaves_nothing_behind(project: pytest.Pytester, arguments: list[str]) -> None:
    project.makepyfile(TELLS_OF_THE_SERVER + "\ndef test_it(told): assert False\n\ndef test_two(): assert False")
    done = run(project, "-o", "triton_onnx_backend=python", *arguments)
    done.assert_outcomes(failed=1 if arguments else 2)


@pytest.mark.usefixtures("nothing_of_it_left")
def test_ctrl_c_leaves_nothing_behind(project: pytest.Pytester) -> None:
    project.makepyfile(TELLS_OF_THE_SERVER + "\nimport signal\n\ndef test_it(told): signal.pause()")
    with start(project, "-o", "triton_onnx_backend=python") as running:
        wait_until((project.path / "test_it.json").exists, timeout_s=60)
        running.send_signal(signal.SIGINT)
        output, _ = running.communicate(timeout=60)
    assert running.returncode == pytest.ExitCode.INTERRUPTED, output
    assert "KeyboardInterrupt" in output


@pytest.mark.usefixtures("nothing_of_it_left")
def test_runs_at_the_same_time_have_a_server_each(project: pytest.Pytester) -> None:
    """As the workers of pytest-xdist are: processes over one repository."""
    project.makepyfile(
        TELLS_OF_THE_SERVER
        + """
def meets(mine, others, triton_client):
    deadline = time.monotonic() + 60
    while not pathlib.Path(others).exists():
        assert time.monotonic() < deadline
    assert json.loads(pathlib.Path(mine).read_text())["url"] != json.loads(pathlib.Path(others).read_text())["url"]
    assert triton_client.model("doubler")([[1.0, 2.0]]).tolist() == [[2.0, 4.0]]

def test_one(told, triton_client): meets("test_one.json", "test_two.json", triton_client)

def test_two(told, triton_client): meets("test_two.json", "test_one.json", triton_client)
""".replace("def meets", "import time\n\ndef meets", 1)
    )
    with start(project, "-k", "test_one") as one, start(project, "-k", "test_two") as two:
        for running in (one, two):
            output, _ = running.communicate(timeout=120)
            assert running.returncode == 0, output


def test_the_plugin_costs_a_run_that_does_not_use_it_next_to_nothing() -> None:
    code = """
import sys, time
start = time.process_time()
import pytest
own = time.process_time() - start
known = set(sys.modules)
start = time.process_time()
import tritium.server.pytest_plugin
print((time.process_time() - start) / own)
print(*sorted(set(sys.modules) - known))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    share, loaded = done.stdout.splitlines()
    assert loaded.split() == ["tritium", "tritium.server", "tritium.server.pytest_plugin"]
    assert float(share) < 0.25


def test_the_example_of_the_documents_works_as_written(project: pytest.Pytester) -> None:
    conftest, tests = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    project.makeconftest(conftest)
    project.makepyfile(test_models=tests)
    run(project).assert_outcomes(passed=3)


def test_the_workflow_of_the_documents_fetches_triton_before_it_tests() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    commands = [step["run"] for step in yaml.safe_load(text)["jobs"]["test"]["steps"] if "run" in step]
    assert commands[-2:] == ["tritium runtime install", "pytest"]


def test_every_option_and_fixture_is_documented_with_its_default(project: pytest.Pytester) -> None:
    config = project.parseconfig()
    rows = dict(re.findall(r"^\|.*?\| `(triton_\w+)` \| (.*?) \|", PAGE, re.MULTILINE))
    known = {name for name in config._parser._inidict if name.startswith("triton_")}
    assert rows.keys() == known
    for name, default in rows.items():
        assert default.strip("`") == (config.getini(name) or "all")
    for option in ("--triton-repository", "--triton-models"):
        assert f"| `{option} " in PAGE
    fixtures = run(project, "--fixtures").stdout.str()
    assert set(re.findall(r"^(triton_\w+)", fixtures, re.MULTILINE)) == set(
        re.findall(r"^\| `(triton_\w+)` \|", PAGE, re.MULTILINE)
    )
