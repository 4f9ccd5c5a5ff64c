"""A model repository in S3: what is pushed, what is pulled, and what is refused."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tritium.client import InputError, MissingExtraError
from tritium.repository import (
    Candidate,
    ConfigError,
    Manifest,
    ManifestError,
    Repository,
    RepositoryError,
    S3Repository,
    StoreError,
    VersionPolicy,
    is_s3,
    publish,
    roll_back,
    set_version_policy,
)
from tritium.repository import _s3 as s3_module

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


class TestUrl:
    @pytest.mark.parametrize(("text", "expected"), [("s3://models/prod", True), ("/srv/s3", False), ("s3", False)])
    def test_s3_is_told_from_a_folder(self, text: str, expected: bool) -> None:
        assert is_s3(text) is expected

    @pytest.mark.usefixtures("s3_endpoint", "s3_environment")
    @pytest.mark.parametrize(
        ("url", "endpoint"),
        [
            ("s3://models", "https://s3.amazonaws.com"),
            ("s3://models/a/b/", "https://s3.amazonaws.com"),
            ("s3://http://127.0.0.1:9000/models/prod", "http://127.0.0.1:9000"),
            ("s3://https://minio.example:9000/models", "https://minio.example:9000"),
        ],
    )
    def test_tritons_own_forms_are_taken(self, url: str, endpoint: str) -> None:
        repository = S3Repository(url)
        assert repr(repository) == f"S3Repository({url.rstrip('/')!r})"
        assert repository._bucket._client.meta.endpoint_url == endpoint

    def test_the_environment_names_the_endpoint_if_the_url_does_not(
        self, local: Repository, raw: Raw, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
        S3Repository(f"s3://{raw.bucket}").push(local)
        assert "plus_one/1/manifest.json" in raw.names()

    @pytest.mark.parametrize(
        "url",
        [
            "models/prod",
            "s3://",
            "s3://B",
            "s3://http://127.0.0.1/models",
            "s3://ftp://127.0.0.1:1/models",
            "s3://models/../other",
            "s3://models//prod",
            "s3://models/a\\b",
            "s3://models/a\nb",
            "s3://http://me:secret@127.0.0.1:1/models",
        ],
    )
    def test_what_is_no_such_url_is_wrong_usage(self, url: str) -> None:
        with pytest.raises(InputError, match=r"must be s3://bucket/prefix, s3://http://host:port/bucket/prefix or"):
            S3Repository(url)

    def test_without_boto3_the_error_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "boto3", None)
        with pytest.raises(MissingExtraError, match=r"tritium\[s3\]"):
            S3Repository("s3://models")

    @pytest.mark.usefixtures("s3_endpoint", "s3_environment")
    def test_an_endpoint_of_the_environment_that_is_none_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
        with pytest.raises(StoreError, match=r"nonsense.*Mend AWS_ENDPOINT_URL"):
            S3Repository("s3://models")


class TestPush:
    def test_objects_are_the_files_byte_for_byte(self, store: S3Repository, local: Repository, raw: Raw) -> None:
        (pushed,) = store.push(local)
        files = {str(path.relative_to(local.path)): path.read_bytes() for path in local.path.rglob("*.*")}
        assert {name: raw.read(name) for name in raw.names()} == files
        assert (pushed.model, pushed.versions, pushed.kept) == ("plus_one", [1, 2], 0)
        assert pushed.sent_bytes == sum(map(len, files.values()))
        assert str(pushed).startswith(f"plus_one versions 1, 2 in {store.url}/plus_one: {len(files)} objects sent (")

    def test_manifest_ends_a_version_and_the_config_ends_a_model(
        self, store: S3Repository, local: Repository, wire: Wire
    ) -> None:
        (pushed,) = store.push(local)
        assert pushed.sent == wire.of("PutObject")
        assert pushed.sent == [
            "plus_one/1/golden.npz",
            "plus_one/1/model.onnx",
            "plus_one/1/manifest.json",
            "plus_one/2/golden.npz",
            "plus_one/2/model.onnx",
            "plus_one/2/manifest.json",
            "plus_one/labels.txt",
            "plus_one/config.pbtxt",
        ]

    def test_nothing_is_sent_twice(self, store: S3Repository, local: Repository, wire: Wire) -> None:
        store.push(local)
        wire.asked.clear()
        (pushed,) = store.push(local)
        assert (pushed.sent, pushed.sent_bytes, pushed.kept) == ([], 0, 8)
        assert wire.of("PutObject", "GetObject") == []

    def test_what_somebody_else_put_there_is_compared_by_its_content(
        self, store: S3Repository, local: Repository, raw: Raw
    ) -> None:
        for path in local.path.rglob("*.*"):
            raw.write(str(path.relative_to(local.path)), path.read_bytes())
        assert store.push(local)[0].sent == []

    @pytest.mark.parametrize("seed", range(3))
    def test_interrupted_push_goes_on_where_it_stopped(
        self, store: S3Repository, local: Repository, raw: Raw, wire: Wire, seed: int
    ) -> None:
        from botocore.exceptions import ConnectionClosedError

        done = random.Random(seed).randrange(8)
        puts = itertools.count()

        def break_off(operation: str, key: str) -> None:
            if operation == "PutObject" and next(puts) == done:
                raise ConnectionClosedError(endpoint_url=key)

        wire.before = break_off
        with pytest.raises(StoreError, match=r"plus_one/.*Is something listening there"):
            store.push(local)
        assert len(raw.names()) == done
        (pushed,) = store.push(local)
        assert (len(pushed.sent), pushed.kept) == (8 - done, done)

    def test_a_big_file_is_sent_in_pieces_and_read_again(
        self, store: S3Repository, hand_written: Repository, raw: Raw, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(s3_module, "_ONE_PIECE_BYTES", 5 * 2**20)
        monkeypatch.setattr(s3_module, "_PIECE_BYTES", 5 * 2**20)
        content = random.Random(0).randbytes(11 * 2**20)
        (hand_written.path / "words" / "1" / "weights").write_bytes(content)
        store.push(hand_written)
        assert wire.of("UploadPart") == ["words/1/weights"] * 3
        assert wire.of("GetObject") == ["words/1/weights"]
        assert raw.read("words/1/weights") == content
        assert store.push(hand_written)[0].sent == []

    def test_only_named_models_are_sent(self, store: S3Repository, local: Repository, hand_written: Repository) -> None:
        shutil.copytree(hand_written.path / "words", local.path / "words")
        assert [pushed.model for pushed in store.push(local, ["words"])] == ["words"]
        with pytest.raises(InputError, match="Did you mean 'words'"):
            store.push(local, ["wrds"])

    def test_nothing_to_push_is_wrong_usage(self, store: S3Repository, repository: Repository) -> None:
        with pytest.raises(InputError, match="There is no model with a version"):
            store.push(repository)

    def test_versions_and_models_that_are_only_there_stay(
        self, store: S3Repository, local: Repository, raw: Raw
    ) -> None:
        store.push(local)
        before = raw.names()
        shutil.rmtree(local.path / "plus_one" / "1")
        raw.write("other/1/model.onnx", b"x")
        store.push(local)
        assert raw.names() == sorted([*before, "other/1/model.onnx"])

    def test_a_version_that_is_there_with_other_content_is_refused_before_anything_is_sent(
        self, store: S3Repository, local: Repository, hand_written: Repository, next_candidate: Candidate, wire: Wire
    ) -> None:
        store.push(local)
        shutil.rmtree(local.path / "plus_one" / "2")
        next_candidate.golden.inputs["x"][0] = 0.5
        next_candidate.golden.outputs["y"][0] = 1.5
        publish(local, next_candidate)
        publish(local, next_candidate)
        shutil.copytree(hand_written.path / "words", local.path / "another")
        wire.asked.clear()
        with pytest.raises(StoreError, match=r"plus_one/2/ is another version .* golden.npz has other content") as info:
            store.push(local)
        assert (info.value.model, info.value.url) == ("plus_one", f"{store.url}/plus_one/2/golden.npz")
        assert wire.of("PutObject") == []

    def test_a_file_that_only_the_version_there_has_is_another_content(
        self, store: S3Repository, local: Repository, raw: Raw
    ) -> None:
        store.push(local)
        raw.write("plus_one/1/extra.bin", b"x")
        with pytest.raises(StoreError, match=r"extra.bin is only there"):
            store.push(local)

    def test_two_pushers_of_one_number_cannot_both_win(
        self, store: S3Repository, local: Repository, raw: Raw, wire: Wire
    ) -> None:
        def be_quicker(operation: str, key: str) -> None:
            if operation == "PutObject" and key.endswith("1/manifest.json"):
                raw.write("plus_one/1/manifest.json", b"{}")

        wire.before = be_quicker
        with pytest.raises(StoreError, match=r"Another push was quicker: .*plus_one/1/manifest.json"):
            store.push(local)
        assert raw.read("plus_one/1/manifest.json") == b"{}"

    def test_an_answer_that_was_lost_is_no_conflict(
        self, store: S3Repository, local: Repository, raw: Raw, wire: Wire
    ) -> None:
        content = (local.path / "plus_one/1/manifest.json").read_bytes()

        def arrive_before(operation: str, key: str) -> None:
            if operation == "PutObject" and key.endswith("1/manifest.json"):
                raw.write("plus_one/1/manifest.json", content)

        wire.before = arrive_before
        store.push(local)

    def test_a_signature_may_come_and_change_without_a_new_version(
        self, store: S3Repository, local: Repository, raw: Raw
    ) -> None:
        store.push(local)
        signature = local.path / "plus_one" / "1" / "signature.json"
        for text in ("{}", '{"by": "another key"}'):
            signature.write_text(text)
            assert store.push(local)[0].sent == ["plus_one/1/signature.json"]
            assert raw.read("plus_one/1/signature.json").decode() == text
        signature.unlink()
        assert store.push(local)[0].sent == []

    def test_a_damaged_local_version_is_refused(self, store: S3Repository, local: Repository, raw: Raw) -> None:
        (local.path / "plus_one" / "2" / "model.onnx").write_bytes(b"other")
        with pytest.raises(ManifestError, match=r"2/model.onnx was changed"):
            store.push(local)
        assert raw.names() == []

    @pytest.mark.parametrize("name", ["plus_one/1/model.onnx", "plus_one/2/manifest.json", "plus_one/labels.txt"])
    def test_an_object_that_is_damaged_there_is_found_after_the_push(
        self, store: S3Repository, local: Repository, raw: Raw, name: str
    ) -> None:
        store.push(local)
        raw.damage(name)
        with pytest.raises(StoreError, match=rf"{name} is damaged.*Delete it there and push again"):
            store.push(local)
        raw.delete(name)
        assert store.push(local)[0].sent == [name]

    def test_an_object_that_vanishes_during_the_push_is_found(
        self, store: S3Repository, local: Repository, raw: Raw, wire: Wire
    ) -> None:
        def vanish(operation: str, key: str) -> None:
            if key.endswith("config.pbtxt"):
                raw.delete("plus_one/1/model.onnx")

        wire.before = vanish
        with pytest.raises(StoreError, match=r"plus_one/1/model.onnx is not there after it was sent"):
            store.push(local)

    def test_what_s3_does_not_know_is_refused(self, store: S3Repository, hand_written: Repository, raw: Raw) -> None:
        link = hand_written.path / "words" / "1" / "link"
        link.symlink_to(hand_written.path / "words" / "config.pbtxt")
        with pytest.raises(InputError, match="is a link"):
            store.push(hand_written)
        link.unlink()
        (hand_written.path / "words" / "1" / "a\\b").touch()
        with pytest.raises(InputError, match="control characters or backslashes"):
            store.push(hand_written)
        assert raw.names() == []

    def test_a_file_that_cannot_be_read_is_named(
        self, store: S3Repository, hand_written: Repository, wire: Wire
    ) -> None:
        def vanish(operation: str, key: str) -> None:
            if operation == "PutObject":
                (hand_written.path / "words" / "1" / "model.py").unlink(missing_ok=True)

        wire.before = vanish
        with pytest.raises(RepositoryError, match=r"model.py cannot be read"):
            store.push(hand_written)


class TestPull:
    def test_what_was_pushed_comes_back_byte_for_byte(
        self, store: S3Repository, local: Repository, hand_written: Repository, target: Path, snapshot: Snapshot
    ) -> None:
        shutil.copytree(hand_written.path / "words", local.path / "words")
        store.push(local)
        shutil.rmtree(local.path / "words" / ".cache")
        assert store.pull(target) == ["plus_one", "words"]
        assert without_index(snapshot(target)) == snapshot(local.path)
        assert [path.name for path in target.parent.iterdir()] == ["prod"]

    def test_an_ensembles_empty_version_survives(self, store: S3Repository, tmp_path: Path, target: Path) -> None:
        (tmp_path / "ensembles" / "both" / "1").mkdir(parents=True)
        (tmp_path / "ensembles" / "both" / "config.pbtxt").write_text('name: "both"\nplatform: "ensemble"\n')
        ensembles = Repository(tmp_path / "ensembles")
        store.push(ensembles)
        assert store.push(ensembles)[0].sent == []
        assert store.pull(target) == ["both"]
        assert Repository(target).versions("both") == [1]
        assert store.pull(target) == []

    def test_nothing_is_fetched_twice(
        self, store: S3Repository, local: Repository, target: Path, wire: Wire, snapshot: Snapshot
    ) -> None:
        store.push(local)
        store.pull(target)
        before = snapshot(target)
        wire.asked.clear()
        assert store.pull(target) == []
        assert wire.of("GetObject", "HeadObject") == []
        assert snapshot(target) == before

    def test_only_what_changed_is_fetched(
        self, store: S3Repository, local: Repository, next_candidate: Candidate, target: Path, wire: Wire
    ) -> None:
        store.push(local)
        store.pull(target)
        publish(local, next_candidate)
        (local.path / "plus_one" / "1" / "signature.json").write_text("{}")
        store.push(local)
        wire.asked.clear()
        assert store.pull(target) == ["plus_one"]
        assert sorted(wire.of("GetObject")) == [
            "plus_one/1/signature.json",
            "plus_one/3/golden.npz",
            "plus_one/3/manifest.json",
            "plus_one/3/model.onnx",
            "plus_one/config.pbtxt",
            "plus_one/labels.txt",
        ]
        for version in (1, 2, 3):
            folder = target / "plus_one" / str(version)
            Manifest.load(folder).check_files(folder)

    def test_a_file_that_was_lost_here_comes_back(self, store: S3Repository, local: Repository, target: Path) -> None:
        store.push(local)
        store.pull(target)
        (target / "plus_one" / "1" / "model.onnx").unlink()
        (target / "plus_one" / "labels.txt").write_text("")
        assert store.pull(target) == ["plus_one"]
        assert (target / "plus_one" / "labels.txt").read_text() == "first\nsecond\n"
        assert (target / "plus_one" / "1" / "model.onnx").is_file()

    def test_a_version_without_its_manifest_is_not_there(
        self, store: S3Repository, local: Repository, raw: Raw, target: Path
    ) -> None:
        store.push(local)
        raw.delete("plus_one/2/manifest.json")
        store.pull(target)
        assert Repository(target).versions("plus_one") == [1]
        store.push(local)
        assert store.pull(target) == ["plus_one"]
        assert Repository(target).versions("plus_one") == [1, 2]

    @pytest.mark.parametrize("done", range(1, 8))
    def test_however_far_a_first_push_got_only_whole_versions_are_seen(
        self, store: S3Repository, local: Repository, target: Path, wire: Wire, done: int
    ) -> None:
        puts = itertools.count()

        def break_off(operation: str, key: str) -> None:
            if operation == "PutObject" and next(puts) == done:
                raise KeyboardInterrupt

        wire.before = break_off
        with pytest.raises(KeyboardInterrupt):
            store.push(local)
        whole = done // 3
        if not whole:
            with pytest.raises(StoreError, match="There is no model with a whole version"):
                store.pull(target)
            assert not target.exists()
        else:
            store.pull(target)
            assert len(Repository(target).versions("plus_one")) == whole

    @pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "manifest.json"])
    def test_a_damaged_object_is_refused_and_the_mirror_stays(
        self,
        store: S3Repository,
        local: Repository,
        hand_written: Repository,
        raw: Raw,
        target: Path,
        snapshot: Snapshot,
        name: str,
    ) -> None:
        store.push(local)
        store.pull(target)
        before = snapshot(target)
        store.push(hand_written)
        raw.damage(f"plus_one/2/{name}")
        with pytest.raises(StoreError, match=rf"plus_one/2/{name}"):
            store.pull(target)
        assert snapshot(target) == before
        assert [path.name for path in target.parent.iterdir()] == ["prod"]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                lambda raw: raw.write("plus_one/2/model.onnx", b"other"),
                r"2/model.onnx is not the file that its manifest",
            ),
            (lambda raw: raw.delete("plus_one/2/model.onnx"), r"2/model.onnx is missing"),
            (lambda raw: raw.write("plus_one/2/more", b"x"), r"2/more is not the file that its manifest"),
            (lambda raw: raw.write("plus_one/2/manifest.json", b"[]"), r"plus_one/2 is not taken over"),
        ],
        ids=["changed", "missing", "added", "no manifest"],
    )
    def test_a_version_that_is_not_what_its_manifest_says_is_refused(
        self,
        store: S3Repository,
        local: Repository,
        raw: Raw,
        target: Path,
        change: Callable[[Raw], None],
        message: str,
    ) -> None:
        store.push(local)
        change(raw)
        with pytest.raises(StoreError, match=message):
            store.pull(target)
        assert not list(target.glob("plus_one"))

    @pytest.mark.parametrize(
        "name",
        [
            "../outside",
            "plus_one/../../outside",
            "plus_one/3/../../../outside",
            "/etc/outside",
            "plus_one//1/outside",
            "plus_one/./outside",
            "plus_one/1/a\\b",
            "plus_one/1/a\tb",
            "plus_one/1/a\x7fb",
            "plus_one/..",
            "plus_one/../",
        ],
    )
    def test_a_hostile_name_is_refused_before_anything_is_fetched(
        self, store: S3Repository, local: Repository, raw: Raw, wire: Wire, target: Path, tmp_path: Path, name: str
    ) -> None:
        store.push(local)
        raw.write(name, b"x")
        wire.asked.clear()
        with pytest.raises(StoreError, match=r"cannot become a file.*Delete it; nothing has been fetched"):
            store.pull(target)
        assert wire.of("GetObject") == []
        assert not target.exists()
        assert not list(tmp_path.rglob("outside"))

    def test_a_name_that_is_a_file_and_a_folder_is_refused(
        self, store: S3Repository, local: Repository, raw: Raw, target: Path
    ) -> None:
        store.push(local)
        raw.write("plus_one/1", b"x")
        with pytest.raises(StoreError, match=r"plus_one/1 cannot be a file and a folder"):
            store.pull(target)

    def test_a_model_whose_name_is_none_is_refused(
        self, store: S3Repository, hand_written: Repository, raw: Raw, target: Path
    ) -> None:
        store.push(hand_written)
        raw.write("a b/1/model.onnx", b"x")
        store.pull(target)
        raw.write("a b/config.pbtxt", b"x")
        with pytest.raises(StoreError, match=r"a b cannot be pulled. A model's name must be"):
            store.pull(target)

    def test_what_vanished_there_vanishes_here(
        self, store: S3Repository, local: Repository, hand_written: Repository, raw: Raw, target: Path
    ) -> None:
        store.push(local)
        store.push(hand_written)
        store.pull(target)
        raw.delete(*(name for name in raw.names() if name.startswith("plus_one/1/")))
        raw.delete("words/warmup/input0")
        assert store.pull(target) == ["plus_one", "words"]
        assert Repository(target).versions("plus_one") == [2]
        assert not (target / "words" / "warmup").exists()
        raw.delete(*(name for name in raw.names() if name.startswith("words/")))
        assert store.pull(target) == ["words"]
        assert [path.name for path in target.iterdir() if path.is_dir()] == ["plus_one"]

    def test_an_empty_repository_takes_nothing_away(
        self, store: S3Repository, local: Repository, raw: Raw, target: Path, snapshot: Snapshot
    ) -> None:
        store.push(local)
        store.pull(target)
        before = snapshot(target)
        raw.delete(*raw.names())
        with pytest.raises(StoreError, match="There is no model with a whole version"):
            store.pull(target)
        assert snapshot(target) == before

    def test_only_named_models_are_fetched_and_the_others_stay(
        self, store: S3Repository, local: Repository, hand_written: Repository, raw: Raw, target: Path
    ) -> None:
        store.push(local)
        store.push(hand_written)
        assert store.pull(target, ["words"]) == ["words"]
        assert store.pull(target) == ["plus_one"]
        raw.delete(*(name for name in raw.names() if name.startswith("plus_one/")))
        assert store.pull(target, ["words"]) == []
        assert Repository(target).models() == ["plus_one", "words"]
        with pytest.raises(InputError, match=r"no model 'plus_one' with a whole version in .*; there are words"):
            store.pull(target, ["plus_one"])

    def test_a_folder_that_is_no_copy_is_left_alone(
        self, store: S3Repository, local: Repository, hand_written: Repository, snapshot: Snapshot
    ) -> None:
        store.push(local)
        before = snapshot(hand_written.path)
        with pytest.raises(InputError, match=r"is no copy of .*Name an empty folder"):
            store.pull(hand_written.path)
        assert snapshot(hand_written.path) == before

    def test_a_copy_of_another_repository_is_left_alone(
        self, store: S3Repository, local: Repository, raw: Raw, target: Path
    ) -> None:
        store.push(local)
        store.pull(target)
        index = json.loads((target / INDEX).read_text())
        (target / INDEX).write_text(json.dumps({**index, "url": "s3://other"}))
        with pytest.raises(InputError, match="is no copy of"):
            store.pull(target)

    def test_a_pull_that_was_killed_leaves_nothing_behind_for_good(
        self, store: S3Repository, local: Repository, target: Path
    ) -> None:
        stale = target.parent / f".{target.name}-staging-abc"
        stale.mkdir(parents=True)
        store.push(local)
        store.pull(target)
        assert not stale.exists()

    @pytest.mark.parametrize("renames", range(6))
    def test_wherever_a_pull_breaks_off_versions_are_whole_and_the_next_one_ends_it(
        self,
        store: S3Repository,
        local: Repository,
        next_candidate: Candidate,
        target: Path,
        snapshot: Snapshot,
        monkeypatch: pytest.MonkeyPatch,
        renames: int,
    ) -> None:
        store.push(local)
        store.pull(target)
        publish(local, next_candidate)
        (local.path / "plus_one" / "1" / "signature.json").write_text("{}")
        store.push(local)
        done = itertools.count()
        rename = Path.rename

        def full(path: Path, to: Path) -> Path:
            if next(done) == renames:
                raise OSError(28, "No space left on device")
            return rename(path, to)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", full)
            with pytest.raises(RepositoryError, match=r"No space left.*pull again"):
                store.pull(target)
        mirrored = Repository(target)
        for version in mirrored.versions("plus_one"):
            folder = mirrored.version_folder("plus_one", version)
            Manifest.load(folder).check_files(folder)
        assert store.pull(target) == ["plus_one"]
        assert without_index(snapshot(target)) == snapshot(local.path)

    def test_a_folder_that_cannot_be_made_is_named(
        self, store: S3Repository, local: Repository, tmp_path: Path
    ) -> None:
        store.push(local)
        (tmp_path / "file").touch()
        with pytest.raises(RepositoryError, match=r"cannot be brought up to date"):
            store.pull(tmp_path / "file" / "mirror")

    def test_a_broken_connection_is_taken_up_where_it_broke(
        self, store: S3Repository, hand_written: Repository, target: Path, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from botocore.exceptions import ResponseStreamingError
        from botocore.response import StreamingBody

        content = random.Random(0).randbytes(5 * 2**20 + 7)
        (hand_written.path / "words" / "1" / "weights").write_bytes(content)
        store.push(hand_written)
        whole: Callable[[Any, int], Iterator[bytes]] = StreamingBody.iter_chunks

        def broken(body: Any, size: int) -> Iterator[bytes]:
            for number, chunk in enumerate(whole(body, size)):
                if number == 2:
                    raise ResponseStreamingError(error="reset")
                yield chunk

        monkeypatch.setattr(StreamingBody, "iter_chunks", broken)
        wire.asked.clear()
        store.pull(target)
        assert wire.of("GetObject").count("words/1/weights") == 3
        assert (target / "words" / "1" / "weights").read_bytes() == content

    def test_a_connection_that_breaks_again_and_again_ends(
        self, store: S3Repository, hand_written: Repository, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from botocore.exceptions import ResponseStreamingError
        from botocore.response import StreamingBody

        def broken(body: Any, size: int) -> Iterator[bytes]:
            raise ResponseStreamingError(error="reset")

        store.push(hand_written)
        monkeypatch.setattr(StreamingBody, "iter_chunks", broken)
        with pytest.raises(StoreError, match=r"words/.* cannot be used: .*reset"):
            store.pull(target)

    @pytest.mark.parametrize("replacement", [None, b"another"])
    def test_an_object_that_changes_or_vanishes_meanwhile_is_named(
        self, store: S3Repository, local: Repository, raw: Raw, target: Path, wire: Wire, replacement: bytes | None
    ) -> None:
        store.push(local)

        def change(operation: str, key: str) -> None:
            if operation == "GetObject" and key.endswith("1/model.onnx"):
                raw.delete("plus_one/1/model.onnx")
                if replacement is not None:
                    raw.write("plus_one/1/model.onnx", replacement)

        wire.before = change
        with pytest.raises(StoreError, match=r"plus_one/1/model.onnx cannot be used.*in the meantime: try again"):
            store.pull(target)


class TestFingerprint:
    def test_it_changes_with_whatever_changes(self, store: S3Repository, local: Repository, raw: Raw) -> None:
        seen = [store.fingerprint()]
        store.push(local)
        seen.append(store.fingerprint())
        assert store.fingerprint() == seen[-1]
        changes: list[Callable[[], None]] = [
            lambda: raw.damage("plus_one/1/model.onnx"),
            lambda: raw.delete("plus_one/1/golden.npz"),
            lambda: raw.write("more", b""),
        ]
        for change in changes:
            change()
            seen.append(store.fingerprint())
        assert len(set(seen)) == len(seen)


class TestPutConfig:
    def test_a_roll_back_is_one_put(
        self, store: S3Repository, local: Repository, wire: Wire, target: Path, raw: Raw
    ) -> None:
        store.push(local)
        store.pull(target)
        roll_back(local, "plus_one")
        wire.asked.clear()
        store.put_config("plus_one", local)
        assert wire.asked == [("PutObject", "prod/plus_one/config.pbtxt")]
        assert store.pull(target) == ["plus_one"]
        assert VersionPolicy.of(Repository(target).config("plus_one")) == VersionPolicy(specific=(1,))
        set_version_policy(local, "plus_one", VersionPolicy(latest=1))
        assert store.push(local)[0].sent == ["plus_one/config.pbtxt"]

    def test_a_model_or_config_that_is_none_is_not_sent(self, store: S3Repository, local: Repository, raw: Raw) -> None:
        with pytest.raises(InputError, match="There is no model 'plus_two'"):
            store.put_config("plus_two", local)
        (local.path / "plus_one" / "config.pbtxt").write_text("what is this")
        with pytest.raises(ConfigError):
            store.put_config("plus_one", local)
        assert raw.names() == []


class TestFailures:
    @pytest.fixture(
        params=[
            lambda store, local, target: store.push(local),
            lambda store, local, target: store.pull(target),
            lambda store, local, target: store.fingerprint(),
            lambda store, local, target: store.put_config("plus_one", local),
        ],
        ids=["push", "pull", "fingerprint", "put_config"],
    )
    def use(self, request: pytest.FixtureRequest, local: Repository, target: Path) -> Callable[[S3Repository], object]:
        return lambda store: request.param(store, local, target)

    def test_missing_bucket(
        self, s3_endpoint: str, s3_environment: None, use: Callable[[S3Repository], object]
    ) -> None:
        url = f"s3://{s3_endpoint}/no-such-bucket/prod"
        with pytest.raises(StoreError, match=rf"{url}.* cannot be used: .*NoSuchBucket.*make the bucket first"):
            use(S3Repository(url))

    def test_wrong_endpoint_in_bounded_time(
        self, s3_endpoint: str, s3_environment: None, use: Callable[[S3Repository], object]
    ) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))  # taken, and nobody listens
            url = f"s3://http://127.0.0.1:{closed.getsockname()[1]}/models/prod"
            started = time.monotonic()
            with pytest.raises(StoreError, match=rf"{url}.*Is something listening there"):
                use(S3Repository(url))
        assert time.monotonic() - started < 30

    def test_no_credentials(
        self, s3_url: str, monkeypatch: pytest.MonkeyPatch, use: Callable[[S3Repository], object]
    ) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(StoreError, match=r"Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"):
            use(S3Repository(s3_url))

    def test_no_such_profile(self, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_PROFILE", "nobody")
        with pytest.raises(StoreError, match=r"nobody.*Mend AWS_PROFILE"):
            S3Repository(s3_url)

    @pytest.mark.parametrize(
        ("code", "advice"),
        [
            ("AccessDenied", "s3:ListBucket"),
            ("SignatureDoesNotMatch", "Mend AWS_ACCESS_KEY_ID"),
            ("ExpiredToken", "Get new credentials"),
            ("PermanentRedirect", "AWS_DEFAULT_REGION"),
            ("SomethingNew", "Try again"),
        ],
    )
    def test_a_refusal_says_what_to_do(
        self, store: S3Repository, wire: Wire, code: str, advice: str, use: Callable[[S3Repository], object]
    ) -> None:
        from botocore.exceptions import ClientError

        def refuse(operation: str, key: str) -> None:
            raise ClientError({"Error": {"Code": code, "Message": "no"}}, operation)

        wire.before = refuse
        with pytest.raises(StoreError, match=rf"cannot be used: .*{code}.*{advice}") as info:
            use(store)
        assert info.value.url.startswith(store.url)
