"""A model repository in S3, what lies in its bucket, and what is asked of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tritium.repository import (
    Candidate,
    Repository,
    S3Repository,
    publish,
)

Snapshot = Callable[[Path], dict[str, bytes | None]]
INDEX = ".tritium-mirror.json"


@dataclass
class Raw:
    """A bucket without Tritium, as anybody has it."""

    client: Any
    bucket: str
    prefix: str = "prod/"

    def names(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket=self.bucket).get("Contents", ())
        return [item["Key"].removeprefix(self.prefix) for item in found]

    def read(self, name: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=self.bucket, Key=self.prefix + name)["Body"].read()
        return content

    def write(self, name: str, content: bytes, **metadata: str) -> None:
        self.client.put_object(Bucket=self.bucket, Key=self.prefix + name, Body=content, Metadata=metadata)

    def delete(self, *names: str) -> None:
        for name in names:
            self.client.delete_object(Bucket=self.bucket, Key=self.prefix + name)

    def damage(self, name: str) -> None:
        """Change a byte, keep the length and what the sender said of it."""
        head = self.client.head_object(Bucket=self.bucket, Key=self.prefix + name)
        content = bytearray(self.read(name))
        content[len(content) // 2] ^= 1
        self.write(name, bytes(content), **head["Metadata"])


@pytest.fixture
def raw(s3_url: str, s3_endpoint: str) -> Raw:
    import boto3

    return Raw(boto3.client("s3", endpoint_url=s3_endpoint), s3_url.split("/")[-2])


@dataclass
class Wire:
    """What a repository asks of S3, by operation; a request can be made to fail, or something to happen before it."""

    asked: list[tuple[str, str]] = field(default_factory=list)
    before: Callable[[str, str], None] = lambda operation, key: None

    def of(self, *operations: str) -> list[str]:
        return [key.removeprefix("prod/") for operation, key in self.asked if operation in operations]

    def watch(self, repository: S3Repository) -> S3Repository:
        events = repository._bucket._client.meta.events
        events.register("before-parameter-build.s3", self._note)
        return repository

    def _note(self, params: dict[str, Any], model: Any, **_: object) -> None:
        key = params.get("Key", "")
        self.before(model.name, key)
        self.asked.append((model.name, key))


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def store(s3_url: str, wire: Wire) -> S3Repository:
    return wire.watch(S3Repository(s3_url))


@pytest.fixture
def local(repository: Repository, candidate: Candidate) -> Repository:
    """`plus_one` with two versions and labels."""
    publish(repository, candidate)
    publish(repository, candidate)
    return repository


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "mirrors" / "prod"


@pytest.fixture
def hand_written(tmp_path: Path) -> Repository:
    """A model that nobody published: a folder in its version, and a file beside it."""
    folder = tmp_path / "hand" / "words"
    (folder / "1" / "vocabulary").mkdir(parents=True)
    (folder / "1" / "model.py").write_text("class TritonPythonModel: ...\n")
    (folder / "1" / "vocabulary" / "words.txt").write_text("a\nb\n")
    (folder / "1" / "empty").touch()
    (folder / "warmup").mkdir()
    (folder / "warmup" / "input0").write_bytes(b"\0")
    (folder / "config.pbtxt").write_text('name: "words"\nbackend: "python"\n')
    (folder / ".cache").mkdir()
    (folder / ".cache" / "mine").touch()
    return Repository(tmp_path / "hand")


def without_index(found: dict[str, bytes | None]) -> dict[str, bytes | None]:
    return {name: content for name, content in found.items() if name != INDEX}
