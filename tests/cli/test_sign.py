"""`tritium sign` and `tritium verify-signature`."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tritium.repository import Manifest, Tolerance

Run = Callable[..., Result]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "signing.md"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A pair of keys, and `locked.pem`: the same private key, encrypted."""
    key = ec.generate_private_key(ec.SECP256R1())
    folder = tmp_path / "keys"
    folder.mkdir()
    for name, encryption in (
        ("key.pem", serialization.NoEncryption()),
        ("locked.pem", serialization.BestAvailableEncryption(b"sesame")),
    ):
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        (folder / name).write_bytes(private)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "key.pub").write_bytes(public)
    return folder


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A repository of two models with two versions and one; nothing runs them here."""
    for model, version in (("iris", 1), ("iris", 2), ("wine", 1)):
        folder = tmp_path / "models" / model / str(version)
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(b"weights")
        manifest = Manifest(
            model=model,
            source="tests.cli",
            created="2026-01-01T00:00:00Z",
            frameworks={},
            data={},
            metrics={},
            parity={},
            tolerance=Tolerance(),
        )
        manifest.with_files(folder).save(folder)
    return tmp_path / "models"


def test_repository_is_signed_and_verified_as_a_whole(run: Run, models: Path, keys: Path) -> None:
    signed = run("sign", models, "--key", keys / "key.pem")
    assert (signed.exit_code, signed.stdout) == (0, "iris 1: signed\niris 2: signed\nwine 1: signed\n")
    verified = run("verify-signature", models, "--key", keys / "key.pub")
    assert (verified.exit_code, verified.stdout) == (0, "iris 1: ok\niris 2: ok\nwine 1: ok\n")


@pytest.mark.parametrize(("folder", "versions"), [("iris/2", [2]), ("iris", [1, 2])])
def test_only_what_is_named_is_signed(run: Run, folder: str, versions: list[int], models: Path, keys: Path) -> None:
    assert run("sign", models / folder, "--key", keys / "key.pem").exit_code == 0
    signed = sorted(path.parent.relative_to(models).as_posix() for path in models.rglob("signature.json"))
    assert signed == [f"iris/{version}" for version in versions]
    assert run("verify-signature", models / folder, "--key", keys / "key.pub").exit_code == 0
    assert run("verify-signature", models, "--key", keys / "key.pub").exit_code == 1


def test_version_that_is_not_as_it_was_signed_is_the_verdict_no(run: Run, models: Path, keys: Path) -> None:
    run("sign", models, "--key", keys / "key.pem")
    (models / "iris" / "2" / "model.onnx").write_bytes(b"Weights")
    result = run("verify-signature", models, "--key", keys / "key.pub")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "iris 1: ok",
        f"iris 2: {models / 'iris' / '2' / 'model.onnx'} was changed after the version was signed",
        "wine 1: ok",
    ]


def test_damaged_version_is_the_verdict_no_and_the_others_are_signed(run: Run, models: Path, keys: Path) -> None:
    (models / "iris" / "1" / "more").touch()
    result = run("sign", models, "--key", keys / "key.pem")
    assert result.exit_code == 1
    assert "more is not in the manifest" in result.stdout.splitlines()[0]
    assert result.stdout.splitlines()[1:] == ["iris 2: signed", "wine 1: signed"]
    assert not (models / "iris" / "1" / "signature.json").exists()


@pytest.mark.parametrize(("command", "key"), [("sign", "key.pem"), ("verify-signature", "key.pub")])
def test_json_is_one_document(run: Run, command: str, key: str, models: Path, keys: Path) -> None:
    run("sign", models / "wine", "--key", keys / "key.pem")
    (models / "wine" / "1" / "more").touch()
    result = run(command, models / "wine", "--key", keys / key, "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    (version,) = document.pop("versions")
    assert document == {"ok": False}
    assert "more" in version.pop("error")
    assert version == {"model": "wine", "version": 1, "folder": str(models / "wine" / "1"), "ok": False}


def test_version_without_a_manifest_is_passed_over_by_one_and_refused_by_the_other(
    run: Run, models: Path, keys: Path
) -> None:
    (models / "iris" / "2" / "manifest.json").unlink()
    signed = run("sign", models / "iris", "--key", keys / "key.pem")
    assert (signed.exit_code, signed.stdout) == (0, "iris 1: signed\n")
    assert "2 was passed over: it has no manifest" in signed.stderr
    verified = run("verify-signature", models / "iris", "--key", keys / "key.pub")
    assert verified.exit_code == 1
    assert "iris 2: " in verified.stdout
    assert "is not signed" in verified.stdout


def test_nothing_to_sign_is_the_verdict_no(run: Run, models: Path, keys: Path) -> None:
    (models / "wine" / "1" / "manifest.json").unlink()
    result = run("sign", models / "wine", "--key", keys / "key.pem", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {"ok": False, "versions": []}


def test_encrypted_key_takes_its_password_from_the_environment(
    run: Run, models: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRITIUM_KEY_PASSWORD", raising=False)
    refused = run("sign", models, "--key", keys / "locked.pem")
    assert refused.exit_code == 2
    assert "TRITIUM_KEY_PASSWORD" in refused.stderr
    monkeypatch.setenv("TRITIUM_KEY_PASSWORD", "sesame")
    assert run("sign", models, "--key", keys / "locked.pem").exit_code == 0
    assert run("verify-signature", models, "--key", keys / "key.pub").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sign", "{models}"], "Missing option '--key'"),
        (["sign", "{models}", "--key", "{keys}/none.pem"], "cannot be read: No such file"),
        (["sign", "{models}", "--key", "{keys}/key.pub"], "The private key"),
        (["sign", "{models}/none", "--key", "{keys}/key.pem"], "There is no folder"),
        (["sign", "{keys}", "--key", "{keys}/key.pem"], "There is no version in"),
        (["verify-signature", "{models}"], "Missing option '--key'"),
        (["verify-signature", "{keys}", "--key", "{keys}/key.pub"], "There is no version in"),
        (["verify-signature", "{models}/iris/1", "--key", "{keys}/key.pem"], "The public key"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_exits_2_and_changes_nothing(
    run: Run, arguments: list[str], message: str, models: Path, keys: Path
) -> None:
    run("sign", models / "iris" / "1", "--key", keys / "key.pem")
    before = sorted(models.rglob("*"))
    result = run(*(argument.format(models=models, keys=keys) for argument in arguments), "--json")
    assert result.exit_code == 2
    assert message in result.stderr
    assert message in json.loads(result.stdout)["error"]
    assert sorted(models.rglob("*")) == before


def test_keys_made_as_the_help_says_sign_and_verify(run: Run, models: Path, tmp_path: Path) -> None:
    commands = re.findall(r"^ +(openssl .*)$", run("sign", "--help").stdout, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        subprocess.run(shlex.split(command), cwd=tmp_path, check=True, capture_output=True, timeout=60)
    assert run("sign", models, "--key", tmp_path / "key.pem").exit_code == 0
    assert run("verify-signature", models, "--key", tmp_path / "key.pub").exit_code == 0


def test_the_page_about_signing_works_as_written(run: Run, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(models.parent)
    for version in ("iris/2", "wine/1"):
        shutil.rmtree(models / version)
    page = PAGE.read_text(encoding="utf-8")
    commands = [shlex.split(line) for line in re.findall(r"^\$ (.*)$", page, re.MULTILINE)]
    assert [command[0] for command in commands] == ["openssl", "openssl", "tritium", "tritium", "model_signing"]
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for program, *arguments in commands:
        match program:
            case "tritium":
                assert run(*arguments).exit_code == 0
            case "model_signing":
                subprocess.run([sys.executable, "-m", program, *arguments], check=True, capture_output=True, timeout=60)
            case _:
                subprocess.run([program, *arguments], check=True, capture_output=True, timeout=60)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
