"""The manifest: written, read, held against the files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from tritium.repository import Manifest, ManifestError, Tolerance, file_sha256


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(b"weights")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "more.bin").write_bytes(b"more")
    return tmp_path


@pytest.fixture
def saved(manifest: Manifest, folder: Path) -> Manifest:
    """A manifest of that folder, in that folder."""
    whole = manifest.with_files(folder)
    whole.save(folder)
    return whole


def test_manifest_survives_the_file(saved: Manifest, folder: Path) -> None:
    assert Manifest.load(folder) == saved


def test_manifest_names_every_file_but_itself_and_the_signature(saved: Manifest, folder: Path) -> None:
    (folder / "signature.json").write_text("{}", encoding="utf-8")
    assert saved.with_files(folder).files == {
        "data/more.bin": hashlib.sha256(b"more").hexdigest(),
        "model.onnx": hashlib.sha256(b"weights").hexdigest(),
    }


def test_manifest_is_json_that_people_can_read(saved: Manifest, folder: Path) -> None:
    text = (folder / "manifest.json").read_text(encoding="utf-8")
    assert json.loads(text) == asdict(saved)
    assert text.endswith("}\n")
    assert len(text.splitlines()) > len(json.loads(text))


def test_sha256_is_the_files(folder: Path) -> None:
    assert file_sha256(folder / "model.onnx") == hashlib.sha256(b"weights").hexdigest()


def test_files_as_named_pass(saved: Manifest, folder: Path) -> None:
    saved.check_files(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda folder: (folder / "model.onnx").write_bytes(b"Weights"), r"model\.onnx was changed", id="changed"
        ),
        pytest.param(lambda folder: (folder / "note").touch(), "note is not in the manifest", id="added"),
        pytest.param(
            lambda folder: (folder / "data" / "more.bin").unlink(),
            r"data/more\.bin is missing, and the manifest names it",
            id="removed",
        ),
    ],
)
def test_file_that_is_not_as_named_is_an_error(
    change: Callable[[Path], None], message: str, saved: Manifest, folder: Path
) -> None:
    change(folder)
    with pytest.raises(ManifestError, match=message):
        saved.check_files(folder)


def test_signature_may_come_later_at_its_place_only(saved: Manifest, folder: Path) -> None:
    (folder / "signature.json").touch()
    saved.check_files(folder)
    (folder / "data" / "signature.json").touch()
    with pytest.raises(ManifestError, match=r"data/signature\.json is not in the manifest"):
        saved.check_files(folder)


def test_signature_that_is_a_link_is_an_error(saved: Manifest, folder: Path) -> None:
    (folder / "signature.json").symlink_to(folder / "model.onnx")
    with pytest.raises(ManifestError, match=r"signature\.json is a link"):
        saved.check_files(folder)


def _set(**changes: object) -> Callable[[str], str]:
    return lambda text: json.dumps({**json.loads(text), **changes})


def _drop(key: str) -> Callable[[str], str]:
    return lambda text: json.dumps({name: value for name, value in json.loads(text).items() if name != key})


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda text: "", id="empty"),
        pytest.param(lambda text: text[:-20], id="truncated"),
        pytest.param(lambda text: "[1]", id="list"),
        pytest.param(lambda text: "null", id="null"),
        pytest.param(_drop("tolerance"), id="no-tolerance"),
        pytest.param(_drop("model"), id="no-model"),
        pytest.param(_set(surprise=1), id="unknown-key"),
        pytest.param(_set(tolerance={"atoll": 1.0}), id="unknown-tolerance"),
        pytest.param(_set(tolerance=1e-5), id="tolerance-no-object"),
        # Read without a look, these would surface far from here.
        pytest.param(_set(files=["model.onnx"]), id="files-no-object"),
        pytest.param(_set(tolerance={"atol": "1e-5", "rtol": 0.0}), id="tolerance-no-number"),
        pytest.param(_set(parity={"y": 1e-7}), id="parity-no-object"),
        pytest.param(_set(parity=[1e-7]), id="parity-list"),
        pytest.param(_set(parity={"y": {"largest": 1e-7}}), id="parity-unknown"),
    ],
)
def test_broken_manifest_is_an_error_with_its_path(damage: Callable[[str], str], saved: Manifest, folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(ManifestError, match=r"manifest\.json is no manifest .*; it needs the keys model, source"):
        Manifest.load(folder)


def test_manifest_that_is_no_text_is_an_error(saved: Manifest, folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ManifestError, match="is no manifest"):
        Manifest.load(folder)


def test_missing_manifest_is_an_error(folder: Path) -> None:
    with pytest.raises(ManifestError, match=r"manifest\.json cannot be read: No such file"):
        Manifest.load(folder)


def test_tolerance_comes_back_as_one(saved: Manifest, folder: Path) -> None:
    assert Manifest.load(folder).tolerance == Tolerance(atol=1e-6)
