"""Signatures of versions: what is signed, what no longer verifies, and why."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from model_signing import hashing, signing, verifying

from tritium.client import InputError, MissingExtraError
from tritium.repository import (
    Candidate,
    GateError,
    Manifest,
    ManifestError,
    Repository,
    RepositoryError,
    SignatureError,
    config_text,
    promote,
    publish,
    retire,
    sign,
    verify_signature,
    version_folders,
)
from tritium.repository.lint import lint

from .conftest import Snapshot

MODEL = "plus_one"
Private = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def write_keys(folder: Path, key: Private, password: str | None = None) -> Path:
    """`key.pem` and `key.pub` in a folder of their own."""
    folder.mkdir()
    encryption = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "key.pem").write_bytes(private)
    (folder / "key.pub").write_bytes(public)
    return folder


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A pair of keys."""
    return write_keys(tmp_path / "keys", ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture
def other_keys(tmp_path: Path) -> Path:
    """A pair of keys of somebody else."""
    return write_keys(tmp_path / "other_keys", ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture
def version(repository: Repository, candidate: Candidate, tmp_path: Path) -> Path:
    """A published version with a file beside the model."""
    notes = tmp_path / "notes.txt"
    notes.write_text("one a line\n", encoding="utf-8")
    return publish(repository, replace(candidate, files={"vocabulary.txt": notes})).folder


@pytest.fixture
def signed(version: Path, keys: Path) -> Path:
    """The same version, signed."""
    sign(version, keys / "key.pem")
    return version


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit(path: Path, change: Callable[[dict[str, object]], None]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


class TestSigning:
    def test_signed_version_verifies(self, version: Path, keys: Path) -> None:
        assert sign(version, keys / "key.pem") == version / "signature.json"
        verify_signature(version, keys / "key.pub")

    def test_paths_may_be_texts_and_relative(self, version: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(version)
        sign(".", str(keys / "key.pem"))
        verify_signature("../1", str(keys / "key.pub"))

    def test_every_file_but_the_signature_is_in_it_by_its_relative_name(self, signed: Path) -> None:
        bundle = json.loads((signed / "signature.json").read_text(encoding="utf-8"))
        statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
        names = {resource["name"] for resource in statement["predicate"]["resources"]}
        assert names == {"golden.npz", "manifest.json", "model.onnx", "vocabulary.txt"}

    def test_signature_is_one_that_model_signing_itself_verifies(self, signed: Path, keys: Path) -> None:
        config = verifying.Config().use_elliptic_key_verifier(public_key=keys / "key.pub")
        config.verify(signed, signed / "signature.json")

    def test_only_the_signature_is_added(self, version: Path, keys: Path, snapshot: Snapshot) -> None:
        before = snapshot(version.parent)
        sign(version, keys / "key.pem")
        after = snapshot(version.parent)
        assert after.pop("1/signature.json")
        assert after == before

    def test_signed_version_is_still_what_its_manifest_says(self, signed: Path, repository: Repository) -> None:
        Manifest.load(signed).check_files(signed)
        assert lint(repository) == []

    def test_signing_again_replaces_the_signature(self, signed: Path, keys: Path, other_keys: Path) -> None:
        sign(signed, other_keys / "key.pem")
        verify_signature(signed, other_keys / "key.pub")
        with pytest.raises(SignatureError, match="is of another key"):
            verify_signature(signed, keys / "key.pub")

    def test_retired_version_can_be_signed(
        self, version: Path, repository: Repository, candidate: Candidate, keys: Path
    ) -> None:
        publish(repository, candidate)
        retired = retire(repository, MODEL, 1)
        sign(retired, keys / "key.pem")
        verify_signature(retired, keys / "key.pub")

    @pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
    def test_longer_keys_sign_too(self, curve: ec.EllipticCurve, version: Path, tmp_path: Path) -> None:
        keys = write_keys(tmp_path / "long", ec.generate_private_key(curve))
        sign(version, keys / "key.pem")
        verify_signature(version, keys / "key.pub")

    def test_encrypted_key_signs_with_its_password(self, version: Path, tmp_path: Path) -> None:
        keys = write_keys(tmp_path / "locked", ec.generate_private_key(ec.SECP256R1()), "sesame")
        sign(version, keys / "key.pem", password="sesame")
        verify_signature(version, keys / "key.pub")

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            pytest.param(lambda folder: flip(folder / "model.onnx"), r"model\.onnx was changed", id="changed"),
            pytest.param(lambda folder: (folder / "more").touch(), "more is not in the manifest", id="added"),
            pytest.param(
                lambda folder: (folder / "vocabulary.txt").unlink(), r"vocabulary\.txt is missing", id="removed"
            ),
            pytest.param(lambda folder: (folder / "link").symlink_to("model.onnx"), "link is a link", id="link"),
            pytest.param(lambda folder: (folder / "manifest.json").unlink(), "cannot be read", id="no-manifest"),
            pytest.param(
                lambda folder: edit(folder / "manifest.json", lambda content: content.update(model="other")),
                "was not signed: its manifest is of 'other', not of 'plus_one'",
                id="other-model",
            ),
            pytest.param(lambda folder: os.mkfifo(folder / "pipe"), "cannot be signed", id="pipe"),
        ],
    )
    def test_damaged_version_is_not_signed_and_nothing_is_left(
        self, damage: Callable[[Path], None], message: str, version: Path, keys: Path
    ) -> None:
        damage(version)
        before = sorted(version.parent.rglob("*"))
        with pytest.raises(ManifestError, match=message):
            sign(version, keys / "key.pem")
        assert sorted(version.parent.rglob("*")) == before

    def test_damaged_version_keeps_the_signature_that_it_had(self, signed: Path, keys: Path) -> None:
        before = (signed / "signature.json").read_bytes()
        flip(signed / "model.onnx")
        with pytest.raises(ManifestError):
            sign(signed, keys / "key.pem")
        assert (signed / "signature.json").read_bytes() == before

    def test_folder_that_is_not_there_is_an_error(self, version: Path, keys: Path) -> None:
        with pytest.raises(InputError, match=r"There is no folder .*/7\. It must be a version's"):
            sign(version.parent / "7", keys / "key.pem")

    def test_disk_that_says_no_leaves_the_old_signature(
        self, signed: Path, keys: Path, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        before = snapshot(signed.parent)
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(RepositoryError, match=r"No space left on device.*nothing has changed"):
            sign(signed, keys / "key.pem")
        assert snapshot(signed.parent) == before

    def test_killed_half_way_it_leaves_the_old_signature(self, signed: Path, keys: Path) -> None:
        before = {path: path.read_bytes() for path in signed.iterdir()}
        code = (
            "import os, signal, sys\n"
            "from tritium.repository import _signing\n"
            # Written, and not yet in place.
            "_signing.sync = lambda path: os.kill(os.getpid(), signal.SIGKILL)\n"
            "_signing.sign(sys.argv[1], sys.argv[2])\n"
        )
        done = subprocess.run([sys.executable, "-c", code, str(signed), str(keys / "key.pem")], timeout=60)
        assert done.returncode == -signal.SIGKILL
        assert {path: path.read_bytes() for path in signed.iterdir()} == before
        assert len(list(signed.parent.glob(f".{MODEL}-staging-*"))) == 1
        verify_signature(signed, keys / "key.pub")
        sign(signed, keys / "key.pem")

    def test_missing_package_is_an_error_that_brings_it(
        self, version: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "tritium.repository._bundle", None)
        monkeypatch.delattr("tritium.repository._bundle", raising=False)
        for call in (lambda: sign(version, keys / "key.pem"), lambda: verify_signature(version, keys / "key.pub")):
            with pytest.raises(MissingExtraError, match=r"'model-signing'.*pip install 'tritium\[signing\]'"):
                call()


class TestKeys:
    @pytest.fixture
    def kinds(self, tmp_path: Path) -> dict[str, Path]:
        """Keys that are of no use."""
        (tmp_path / "text").mkdir()
        for name in ("key.pem", "key.pub"):
            (tmp_path / "text" / name).write_text("no key\n", encoding="utf-8")
        return {
            "missing": tmp_path / "missing",
            "text": tmp_path / "text",
            "rsa": write_keys(tmp_path / "rsa", rsa.generate_private_key(65537, 2048)),
            "ed25519": write_keys(tmp_path / "ed25519", ed25519.Ed25519PrivateKey.generate()),
            "curve": write_keys(tmp_path / "curve", ec.generate_private_key(ec.SECP256K1())),
        }

    @pytest.mark.parametrize(
        ("kind", "message"),
        [
            ("missing", "cannot be read: No such file"),
            ("text", "is of no use: Unable to load PEM file"),
            ("rsa", "is of another kind"),
            ("ed25519", "is of another kind"),
            ("curve", "Unsupported key for curve 'secp256k1'"),
        ],
    )
    def test_key_that_is_none_is_an_error_that_says_how_to_make_one(
        self, kind: str, message: str, kinds: dict[str, Path], signed: Path, snapshot: Snapshot
    ) -> None:
        before = snapshot(signed.parent)
        with pytest.raises(InputError, match=rf"The private key .*{message}.*P-256.*openssl ecparam") as caught:
            sign(signed, kinds[kind] / "key.pem")
        assert caught.value.exit_code == 2
        with pytest.raises(InputError, match=rf"The public key .*{message}.*openssl ec -in key\.pem -pubout"):
            verify_signature(signed, kinds[kind] / "key.pub")
        assert snapshot(signed.parent) == before

    def test_keys_that_were_mixed_up_are_errors(self, signed: Path, keys: Path) -> None:
        with pytest.raises(InputError, match=r"The private key .*no BEGIN/END delimiters for a private key"):
            sign(signed, keys / "key.pub")
        with pytest.raises(InputError, match=r"The public key .*no BEGIN PUBLIC KEY"):
            verify_signature(signed, keys / "key.pem")

    @pytest.mark.parametrize(
        ("password", "message"),
        [(None, "is encrypted, and no password was given.*TRITIUM_KEY_PASSWORD"), ("simsim", "Incorrect password")],
        ids=["none", "wrong"],
    )
    def test_encrypted_key_wants_its_password(
        self, password: str | None, message: str, version: Path, tmp_path: Path
    ) -> None:
        keys = write_keys(tmp_path / "locked", ec.generate_private_key(ec.SECP256R1()), "sesame")
        with pytest.raises(InputError, match=message):
            sign(version, keys / "key.pem", password=password)
        assert not (version / "signature.json").exists()

    def test_password_for_a_key_that_has_none_is_an_error(self, version: Path, keys: Path) -> None:
        with pytest.raises(InputError, match="is not encrypted, and a password was given"):
            sign(version, keys / "key.pem", password="sesame")


class TestVerifying:
    def test_unsigned_version_is_an_error(self, version: Path, keys: Path) -> None:
        with pytest.raises(SignatureError, match=r"is not signed: there is no signature\.json in it") as caught:
            verify_signature(version, keys / "key.pub")
        assert (caught.value.model, caught.value.exit_code) == (MODEL, 1)

    def test_signature_of_another_key_is_an_error(self, signed: Path, other_keys: Path) -> None:
        with pytest.raises(SignatureError, match=r"signature\.json is of another key than .*other_keys/key\.pub"):
            verify_signature(signed, other_keys / "key.pub")

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            pytest.param(lambda folder: flip(folder / "model.onnx"), r"model\.onnx was changed after", id="model"),
            pytest.param(lambda folder: flip(folder / "golden.npz"), r"golden\.npz was changed after", id="golden"),
            pytest.param(
                lambda folder: edit(folder / "manifest.json", lambda content: content.update(source="elsewhere")),
                r"manifest\.json was changed after",
                id="manifest",
            ),
            pytest.param(lambda folder: (folder / "more").touch(), "more was added after", id="added"),
            # What model-signing passes over by default.
            pytest.param(lambda folder: (folder / ".gitignore").touch(), r"\.gitignore was added", id="git"),
            pytest.param(
                lambda folder: (folder / "vocabulary.txt").unlink(), r"vocabulary\.txt is missing", id="removed"
            ),
            pytest.param(lambda folder: (folder / "link").symlink_to("model.onnx"), "link was added", id="link"),
            pytest.param(lambda folder: os.mkfifo(folder / "pipe"), "pipe was added", id="pipe"),
        ],
    )
    def test_file_that_is_not_as_it_was_signed_is_named(
        self, damage: Callable[[Path], None], message: str, signed: Path, keys: Path
    ) -> None:
        damage(signed)
        with pytest.raises(SignatureError, match=message):
            verify_signature(signed, keys / "key.pub")

    @pytest.mark.parametrize("name", ["model.onnx", "signature.json"])
    def test_link_in_the_place_of_a_file_is_an_error(self, name: str, signed: Path, keys: Path, tmp_path: Path) -> None:
        shutil.move(signed / name, tmp_path / "elsewhere")
        (signed / name).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(SignatureError, match=f"{name} (is a link|was changed)"):
            verify_signature(signed, keys / "key.pub")

    def test_version_that_is_a_link_is_an_error(self, signed: Path, keys: Path) -> None:
        (signed.parent / "2").symlink_to("1")
        with pytest.raises(SignatureError, match="/2 is a link"):
            verify_signature(signed.parent / "2", keys / "key.pub")

    def test_manifest_and_file_changed_together_do_not_verify(self, signed: Path, keys: Path) -> None:
        flip(signed / "vocabulary.txt")
        Manifest.load(signed).with_files(signed).save(signed)
        Manifest.load(signed).check_files(signed)
        with pytest.raises(SignatureError, match="was changed after the version was signed"):
            verify_signature(signed, keys / "key.pub")

    def test_signed_version_of_another_model_is_an_error(self, signed: Path, keys: Path, tmp_path: Path) -> None:
        shutil.copytree(signed, tmp_path / "repository" / "minus_one" / "1")
        with pytest.raises(SignatureError, match="was signed as a version of 'plus_one', not of 'minus_one'"):
            verify_signature(tmp_path / "repository" / "minus_one" / "1", keys / "key.pub")

    def test_signed_folder_without_a_manifest_is_an_error(self, signed: Path, keys: Path) -> None:
        (signed / "manifest.json").unlink()
        config = signing.Config().use_elliptic_key_signer(private_key=keys / "key.pem")
        config.set_hashing_config(hashing.Config().set_ignored_paths(paths=["signature.json"]))
        config.sign(signed, signed / "signature.json")
        with pytest.raises(SignatureError, match="is signed, but does not say what it is"):
            verify_signature(signed, keys / "key.pub")

    def test_signature_that_leaves_a_file_out_is_an_error(self, signed: Path, keys: Path) -> None:
        config = signing.Config().use_elliptic_key_signer(private_key=keys / "key.pem")
        config.set_hashing_config(hashing.Config().set_ignored_paths(paths=["signature.json", "model.onnx"]))
        config.sign(signed, signed / "signature.json")
        with pytest.raises(SignatureError, match=r"model\.onnx was added"):
            verify_signature(signed, keys / "key.pub")

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\xff\xfe",
            b"[]",
            b"null",
            b"{}",
            b'{"verificationMaterial": {}}',
            b'{"verificationMaterial": {"publicKey": {"hint": ""}}}',
            b'{"verificationMaterial": {"publicKey": {"hint": "00"}}, "dsseEnvelope": {"payload": "bm8="}}',
            b"[" * 100_000,
            b" " * (16 * 2**20 + 1),
        ],
        ids=["empty", "no-text", "list", "null", "object", "no-key", "no-hint", "no-statement", "deep", "huge"],
    )
    def test_file_that_is_no_signature_is_an_error(
        self, content: bytes, signed: Path, keys: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        (signed / "signature.json").write_bytes(content)
        with pytest.raises(SignatureError, match=r"signature\.json is no signature .*Sign the version again"):
            verify_signature(signed, keys / "key.pub")
        assert capfd.readouterr() == ("", "")

    def test_every_byte_of_the_statement_is_signed(self, signed: Path, keys: Path) -> None:
        """Somebody changes a file and what the signature says of it."""

        def forge(bundle: dict[str, object]) -> None:
            envelope = bundle["dsseEnvelope"]
            assert isinstance(envelope, dict)
            statement = base64.b64decode(envelope["payload"]).decode()
            envelope["payload"] = base64.b64encode(statement.replace("model.onnx", "model.omnx").encode()).decode()

        edit(signed / "signature.json", forge)
        (signed / "model.onnx").rename(signed / "model.omnx")
        with pytest.raises(
            SignatureError, match=r"is not what the key .* signed: it was changed, or is of another key"
        ):
            verify_signature(signed, keys / "key.pub")

    def test_another_key_that_claims_to_be_this_one_is_an_error(
        self, signed: Path, keys: Path, other_keys: Path
    ) -> None:
        path = signed / "signature.json"
        material = json.loads(path.read_text(encoding="utf-8"))["verificationMaterial"]
        sign(signed, other_keys / "key.pem")
        edit(path, lambda bundle: bundle.update(verificationMaterial=material))
        with pytest.raises(SignatureError, match="it was changed, or is of another key"):
            verify_signature(signed, keys / "key.pub")

    def test_folder_that_is_not_there_is_an_error(self, version: Path, keys: Path) -> None:
        with pytest.raises(InputError, match="There is no folder"):
            verify_signature(version.parent / "7", keys / "key.pub")


class TestPublishing:
    def test_promoted_version_keeps_its_signature(self, signed: Path, keys: Path, tmp_path: Path) -> None:
        promoted = promote(signed, tmp_path / "production").folder
        assert (promoted / "signature.json").read_bytes() == (signed / "signature.json").read_bytes()
        verify_signature(promoted, keys / "key.pub")
        assert lint(tmp_path / "production") == []

    def test_promoted_version_without_a_signature_has_none(self, version: Path, keys: Path, tmp_path: Path) -> None:
        with pytest.raises(SignatureError, match="is not signed"):
            verify_signature(promote(version, tmp_path / "production").folder, keys / "key.pub")

    def test_companion_file_cannot_take_the_signatures_name(
        self, repository: Repository, candidate: Candidate, tmp_path: Path
    ) -> None:
        (tmp_path / "notes.txt").touch()
        with pytest.raises(GateError, match=r"companion file .* 'signature\.json'"):
            publish(repository, replace(candidate, files={"signature.json": tmp_path / "notes.txt"}))

    def test_model_file_cannot_take_the_signatures_name(self, repository: Repository, candidate: Candidate) -> None:
        folder = publish(repository, candidate).folder
        candidate.config.default_model_filename = "signature.json"
        with pytest.raises(GateError, match=r"default_model_filename .* 'signature\.json'"):
            publish(Repository(repository.path / "new", create=True), candidate)
        (folder.parent / "config.pbtxt").write_text(config_text(candidate.config), encoding="utf-8")
        (folder / "model.onnx").rename(folder / "signature.json")
        assert "file-unnamed" in {finding.code for finding in lint(repository)}


class TestVersionFolders:
    @pytest.fixture
    def two(self, version: Path, repository: Repository, candidate: Candidate) -> list[Path]:
        return [version, publish(repository, candidate).folder]

    def test_version_is_itself(self, two: list[Path]) -> None:
        assert version_folders(two[1]) == [two[1]]

    def test_model_has_all_its_versions(self, two: list[Path]) -> None:
        assert version_folders(two[0].parent) == two

    def test_repository_has_those_of_all_models(self, two: list[Path], repository: Repository) -> None:
        (repository.path / "ensemble" / "1").mkdir(parents=True)
        shutil.copytree(two[0], repository.path / "another" / "4")
        assert version_folders(str(repository.path)) == [repository.path / "another" / "4", *two]

    def test_version_that_has_folders_like_versions_is_itself(self, version: Path) -> None:
        shutil.copytree(version, version / "7")
        assert version_folders(version) == [version]

    def test_folder_may_be_named_from_within(self, two: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(two[0])
        assert version_folders("..") == two

    def test_folder_without_a_version_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "empty" / "ensemble" / "1").mkdir(parents=True)
        with pytest.raises(
            InputError, match=r"There is no version in .*digits_cnn/3, a model's folder, or a repository"
        ):
            version_folders(tmp_path / "empty")
        with pytest.raises(InputError, match="There is no folder"):
            version_folders(tmp_path / "none")
