"""A server over a repository in S3, which it copies into the cache and follows there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest

from tritium.client import InputError
from tritium.repository import Repository, S3Repository, StoreAccessError, StoreError
from tritium.server import Supervisor, TritonServer, running_servers
from tritium.server._source import Mirror, source_of

from .conftest import wait_until
from .scalers import publish_scaler
from .test_watch import LOOK_S, Watched

LISTING = "tritium.repository._s3.Bucket.listing"


@pytest.fixture(autouse=True)
def mirrors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Mirrors in a folder of the test's own."""
    monkeypatch.setattr("tritium.server._source.cache_dir", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "mirrors"


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """What is pushed from: one version of one model, which doubles."""
    return publish_scaler(tmp_path / "local", 2).parents[1]


@pytest.fixture
def push(local: Path, s3_url: str) -> Callable[..., None]:
    """Publish a scaler here, and push it there."""

    def published(factor: int, model: str = "scaler") -> None:
        publish_scaler(local, factor, model)
        S3Repository(s3_url).push(Repository(local), [model])

    S3Repository(s3_url).push(Repository(local))
    return published


@pytest.fixture
def damage(s3_url: str, s3_endpoint: str) -> Callable[[str], None]:
    """Change a byte of an object there."""
    client, bucket = boto3.client("s3", endpoint_url=s3_endpoint), s3_url.split("/")[-2]

    def change(name: str) -> None:
        content = bytearray(client.get_object(Bucket=bucket, Key=f"prod/{name}")["Body"].read())
        content[-1] ^= 1
        client.put_object(Bucket=bucket, Key=f"prod/{name}", Body=bytes(content))

    return change


@pytest.fixture
def served(push: object, s3_url: str, request: pytest.FixtureRequest) -> Iterator[Watched]:
    """A server over what is there; it asks S3 every half a second if it watches."""
    watch_s = getattr(request, "param", None)
    said: list[str] = []
    with Supervisor(TritonServer(s3_url, onnx_backend="native"), watch_s=watch_s, progress=said.append) as supervisor:
        yield Watched(supervisor, said, [])


watching = pytest.mark.parametrize("served", [LOOK_S], indirect=True)


def test_a_reload_serves_what_is_there_now_and_other_processes_know_the_url(
    served: Watched, push: Callable[..., None], s3_url: str, mirrors: Path
) -> None:
    server = served.supervisor.server
    assert server.repository.path.is_relative_to(mirrors)
    assert [found.repository for found in running_servers() if found.http_url == server.http_url] == [s3_url]
    assert served.answer() == 2
    push(3)
    served.supervisor.reload("scaler")
    assert served.answer() == 3
    assert S3Repository(s3_url).roll_back("scaler") == 1
    served.supervisor.reload("scaler")
    assert served.answer() == 2
    push(4, "new")
    served.supervisor.reload("new")
    assert served.answer("new") == 4


def test_a_reload_that_s3_cannot_answer_or_that_is_damaged_there_is_refused(
    served: Watched, push: Callable[..., None], damage: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    push(3)
    damage("scaler/2/model.onnx")
    with pytest.raises(StoreError, match=r"scaler/2/model.onnx is not the file that its manifest names"):
        served.supervisor.reload("scaler")
    monkeypatch.setattr(LISTING, unreachable)
    with pytest.raises(StoreAccessError):
        served.supervisor.reload("scaler")
    with pytest.raises(StoreAccessError):
        served.supervisor.reload("nothing")
    assert (served.answer(), served.reloads("refused"), served.reloads("refused", "nothing")) == (2, 2, 0)


def unreachable(*_: object) -> None:
    raise StoreAccessError("S3 is away")


@watching
def test_what_is_pushed_is_taken_over_and_what_is_damaged_keeps_no_other_back(
    served: Watched, push: Callable[..., None], damage: Callable[[str], None], local: Path, s3_url: str
) -> None:
    push(3)
    wait_until(lambda: served.answer() == 3)
    push(4, "new")
    wait_until(lambda: served.reloads("done", "new") == 1)
    assert served.answer("new") == 4

    damage("scaler/2/model.onnx")
    wait_until(lambda: served.reloads("refused") == 1)
    push(5, "new")
    wait_until(lambda: served.answer("new") == 5)
    assert (served.answer(), served.reloads("refused"), served.reloads("done")) == (3, 1, 1)
    assert len([line for line in served.said if line.startswith("scaler was not reloaded")]) == 1


@watching
def test_an_s3_that_is_away_is_said_once_and_asked_again(
    served: Watched, push: Callable[..., None], s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def away(*what: object) -> None:
        asked.append(what)
        unreachable()

    with monkeypatch.context() as patched:
        patched.setattr(LISTING, away)
        wait_until(lambda: len(asked) >= 3)
        assert served.answer() == 2
    push(3)
    wait_until(lambda: served.answer() == 3)
    assert [line for line in served.said if s3_url in line] == [
        f"What changes in {s3_url} is not known now; what is served goes on: S3 is away",
        f"What changes in {s3_url} is known again",
    ]


class TestMirror:
    def test_a_second_start_fetches_only_what_is_new(self, push: Callable[..., None], s3_url: str) -> None:
        for new in (["config.pbtxt", "golden.npz", "manifest.json", "model.onnx"], []):
            fetched: list[str] = []
            Mirror(s3_url, [], fetched.append)
            assert sorted(line.split(" ")[0].rpartition("/")[2] for line in fetched) == new
        push(3)
        fetched = []
        Mirror(s3_url, [], fetched.append)
        assert {line.split(" ")[0].removeprefix(f"{s3_url}/") for line in fetched} == {
            f"scaler/2/{name}" for name in ("golden.npz", "manifest.json", "model.onnx")
        }

    def test_a_start_without_s3_serves_the_copy_and_says_so(
        self, push: Callable[..., None], s3_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Mirror(s3_url, [], print)

        def away(*_arguments: object) -> None:
            raise StoreAccessError("S3 is away")

        said: list[str] = []
        with monkeypatch.context() as patch:
            patch.setattr(LISTING, away)
            mirror = Mirror(s3_url, [], said.append)
            assert mirror.repository.models() == ["scaler"]
            assert said == ["What is served is what was fetched before, which may be of old: S3 is away"]
            with pytest.raises(StoreAccessError):
                Mirror(f"{s3_url}-other", [], print)
        push(3)
        assert list(mirror.refresh(None)) == []
        assert mirror.repository.versions("scaler") == [1, 2]

    def test_what_s3_could_not_answer_is_asked_again_and_what_is_wrong_there_is_not(
        self, push: Callable[..., None], damage: Callable[[str], None], s3_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mirror = Mirror(s3_url, [], lambda _: None)
        assert list(mirror.refresh(None)) == []
        push(3)
        with monkeypatch.context() as patched:
            patched.setattr("tritium.repository._s3.Bucket.fetch", unreachable)
            for _ in range(2):
                with pytest.raises(StoreAccessError):
                    list(mirror.refresh(None))
        assert list(mirror.refresh([])) == []
        assert mirror.repository.versions("scaler") == [1]
        assert list(mirror.refresh(None)) == []
        assert mirror.repository.versions("scaler") == [1, 2]
        damage("scaler/2/model.onnx")
        ((model, why),) = mirror.refresh(None)
        assert (model, type(why)) == ("scaler", StoreError)
        assert list(mirror.refresh(None)) == []

    def test_only_what_is_asked_for_is_fetched(self, push: Callable[..., None], s3_url: str) -> None:
        push(4, "other")
        assert Mirror(s3_url, ["other"], lambda _: None).repository.models() == ["other"]
        with pytest.raises(InputError, match="There is no model 'nothing' with a whole version"):
            TritonServer(s3_url, models=["nothing"])

    def test_an_empty_place_is_named_with_the_way_to_fill_it(self, s3_url: str) -> None:
        with pytest.raises(StoreError, match="`tritium push` one first"):
            TritonServer(s3_url)

    def test_a_folder_is_what_it_is(self, local: Path) -> None:
        source = source_of(str(local), [], lambda _: None)
        source.pull("scaler")
        assert list(source.refresh(None)) == []
        assert (source.name, source.repository.models()) == (str(local), ["scaler"])
