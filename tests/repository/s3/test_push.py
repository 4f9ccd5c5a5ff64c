"""What is pushed to a model repository in S3, and what is refused."""

from __future__ import annotations

import itertools
import random
import shutil

import pytest

from tritium.client import InputError
from tritium.repository import (
    Candidate,
    ManifestError,
    Repository,
    RepositoryError,
    S3Repository,
    StoreError,
    publish,
)
from tritium.repository import _s3 as s3_module

from .conftest import Raw, Wire


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

    @pytest.mark.parametrize("file", ["manifest.json", "model.onnx", "golden.npz"])
    def test_two_pushers_of_one_number_cannot_both_win(
        self, store: S3Repository, local: Repository, raw: Raw, wire: Wire, file: str
    ) -> None:
        def be_quicker(operation: str, key: str) -> None:
            if operation == "PutObject" and key.endswith(f"1/{file}"):
                raw.write(f"plus_one/1/{file}", b"{}")

        wire.before = be_quicker
        with pytest.raises(StoreError, match=rf"Another push was quicker: .*plus_one/1/{file}"):
            store.push(local)
        assert raw.read(f"plus_one/1/{file}") == b"{}"

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
