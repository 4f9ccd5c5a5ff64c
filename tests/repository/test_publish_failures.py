"""Publishing when the disk says no, when others publish too, and when the publisher is killed."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tritium.client import TensorSpec
from tritium.repository import (
    Candidate,
    ConfigError,
    GoldenCases,
    PublishError,
    Repository,
    check_version,
    model_config,
    publish,
    restore,
    retire,
)

from .conftest import Snapshot

# The operations on the disk, by which module they are called from. Tests run as root, so that permissions stop
# nothing: the failures are made here.
OPERATIONS: dict[str, list[tuple[Any, str]]] = {
    "mkdir": [(os, "mkdir")],
    "copy": [(shutil, "copyfile")],
    "golden": [(np, "savez_compressed")],
    "write": [(Path, "write_text")],
    "fsync": [(os, "fsync")],
    "rename": [(os, "rename"), (os, "replace")],
}


@dataclass
class Failing:
    """Lets one call of an operation fail, the one with this index, and counts them all."""

    index: int
    number: int
    calls: int = 0

    def wrap(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls == self.index + 1:
                raise OSError(self.number, os.strerror(self.number))
            return real(*args, **kwargs)

        return call


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES], ids=errno.errorcode.get)
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("published_before", [False, True], ids=["first-version", "next-version"])
def test_disk_that_fails_once_gives_all_or_nothing(
    published_before: bool,
    operation: str,
    number: int,
    tmp_path: Path,
    candidate: Candidate,
    next_candidate: Candidate,
    snapshot: Snapshot,
) -> None:
    refused = 0
    for index in count():
        repository = Repository(tmp_path / str(index), create=True)
        if published_before:
            publish(repository, candidate)
        before = snapshot(repository.path)
        failing = Failing(index, number)
        with pytest.MonkeyPatch.context() as patch:
            for module, name in OPERATIONS[operation]:
                patch.setattr(module, name, failing.wrap(getattr(module, name)))
            try:
                published = publish(repository, next_candidate)
            except PublishError as exc:
                assert os.strerror(number) in str(exc)
                assert snapshot(repository.path) == before, f"after {operation} call {index} failed"
                refused += 1
                continue
        if failing.calls <= index:
            break  # this operation is not called so often: every call has failed once
        # A failure that publishing can get over, such as in tidying up.
        assert check_version(published.folder, repository.config("plus_one"))
        assert repository.config("plus_one") == next_candidate.config
    assert refused


def test_file_where_the_model_belongs_is_an_error(
    repository: Repository, candidate: Candidate, snapshot: Snapshot
) -> None:
    (repository.path / "plus_one").write_text("mine", encoding="utf-8")
    with pytest.raises(PublishError, match="was not published"):
        publish(repository, candidate)
    assert snapshot(repository.path) == {"plus_one": b"mine"}


def test_folder_where_the_config_belongs_is_an_error(
    repository: Repository, candidate: Candidate, snapshot: Snapshot
) -> None:
    (repository.path / "plus_one" / "config.pbtxt").mkdir(parents=True)
    before = snapshot(repository.path)
    with pytest.raises(PublishError, match="was not published"):
        publish(repository, candidate)
    assert snapshot(repository.path) == before


def test_interrupted_publisher_leaves_nothing(
    repository: Repository, candidate: Candidate, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        publish(repository, candidate)
    assert snapshot(repository.path) == {}


# others


@pytest.mark.parametrize("published_before", [False, True], ids=["first-version", "next-version"])
def test_publishers_at_once_get_different_numbers(
    published_before: bool, repository: Repository, candidate: Candidate, snapshot: Snapshot
) -> None:
    if published_before:
        publish(repository, candidate)
    together = threading.Barrier(4)

    def work(_: int) -> int:
        together.wait(timeout=30)
        return publish(repository, candidate).version

    with ThreadPoolExecutor(4) as pool:
        numbers = sorted(pool.map(work, range(4)))
    assert numbers == [number + published_before for number in (1, 2, 3, 4)]
    for number in repository.versions("plus_one"):
        assert check_version(repository.version_folder("plus_one", number), repository.config("plus_one"))
    assert staged(repository) == []


def staged(repository: Repository) -> list[Path]:
    """What publishers have written aside and not taken away."""
    return [path for path in repository.path.parent.rglob(".*-staging-*") if path.is_dir()]


def _once_before(
    patch: pytest.MonkeyPatch, name: str, at: Callable[[Path], bool], action: Callable[[], object]
) -> list[Path]:
    """Let something happen just before the first call of `os.<name>` whose last path is such a one."""
    met: list[Path] = []
    real = getattr(os, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        path = Path(next(arg for arg in reversed(args) if isinstance(arg, str | Path)))
        if not met and at(path):
            met.append(path)
            action()
        return real(*args, **kwargs)

    patch.setattr(os, name, call)
    return met


def test_publisher_that_is_overtaken_with_a_new_model_takes_the_number_after(
    repository: Repository, candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = repository.path / "plus_one"
    met = _once_before(monkeypatch, "rename", lambda path: path == target, lambda: publish(repository, candidate))
    assert publish(repository, candidate).version == 2
    assert met == [target]
    assert repository.versions("plus_one") == [1, 2]


def test_publisher_that_is_overtaken_by_somebody_who_heeds_no_lock_takes_the_number_after(
    repository: Repository, candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = publish(repository, candidate).folder
    target = first.with_name("2")
    met = _once_before(
        monkeypatch,
        "rename",
        lambda path: path == target,
        lambda: shutil.copytree(first, target, copy_function=shutil.copy),
    )
    assert publish(repository, candidate).version == 3
    assert met == [target]


def test_number_of_a_retired_version_is_not_given_out_again(repository: Repository, candidate: Candidate) -> None:
    for _ in range(2):
        publish(repository, candidate)
    retire(repository, "plus_one", 2)
    assert publish(repository, candidate).version == 3
    restore(repository, "plus_one", 2)
    assert repository.versions("plus_one") == [1, 2, 3]


def test_publisher_that_is_overtaken_by_other_inputs_is_refused(
    repository: Repository, candidate: Candidate, string_onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = np.array([["a", "b"]], dtype=object)
    specs = [TensorSpec(name, "BYTES", (-1, 2)) for name in ("text", "same")]
    other = replace(
        candidate,
        config=model_config("plus_one", backend="onnxruntime", inputs=specs[:1], outputs=specs[1:]),
        artifact=string_onnx_file,
        golden=GoldenCases({"text": text}, {"same": text}),
    )
    target = repository.path / "plus_one"
    _once_before(monkeypatch, "rename", lambda path: path == target, lambda: publish(repository, other))
    with pytest.raises(ConfigError, match="Clients rely on them"):
        publish(repository, candidate)
    assert repository.versions("plus_one") == [1]


def test_staging_folder_that_vanishes_while_it_is_looked_at_is_no_error(
    repository: Repository, candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.glob

    def listing(path: Path, pattern: str) -> Iterator[Path]:
        yield from real(path, pattern)
        if "staging" in pattern:
            yield path / "gone-since"

    monkeypatch.setattr(Path, "glob", listing)
    assert publish(repository, candidate).version == 1


@pytest.mark.parametrize("published_before", [False, True], ids=["first-version", "next-version"])
def test_what_is_staged_is_never_in_the_repositorys_own_folder(
    published_before: bool, repository: Repository, candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A Triton that loads every folder there would take it for a model.
    if published_before:
        publish(repository, candidate)
    seen: list[set[str]] = []
    target = repository.path / ("plus_one/2" if published_before else "plus_one")
    met = _once_before(
        monkeypatch,
        "rename",
        lambda path: path == target,
        lambda: seen.append({path.name for path in repository.path.iterdir()}),
    )
    publish(repository, candidate)
    assert met
    assert seen == [{"plus_one"} if published_before else set()]


@pytest.fixture
def other_staging(repository: Repository) -> Path:
    """What another publisher has staged."""
    folder = repository.path.parent / ".plus_one-staging-other" / "version"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"half a mod")
    return folder.parent


def test_publisher_at_work_is_left_alone(repository: Repository, candidate: Candidate, other_staging: Path) -> None:
    publish(repository, candidate)
    assert (other_staging / "version" / "model.onnx").read_bytes() == b"half a mod"


def test_what_a_killed_publisher_left_is_removed_after_an_hour(
    repository: Repository, candidate: Candidate, other_staging: Path
) -> None:
    long_ago = other_staging.stat().st_mtime - 3700
    os.utime(other_staging, (long_ago, long_ago))
    publish(repository, candidate)
    assert staged(repository) == []


# killed

# Stops for good where it is told to, so that the kill cannot come too late.
KILLED = """
import importlib, pickle, sys, threading
from pathlib import Path
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritium.repository import Candidate, Repository, publish

