"""The URL of a repository in S3, its fingerprint and configs, and what S3 itself says no to."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tritium.client import InputError, MissingExtraError
from tritium.repository import (
    ConfigError,
    Repository,
    S3Repository,
    StoreAccessError,
    StoreError,
    VersionPolicy,
    is_s3,
    roll_back,
    set_version_policy,
)

from .conftest import Raw, Wire


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

    def test_each_model_has_its_own_and_what_is_not_whole_changes_none(
        self, store: S3Repository, local: Repository, hand_written: Repository, raw: Raw
    ) -> None:
        assert store.fingerprints() == {}
        store.push(local)
        store.push(hand_written)
        before = store.fingerprints()
        assert sorted(before) == ["plus_one", "words"]
        raw.write("plus_one/3/model.onnx", b"a push that goes on")
        assert store.fingerprints() == before
        raw.write("plus_one/3/manifest.json", b"{}")
        after = store.fingerprints()
        assert (after["plus_one"] != before["plus_one"], after["words"]) == (True, before["words"])


class TestRollBack:
    def test_the_config_there_names_the_version_before(
        self, store: S3Repository, local: Repository, wire: Wire, target: Path
    ) -> None:
        store.push(local)
        store.pull(target)
        wire.asked.clear()
        assert store.roll_back("plus_one") == 1
        assert wire.of("PutObject") == ["plus_one/config.pbtxt"]
        assert store.pull(target) == ["plus_one"]
        config = Repository(target).config("plus_one")
        assert VersionPolicy.of(config) == VersionPolicy(specific=(1,))
        VersionPolicy(latest=1).set_in(config)
        assert config == local.config("plus_one"), "everything else is as it was"

    @pytest.mark.parametrize(
        ("model", "version", "message"),
        [
            ("plus_two", None, "There is no model 'plus_two' with a whole version in s3://"),
            ("plus_one", 3, "There is no version 3 of 'plus_one' in s3://.*; it has 1, 2"),
            ("plus_one", 2, "Version 2 of 'plus_one' is not older than 2, which is served; go back to one of 1"),
        ],
        ids=["no model", "no version", "no older version"],
    )
    def test_what_is_not_there_or_not_older_is_not_gone_back_to(
        self, store: S3Repository, local: Repository, wire: Wire, model: str, version: int | None, message: str
    ) -> None:
        store.push(local)
        wire.asked.clear()
        with pytest.raises(InputError, match=message):
            store.roll_back(model, version)
        assert wire.of("PutObject") == []

    def test_a_config_that_cannot_be_read_is_named_as_it_lies_there(
        self, store: S3Repository, local: Repository, raw: Raw
    ) -> None:
        store.push(local)
        raw.write("plus_one/config.pbtxt", b"what is this")
        with pytest.raises(ConfigError, match=r"s3://.*/plus_one/config.pbtxt is no Triton model config"):
            store.roll_back("plus_one")
        raw.delete("plus_one/config.pbtxt")
        with pytest.raises(StoreError, match=r"There is no s3://.*/plus_one/config.pbtxt"):
            store.roll_back("plus_one")


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
            lambda store, local, target: store.roll_back("plus_one"),
        ],
        ids=["push", "pull", "fingerprint", "put_config", "roll_back"],
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
            with pytest.raises(StoreAccessError, match=rf"{url}.*Is something listening there"):
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
