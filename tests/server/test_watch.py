"""A supervisor that takes over by itself what changes in its repository."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tritium.client import Client, InputError, ModelNotFoundError
from tritium.repository import roll_back
from tritium.server import ModelState, Supervisor, TritonServer, running_servers
from tritium.server._watch import Fingerprint, fingerprint, settled

from .conftest import wait_until
from .scalers import ROW, publish_scaler
from .test_supervisor import metric

LOOK_S = 0.05


@dataclass
class Watched:
    """A supervisor that looks often, what it said, and how often it looked."""

    supervisor: Supervisor
    said: list[str]
    looks: list[object]

    def answer(self, model: str = "scaler") -> float:
        with self.supervisor.server.client() as client:
            return float(client.model(model)(ROW)[0, 0])

    def reloads(self, outcome: str, model: str = "scaler") -> float:
        return metric(self.supervisor, f'tritium_model_reloads_total{{model="{model}",outcome="{outcome}"}}')

    def wait_for_looks(self, count: int = 5) -> None:
        """Give it the chance to do what it must not do."""
        before = len(self.looks)
        wait_until(lambda: len(self.looks) >= before + count)


Release = Callable[..., Path]
Watching = Callable[..., AbstractContextManager[Watched]]


@pytest.fixture
def release(tmp_path: Path) -> Release:
    """Publishes a model that multiplies by a factor; the version's folder."""

    def published(factor: int, model: str = "scaler", *, into: str = "models") -> Path:
        return publish_scaler(tmp_path / into, factor, model)

    return published


@pytest.fixture
def models(release: Release) -> Path:
    """A repository with one version of one model, which doubles."""
    return release(2).parents[1]


@pytest.fixture
def watching(models: Path, monkeypatch: pytest.MonkeyPatch) -> Watching:
    """Serves the repository and watches it, within a block."""
    looks: list[object] = []

    def counted(*what: Any) -> list[str]:
        found = settled(*what)
        looks.append(found)
        return found

    monkeypatch.setattr("tritium.server._watch.settled", counted)

    @contextmanager
    def running(**options: Any) -> Iterator[Watched]:
        said: list[str] = []
        server = TritonServer(models, onnx_backend="native", **options)
        with Supervisor(server, watch_s=LOOK_S, progress=said.append) as supervisor:
            yield Watched(supervisor, said, looks)

    return running


@pytest.fixture
def watched(watching: Watching) -> Iterator[Watched]:
    with watching() as running:
        yield running


def test_a_version_that_is_published_under_traffic_is_taken_over_once_and_no_request_fails(
    watched: Watched, release: Release
) -> None:
    stop = threading.Event()
    seen: tuple[set[float], ...] = (set(), set())

    def send(answers: set[float]) -> None:
        with Client(watched.supervisor.server.http_url) as client:
            handle = client.model("scaler")
            while not stop.is_set():
                answers.add(float(handle(ROW)[0, 0]))

    with ThreadPoolExecutor(len(seen)) as pool:
        try:
            sending = [pool.submit(send, answers) for answers in seen]
            wait_until(lambda: all(answers == {2} for answers in seen))
            release(3)
            wait_until(lambda: all(answers == {2, 3} for answers in seen))
            watched.wait_for_looks()
        finally:
            stop.set()
    for thread in sending:
        thread.result()
    assert watched.reloads("done") == 1
    assert [line for line in watched.said if line.startswith("scaler")] == ["scaler was reloaded: version 2"]


def test_a_config_that_changes_is_taken_over(watched: Watched, release: Release, models: Path) -> None:
    release(3)
    wait_until(lambda: watched.answer() == 3)
    roll_back(models, "scaler")
    wait_until(lambda: watched.answer() == 2)
    watched.wait_for_looks()
    assert watched.reloads("done") == 2


def test_what_was_reloaded_by_hand_is_not_loaded_again(watched: Watched, release: Release) -> None:
    with watched.supervisor._changing:
        release(3)
        wait_until(lambda: watched.looks[-1:] == [["scaler"]])  # the watch waits for its turn
        watched.supervisor.reload("scaler")
    watched.wait_for_looks()
    assert (watched.answer(), watched.reloads("done")) == (3, 1)


def test_what_comes_when_triton_has_ended_is_served_once_there_is_one_again(watched: Watched, release: Release) -> None:
    server = watched.supervisor.server
    with watched.supervisor._changing:
        release(4, "other")
        server.kill()
        assert server.wait(10) is not None
        watched.supervisor._take_over("other")
    wait_until(lambda: watched.reloads("done", "other") == 1)
    assert watched.answer("other") == 4
    assert watched.reloads("refused", "other") == 0


def damaged(models: Path, good: Path) -> None:
    """A published version of which a byte is another, renamed into place."""
    with (good / "model.onnx").open("r+b") as file:
        file.write(b"\xff")
    good.rename(models / "scaler" / "2")


def half_written(models: Path, good: Path) -> None:
    """A version of which so far the first bytes were copied, by hand and without a manifest."""
    content = (good / "model.onnx").read_bytes()
    (models / "scaler" / "2").mkdir()
    (models / "scaler" / "2" / "model.onnx").write_bytes(content[:20])


