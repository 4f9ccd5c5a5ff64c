"""What must hold before a server with a public key loads a model: nothing that runs is left unsigned."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tritium.repository import Candidate, ManifestError, Repository, SignatureError, check_loadable, publish, sign


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """The public key of those who sign."""
    private = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "key.pem").write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    (tmp_path / "key.pub").write_bytes(
        private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return tmp_path / "key.pub"


@pytest.fixture
def model(repository: Repository, candidate: Candidate, key: Path) -> Path:
    """The folder of a model whose one version is signed."""
    version = publish(repository, candidate).folder
    sign(version, key.with_name("key.pem"))
    return version.parent


def test_a_signed_model_is_let_through(repository: Repository, model: Path, key: Path) -> None:
    check_loadable(repository, model.name, public_key=key)


@pytest.mark.parametrize("left", [("golden.npz", "signature.json"), ("golden.npz",), ("signature.json",)])
def test_a_published_version_without_its_manifest_is_refused(
    repository: Repository, model: Path, left: tuple[str, ...]
) -> None:
    for name in {"manifest.json", "golden.npz", "signature.json"} - set(left):
        (model / "1" / name).unlink()
    with pytest.raises(ManifestError, match=r"its manifest.json is gone, .*Publish it again, or remove"):
        check_loadable(repository, model.name)


def test_a_manifest_that_is_a_link_to_nothing_is_no_missing_one(repository: Repository, model: Path) -> None:
    (model / "1" / "manifest.json").unlink()
    (model / "1" / "manifest.json").symlink_to("nowhere")
    with pytest.raises(ManifestError):
        check_loadable(repository, model.name)


CODE = {
    "op_library_filename": 'model_operations { op_library_filename: "/tmp/ops.so" }',
    "parameters EXECUTION_ENV_PATH": 'parameters { key: "EXECUTION_ENV_PATH" value { string_value: "/tmp/env" } }',
    "runtime": 'runtime: "evil.so"',
    "a model file out of its version": 'default_model_filename: "../../model.py"',
}


@pytest.mark.parametrize("named", CODE)
@pytest.mark.parametrize("backend", ["onnxruntime", "python"])
def test_a_config_that_names_code_which_is_not_signed_is_refused(
    repository: Repository, model: Path, key: Path, named: str, backend: str
) -> None:
    config = model / "config.pbtxt"
    lines = [line for line in config.read_text().splitlines() if not line.startswith("backend")]
    config.write_text("\n".join([*lines, f'backend: "{backend}"', CODE[named]]))
    with pytest.raises(SignatureError, match=f"no signature covers: {named}. Take it out of .*config.pbtxt"):
        check_loadable(repository, model.name, public_key=key)


@pytest.mark.parametrize("backend", ["onnxruntime", "python", "minimal"])
def test_a_library_beside_the_versions_is_refused_whatever_the_backend(
    repository: Repository, model: Path, key: Path, backend: str
) -> None:
    config = model / "config.pbtxt"
    config.write_text(config.read_text().replace("onnxruntime", backend))
    (model / f"libtriton_{backend}.so").write_bytes(b"\x7fELF")
    with pytest.raises(SignatureError, match=f"libtriton_{backend}.so is a library .* no signature covers it"):
        check_loadable(repository, model.name, public_key=key)


def test_a_version_with_nothing_but_a_link_to_a_folder_is_not_taken_for_an_empty_one(
    repository: Repository, model: Path, key: Path, tmp_path: Path
) -> None:
    (model / "2").mkdir()
    (model / "2" / "model.onnx").symlink_to(tmp_path)
    with pytest.raises(SignatureError, match="is not signed"):
        check_loadable(repository, model.name, public_key=key)
