"""How `tritium serve` comes to serve what was published, from a folder and from S3."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tritium.client import Client
from tritium.repository import Repository, cache_dir
from tritium.server import RunningServer

from ..server.scalers import ROW, publish_scaler

Run = Callable[..., Result]
Spawn = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A repository with one version of one model, which doubles."""
    return publish_scaler(tmp_path / "local", 2).parents[1]


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache for this test's mirrors and servers; what is installed in it is everybody's."""
    cache = tmp_path / "cache"
    cache.mkdir()
    for part in cache_dir().iterdir():
        if part.name not in ("run", "mirrors", "lock"):
            (cache / part.name).symlink_to(part)
    monkeypatch.setenv("TRITIUM_CACHE_DIR", str(cache))
    return cache


def answer(document: dict[str, Any]) -> float:
    with Client(document["http_url"]) as client:
        return float(client.model("scaler")(ROW)[0, 0])


@pytest.mark.usefixtures("own_cache")
def test_a_repository_in_s3_is_served_reloaded_and_rolled_back(
    serve: Any, spawn: Spawn, local: Path, s3_url: str
) -> None:
    assert spawn("push", s3_url, "--repository", local).returncode == 0
    with serve("--json", repository=s3_url) as serving:
        document = serving.document()
        assert answer(document) == 2
        publish_scaler(local, 3)
        pushed = spawn("push", s3_url, "--repository", local)
        assert pushed.stderr.splitlines()[-1] == f"`tritium reload scaler --repository {s3_url}` serves it"
        assert answer(document) == 2
        done = spawn("reload", "scaler", "--repository", s3_url)
        assert (done.returncode, answer(document)) == (0, 3), done.stderr
        done = spawn("rollback", "scaler", "--repository", f"{s3_url}/", "--json")
        assert json.loads(done.stdout) == {"model": "scaler", "version": 1, "reloaded": [document["http_url"]]}
        assert answer(document) == 2
        done = spawn("reload", "nothing", "--repository", s3_url)
        assert done.returncode == 1
        assert "There is no model 'nothing' with a whole version in s3://" in done.stderr
    done = spawn("reload", "scaler", "--repository", s3_url)
    assert done.returncode == 2
    assert f"No `tritium serve` of yours runs over {s3_url}" in done.stderr


@pytest.mark.usefixtures("own_cache")
def test_a_server_that_watches_serves_what_is_published(serve: Any, spawn: Spawn, local: Path, tmp_path: Path) -> None:
    staged = publish_scaler(tmp_path / "staging", 3)
    with serve("--json", "--watch", repository=local) as serving:
        document = serving.document()
        done = spawn("publish", staged, "--repository", local)
        assert (done.returncode, done.stderr) == (0, ""), "nothing is left to do"
        serving.wait_for("the new version", lambda: answer(document) == 3)
        serving.wait_for("a line", lambda: "scaler was reloaded: version 2" in serving.err.read_text())


@pytest.mark.parametrize("watched", [False, True])
def test_publish_says_how_to_serve_it_where_nobody_watches(
    run: Run, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watched: bool
) -> None:
    running = RunningServer(
        repository=str(local), http_url="", grpc_url="", secret="", supervisor_url="http://127.0.0.1:1", watched=watched
    )
    monkeypatch.setattr("tritium.server.running_servers", lambda: [running])
    staged = publish_scaler(tmp_path / "staging", 3)
    hint = f"`tritium reload scaler --repository {local}` serves it\n"
    for repository, said in ((local, "" if watched else hint), (tmp_path / "other", "")):
        result = run("publish", staged, "--repository", repository, "--json")
        assert json.loads(result.stdout)["model"] == "scaler"
        assert result.stderr == said
    # By a path of its own, from another place.
    monkeypatch.chdir(local.parent)
    assert run("publish", staged, "--repository", local.name).stderr == (
        "" if watched else "`tritium reload scaler --repository local` serves it\n"
    )
    assert Repository(local).versions("scaler") == [1, 2, 3]