def misconfigured(models: Path, _good: Path) -> None:
    """A config that Triton cannot read."""
    (models / "scaler" / "config.pbtxt").write_text("max_batch_size: many\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (damaged, "model.onnx was changed: its sha256 is not the manifest's"),
        (half_written, "scaler"),
        (misconfigured, "config.pbtxt is no Triton model config"),
    ],
)
def test_what_cannot_be_served_is_refused_once_and_tried_again_when_it_changes(
    watched: Watched, release: Release, models: Path, harm: Callable[[Path, Path], None], reason: str
) -> None:
    config = (models / "scaler" / "config.pbtxt").read_bytes()
    harm(models, release(3, into="staging"))
    wait_until(lambda: watched.reloads("refused") == 1)
    watched.wait_for_looks()
    assert (watched.answer(), watched.reloads("refused"), watched.reloads("done")) == (2, 1, 0)
    (line,) = (line for line in watched.said if line.startswith("scaler"))
    assert line.startswith("scaler was not reloaded, and what was served goes on: ")
    assert reason in line
    assert watched.supervisor.states()["scaler"].state is ModelState.READY

    (models / "scaler" / "2").mkdir(exist_ok=True)
    for path in release(3, into="other").iterdir():
        shutil.copyfile(path, models / "scaler" / "2" / path.name)
    (models / "scaler" / "config.pbtxt").write_bytes(config)
    wait_until(lambda: watched.answer() == 3)


def test_a_new_model_is_served_and_one_that_does_not_load_harms_nobody(
    watched: Watched, release: Release, models: Path
) -> None:
    release(4, "other")
    wait_until(lambda: watched.reloads("done", "other") == 1)
    assert watched.answer("other") == 4
    shutil.copytree(models / "other", models / "broken")
    wait_until(lambda: watched.reloads("refused", "broken") == 1)
    watched.wait_for_looks()
    assert watched.reloads("refused", "broken") == 1
    assert any(line.startswith("broken is not served: ") for line in watched.said)
    assert set(watched.supervisor.states()) == {"scaler", "other"}, "what never was served makes nobody unready"


def test_a_model_that_vanishes_is_served_on_and_said_once(watched: Watched, models: Path, tmp_path: Path) -> None:
    (models / "scaler").rename(tmp_path / "away")
    wait_until(lambda: bool(watched.said) and "is not in the repository any more" in watched.said[-1])
    watched.wait_for_looks()
    assert len([line for line in watched.said if line.startswith("scaler")]) == 1
    assert watched.answer() == 2
    (tmp_path / "away").rename(models / "scaler")
    wait_until(lambda: watched.reloads("done") == 1)


def test_models_that_were_named_are_the_only_ones_watched(watching: Watching, release: Release) -> None:
    release(4, "other")
    with watching(models=["scaler"]) as watched:
        release(5, "other")
        release(4, "third")
        release(3)
        wait_until(lambda: watched.answer() == 3)
        watched.wait_for_looks()
        for model in ("other", "third"):
            with pytest.raises(ModelNotFoundError):
                watched.answer(model)
        # Once it is served, it is watched as well.
        watched.supervisor.reload("other")
        release(6, "other")
        wait_until(lambda: watched.answer("other") == 6)


def test_a_repository_that_cannot_be_read_is_said_once_and_nothing_ends(
    watched: Watched, release: Release, models: Path, tmp_path: Path
) -> None:
    models.rename(tmp_path / "away")
    wait_until(lambda: any("Watching the repository goes on after FileNotFoundError" in line for line in watched.said))
    said = len(watched.said)
    (tmp_path / "away").rename(models)
    release(3)
    wait_until(lambda: watched.answer() == 3)
    watched.wait_for_looks()
    assert len(watched.said) == said + 1


def test_other_processes_are_told_who_watches(watched: Watched) -> None:
    url = watched.supervisor.server.http_url
    assert [server.watched for server in running_servers() if server.http_url == url] == [True]


@pytest.mark.parametrize("watch_s", [0, -1.0, float("nan")])
def test_a_time_that_is_none_is_refused(models: Path, watch_s: float) -> None:
    with pytest.raises(InputError, match="'watch_s' parameter must be more than 0 seconds"):
        Supervisor(TritonServer(models), watch_s=watch_s)


def test_every_change_of_a_file_is_another_fingerprint_and_nothing_else_is(tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "1" / "vocabulary").mkdir(parents=True)
    seen = [fingerprint(model)]

    def changed() -> bool:
        seen.append(fingerprint(model))
        return seen[-1] != seen[-2]

    assert not changed()
    file = model / "1" / "vocabulary" / "words.txt"
    file.write_text("a")
    assert changed()
    file.write_text("ab")
    assert changed()
    os.utime(file, ns=(1, 1))
    assert changed()
    (tmp_path / "new").write_text("cd")
    os.utime(tmp_path / "new", ns=(1, 1))
    (tmp_path / "new").rename(file)
    assert changed()
    (model / "2").mkdir()
    assert changed(), "an ensemble's version is an empty folder"
    for hidden in (".model-staging-x", ".retired", "1/__pycache__"):
        (model / hidden).mkdir()
        (model / hidden / "file").touch()
    assert not changed()
    (model / "nowhere").symlink_to(tmp_path / "nothing")
    for loop in ("a", "b"):
        (model / "1" / loop).symlink_to(model)
    assert changed(), "links lead nowhere or back, and every other file is seen"
    file.write_text("abc")
    assert changed()
    shutil.rmtree(model)
    assert changed()
    assert seen[-1] == frozenset()


def test_only_what_changed_and_holds_still_has_settled() -> None:
    old, new, newer = (Fingerprint({("file", number, 0, 0)}) for number in range(3))
    assert settled({"m": old}, {"m": old}, {"m": old}) == []
    assert settled({"m": old}, {"m": old}, {"m": new}) == []
    assert settled({"m": old}, {"m": new}, {"m": newer}) == []
    assert settled({"m": old}, {"m": newer}, {"m": newer}) == ["m"]
    assert settled({}, {}, {"m": new}) == []
    assert settled({}, {"m": new}, {"m": new}) == ["m"]
    assert settled({"m": old}, {"m": old}, {}) == []
    assert settled({"m": old}, {}, {}) == ["m"]
