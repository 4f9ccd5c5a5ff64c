"""What the documents say is what the code does: their examples run, their commands and links exist."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tritium.repository import Repository
from tritium.server import ADMIN_GROUPS, TritonServer

from .client.served_models import add_accumulate, add_countdown
from .loadtest.made import report

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("docs/*.md")]
    if not path.is_relative_to(ROOT / ".venv")
)
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def run(code: str, folder: Path) -> str:
    """Run an example as a reader would, in a folder of its own."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_has_the_examples_that_are_run_here() -> None:
    assert len(PYTHON_BLOCKS) == 3


def test_your_own_scikit_learn_model_answers_through_triton(tmp_path: Path) -> None:
    code = PYTHON_BLOCKS[0]
    assert len([line for line in code.splitlines() if line and not line.startswith(("from", "import"))]) <= 10
    shown = run(code, tmp_path)
    assert shown.startswith("iris version 1 in ")
    # What the README shows below it, paths and last digits aside.
    assert shown[shown.index("Outputs(") :] in README
    assert Repository(tmp_path / "models").versions("iris") == [1]


def test_your_own_torch_model_is_published(tmp_path: Path) -> None:
    run(PYTHON_BLOCKS[1], tmp_path)
    assert Repository(tmp_path / "models").versions("tiny") == [1]


def test_looking_after_a_repository_works_as_written(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "exporting.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for _ in range(2):
        run(PYTHON_BLOCKS[0].partition("with TritonServer")[0], tmp_path)
    assert run(code, tmp_path) == "[2]\n"


def test_calling_a_server_works_as_written(server: TritonServer, tmp_path: Path) -> None:
    code = PYTHON_BLOCKS[2].replace("http://127.0.0.1:8000", server.http_url)
    shown = run(f"{code}    print(probabilities.shape, digits(image[None]).shape)", tmp_path)
    assert "name='image', dtype='FP32', shape=(-1, 1, 28, 28)" in shown
    assert shown.splitlines()[-1] == "(10,) (1, 10)"


@pytest.fixture(scope="module")
def cookbook_server(zoo: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A Triton with all the models that the cookbook calls."""
    repository = tmp_path_factory.mktemp("cookbook") / "models"
    shutil.copytree(zoo.path, repository)
    add_countdown(repository)
    add_accumulate(repository)
    with TritonServer(repository, open_groups=ADMIN_GROUPS) as running:
        yield running


def test_the_cookbook_of_the_client_works_as_written(cookbook_server: TritonServer, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 13
    port = cookbook_server.http_url.rpartition(":")[2]
    code = "\n".join(blocks).replace(":8000", f":{port}").replace("grpc://127.0.0.1:8001", cookbook_server.grpc_url)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    mine = authority.issue_cert("me.example")
    mine.private_key_pem.write_to_path(tmp_path / "me.key")
    mine.cert_chain_pems[0].write_to_path(tmp_path / "me.pem")
    shown = run(code, tmp_path)
    assert shown.splitlines()[-4:] == ["[3]", "[2]", "[1]", "[3]"]
    assert "Did you mean 'digits_cnn'?" in shown


def test_reading_and_comparing_results_works_as_written(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "load-testing.md").read_text(encoding="utf-8")
    (code,) = (code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "compare_reports" in code)
    report("smoke", repeats=4, noise=0.01).save(tmp_path / "before.json")
    report("smoke", repeats=4, noise=0.01, speed=0.5).save(tmp_path / "after.json")
    assert run(code, tmp_path).startswith("False [('all', 'requests/s', 0.")
    assert (tmp_path / "after.html").stat().st_size > 1_000_000


@pytest.mark.parametrize("line", re.findall(r"^\$ (tritium [^#\n]+)", README, re.MULTILINE))
def test_every_command_of_the_readme_is_one(line: str) -> None:
    arguments = line.split()[1:]
    done = subprocess.run([sys.executable, "-m", "tritium.cli", *arguments, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_make_target_of_the_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for path in DOCUMENTS for name in re.findall(r"(?:`|\$ )make ([a-z]+)", path.read_text())}
    assert named
    assert named <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_local_link_leads_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
        if not link.startswith("http"):
            assert (document.parent / link).exists(), link


@pytest.mark.parametrize("example", ["client/examples/digits.py", "repository/examples/look.py"])
def test_examples_for_the_reference_models_run(
    example: str, server: TritonServer, zoo: Repository, tmp_path: Path
) -> None:
    argument = server.http_url if example.startswith("client") else str(zoo.path)
    done = subprocess.run([sys.executable, ROOT / example, argument], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_an_example_without_a_server_says_so(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "client/examples/digits.py"), "http://127.0.0.1:1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "No connection to http://127.0.0.1:1" in done.stderr


def test_the_example_of_a_torch_model_publishes_it_and_the_server_example_serves_it(tmp_path: Path) -> None:
    for example in ("exporters/examples/own_torch_model.py", "server/examples/serve.py"):
        command = [sys.executable, str(ROOT / example), str(tmp_path / "models")]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110)
        assert done.returncode == 0, done.stderr
    assert "cancer_net 1 READY" in done.stdout


def test_the_example_locustfile_runs(server: TritonServer, zoo: Repository, tmp_path: Path) -> None:
    (tmp_path / "model_repository").symlink_to(zoo.path)
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtest/examples/locustfile.py"), "--headless"]
    command += ["-u", "2", "-t", "4s", "--host", server.http_url]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "digits_cnn" in done.stdout + done.stderr


def test_every_root_has_a_readme() -> None:
    roots = (
        "client",
        "repository",
        "exporters",
        "server",
        "loadtest",
        "cli",
        "model_repository",
        "docker",
        "benchmarks",
    )
    assert [root for root in roots if not (ROOT / root / "README.md").is_file()] == []


def test_the_changelog_names_the_triton_inside() -> None:
    from tritium.server._runtime import TRITON_VERSION

    assert f"Triton inside: {TRITON_VERSION}" in (ROOT / "CHANGELOG.md").read_text()
