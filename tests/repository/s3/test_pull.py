"""What is pulled from a model repository in S3, and what is refused."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tritium.client import InputError
from tritium.repository import (
    Candidate,
    Manifest,
    Repository,
    RepositoryError,
    S3Repository,
    StoreError,
    publish,
)
from tritium.repository._repository import locked

from .conftest import INDEX, Raw, Snapshot, Wire, without_index


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

    def test_of_two_at_once_the_last_one_takes_over_what_is_there_then(
        self, store: S3Repository, local: Repository, next_candidate: Candidate, target: Path
    ) -> None:
        store.push(local)
        store.pull(target)
        with ThreadPoolExecutor(1) as pool:
            with locked(target):
                late = pool.submit(store.pull, target)
                # It waits for the lock, and must not have listed anything before.
                with pytest.raises(TimeoutError):
                    late.result(0.5)
                publish(local, next_candidate)
                store.push(local)
            assert late.result(30) == ["plus_one"]
        assert Repository(target).versions("plus_one") == [1, 2, 3]

    def test_where_there_is_nothing_no_folder_is_left(self, store: S3Repository, target: Path) -> None:
        with pytest.raises(StoreError, match="There is no model with a whole version"):
            store.pull(target)
        assert not target.exists()

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
