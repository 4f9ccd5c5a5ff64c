"""What the package publishes, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tritium.repository
from tritium.client import TritiumError
from tritium.repository import _errors


def test_published_names_are_pinned_and_sorted() -> None:
    assert tritium.repository.__all__ == [
        "ArtifactError",
        "Candidate",
        "ConfigError",
        "Difference",
        "GateError",
        "GoldenCases",
        "GoldenError",
        "Manifest",
        "ManifestError",
        "PublishError",
        "Published",
        "Pushed",
        "Repository",
        "RepositoryError",
        "S3Repository",
        "Serving",
        "SignatureError",
        "StoreAccessError",
        "StoreError",
        "Tolerance",
        "Verdict",
        "VersionPolicy",
        "add_warm_up",
        "cache_dir",
        "check_loadable",
        "check_name",
        "check_version",
        "compare",
        "config_text",
        "file_sha256",
        "golden_batches",
        "has_golden",
        "has_manifest",
        "input_specs",
        "is_float",
        "is_s3",
        "load_golden",
        "measure",
        "model_config",
        "named_outputs",
        "open_artifact",
        "opened",
        "output_specs",
        "promote",
        "publish",
        "read_config",
        "restore",
        "retire",
        "roll_back",
        "rows_alike",
        "rows_within",
        "served_versions",
        "set_version_policy",
        "sign",
        "verify_server",
        "verify_signature",
        "version_folders",
        "write_config",
    ]
    assert tritium.repository.__all__ == sorted(tritium.repository.__all__)


@pytest.mark.parametrize("name", tritium.repository.__all__)
def test_published_name_exists(name: str) -> None:
    assert getattr(tritium.repository, name).__module__.startswith("tritium.repository")


def test_fresh_python_loads_no_framework() -> None:
    heavy = [
        "boto3",
        "botocore",
        "gevent",
        "locust",
        "model_signing",
        "onnx",
        "onnxruntime",
        "skl2onnx",
        "sklearn",
        "torch",
    ]
    script = f"import sys, tritium.repository\nprint(*sorted(set(sys.modules) & set({heavy!r})))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("ConfigError", TritiumError),
        ("GoldenError", TritiumError),
        ("ManifestError", TritiumError),
        ("SignatureError", TritiumError),
        ("StoreError", TritiumError),
        ("ArtifactError", TritiumError),
        ("RepositoryError", TritiumError),
        ("PublishError", TritiumError),
        ("GateError", _errors.PublishError),
    ],
)
def test_error_has_its_place_in_the_tree(name: str, base: type[Exception]) -> None:
    error = getattr(tritium.repository, name)
    assert (error.__bases__, error.exit_code) == ((base,), 1)
    assert name in (_errors.__doc__ or "")