module, _, name = sys.argv[3].partition(".")

def stop(*args, **kwargs):
    print("here", flush=True)
    threading.Event().wait()

setattr(importlib.import_module(module), name, stop)
fields = pickle.loads(Path(sys.argv[2]).read_bytes())
publish(Repository(sys.argv[1]), Candidate(**fields | {"config": ModelConfig.FromString(fields["config"])}))
"""


@pytest.mark.parametrize("place", ["shutil.copyfile", "os.fsync", "os.rename"])
def test_publisher_that_is_killed_leaves_nothing_visible(
    place: str, repository: Repository, candidate: Candidate, next_candidate: Candidate, tmp_path: Path
) -> None:
    publish(repository, candidate)
    # Protobufs have their own way of travelling.
    travelling = vars(next_candidate) | {"config": next_candidate.config.SerializeToString()}
    pickled = tmp_path / "candidate"
    pickled.write_bytes(pickle.dumps(travelling))
    command = [sys.executable, "-c", KILLED, str(repository.path), str(pickled), place]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "here\n"
        finally:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
    assert (repository.models(), repository.versions("plus_one")) == (["plus_one"], [1])
    assert repository.config("plus_one") == candidate.config


def test_publisher_that_is_killed_does_not_hinder_the_next(
    repository: Repository, candidate: Candidate, other_staging: Path
) -> None:
    assert publish(repository, candidate).version == 1
    assert repository.models() == ["plus_one"]
