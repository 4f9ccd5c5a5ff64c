"""A publisher that is killed at any moment, and publishers at once: whatever is visible is whole."""

from __future__ import annotations

import pickle
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tritium.repository import Candidate, Repository, check_version
from tritium.repository.lint import Severity, lint

MODEL = "plus_one"
KILLS = 20
# Publishes two candidates in turn, so that the config and the labels change with each version.
PUBLISHER = """
import pickle, sys
from itertools import cycle
from pathlib import Path
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritium.repository import Candidate, Repository, publish

candidates = [
    Candidate(**fields | {"config": ModelConfig.FromString(fields["config"])})
    for fields in pickle.loads(Path(sys.argv[2]).read_bytes())
]
# What is imported at the first publication takes longer than all the rest.
publish(Repository(sys.argv[4], create=True), candidates[0])
print("ready", flush=True)
for _, candidate in zip(range(int(sys.argv[3])), cycle(candidates)):
    print(publish(Repository(sys.argv[1]), candidate).version, flush=True)
"""


@pytest.fixture
def travelling(candidate: Candidate, next_candidate: Candidate, tmp_path: Path) -> Path:
    """Both candidates as a file; protobufs have their own way of travelling."""
    path = tmp_path / "candidates"
    fields = [vars(each) | {"config": each.config.SerializeToString()} for each in (candidate, next_candidate)]
    path.write_bytes(pickle.dumps(fields))
    return path


@contextmanager
def publisher(repository: Repository, candidates: Path, times: int) -> Iterator[subprocess.Popen[str]]:
    """A process that publishes; it is killed at the end of the block."""
    arguments = [str(repository.path), str(candidates), str(times)]
    with (
        tempfile.TemporaryDirectory(dir=candidates.parent) as rehearsal,
        subprocess.Popen(
            [sys.executable, "-c", PUBLISHER, *arguments, rehearsal], stdout=subprocess.PIPE, text=True
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def assert_whole(repository: Repository) -> None:
    """Lint finds nothing but notes, and every version passes the gate."""
    found = [finding for finding in lint(repository) if finding.severity != Severity.NOTE]
    assert found == [], "\n".join(map(str, found))
    for model in repository.models():
        for version in repository.versions(model):
            check_version(repository.version_folder(model, version), repository.config(model))


def test_publisher_killed_at_any_moment_leaves_only_whole_versions(
    repository: Repository, travelling: Path, tmp_path: Path
) -> None:
    moments = random.Random(4)
    published = 0
    for kill in range(KILLS):
        # Every other time it is the model's first version that is under way.
        target = Repository(tmp_path / f"fresh_{kill}" / "models", create=True) if kill % 2 else repository
        before = len(target.versions(MODEL))
        # A publication takes some 20 ms: none, one or a few come through.
        with publisher(target, travelling, 1000) as process, suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0, 0.1))
        assert process.returncode == -signal.SIGKILL
        assert_whole(target)
        versions = target.versions(MODEL)
        assert versions == list(range(1, len(versions) + 1))
        published += len(versions) - before
    assert published > KILLS / 2, "the moments were too short to prove much"


def test_what_a_killed_publisher_left_does_not_hinder_the_next(repository: Repository, travelling: Path) -> None:
    with publisher(repository, travelling, 1000) as process:
        while not repository.versions(MODEL):
            assert process.poll() is None
    last = repository.versions(MODEL)[-1]
    with publisher(repository, travelling, 1) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) == last + 1
        assert process.wait(30) == 0
    assert_whole(repository)


def test_publishers_at_once_publish_whole_versions_under_different_numbers(
    repository: Repository, travelling: Path
) -> None:
    publishers, times = 3, 8
    with ExitStack() as stack:
        running = [stack.enter_context(publisher(repository, travelling, times)) for _ in range(publishers)]
        said = [process.communicate(timeout=60)[0].split() for process in running]
        assert [process.returncode for process in running] == [0] * publishers
    numbers = sorted(int(number) for of_one in said for number in of_one)
    assert numbers == list(range(1, publishers * times + 1)) == repository.versions(MODEL)
    assert_whole(repository)
