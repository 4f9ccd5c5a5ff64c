"""What the package publishes, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tritium.client
from tritium.client import _errors

# Each of these takes a good part of a second, or patches the process, and a client needs none of them to start.
HEAVY = ["gevent", "locust", "onnx", "onnxruntime", "skl2onnx", "sklearn", "torch"]


def test_published_names_are_pinned_and_sorted() -> None:
    assert tritium.client.__all__ == [
        "AccessDeniedError",
        "Client",
        "ConnectFailedError",
        "DeadlineExceededError",
        "InferenceFailedError",
        "InputError",
        "MissingExtraError",
        "Model",
        "ModelMetadata",
        "ModelNotFoundError",
        "ModelNotReadyError",
        "ModelStatus",
        "Outputs",
        "RequestRejectedError",
        "ServerBusyError",
        "ServerError",
        "TensorSpec",
        "TransportError",
        "TritiumError",
        "numpy_dtype",
        "triton_dtype",
    ]
    assert tritium.client.__all__ == sorted(tritium.client.__all__)


@pytest.mark.parametrize("name", tritium.client.__all__)
def test_published_name_exists(name: str) -> None:
    assert getattr(tritium.client, name).__module__.startswith("tritium.client")


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        pytest.param("import tritium.client", HEAVY, id="import"),
        pytest.param("from tritium.client import Client; Client('grpc://127.0.0.1:1').close()", HEAVY, id="grpc"),
    ],
)
def test_fresh_python_loads_nothing_heavy(code: str, unwanted: list[str]) -> None:
    script = f"{code}\nimport sys\nprint(*sorted(set(sys.modules) & set({unwanted!r})))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


TREE = [
    ("TritiumError", (Exception,), 1),
    ("InputError", (_errors.TritiumError, ValueError), 2),
    ("MissingExtraError", (_errors.TritiumError, ImportError), 2),
    ("TransportError", (_errors.TritiumError,), 1),
    ("ConnectFailedError", (_errors.TransportError,), 1),
    ("DeadlineExceededError", (_errors.TransportError, TimeoutError), 1),
    ("ServerError", (_errors.TritiumError,), 1),
    ("ModelNotFoundError", (_errors.ServerError,), 1),
    ("ModelNotReadyError", (_errors.ServerError,), 1),
    ("RequestRejectedError", (_errors.ServerError,), 1),
    ("AccessDeniedError", (_errors.ServerError,), 1),
    ("ServerBusyError", (_errors.ServerError,), 1),
    ("InferenceFailedError", (_errors.ServerError,), 1),
]


@pytest.mark.parametrize(("name", "bases", "exit_code"), TREE)
def test_error_has_its_place_and_its_exit_code(name: str, bases: tuple[type, ...], exit_code: int) -> None:
    error = getattr(tritium.client, name)
    assert (error.__bases__, error.exit_code) == (bases, exit_code)


def test_error_tree_in_the_docstring_names_every_error() -> None:
    words = set((_errors.__doc__ or "").split())
    errors = {name for name, item in vars(_errors).items() if isinstance(item, type)}
    assert errors == {name for name, _, _ in TREE}
    assert errors <= words


def test_missing_extra_names_the_command_that_brings_it() -> None:
    error = tritium.client.MissingExtraError("torch", "exporters")
    assert "pip install 'tritium[exporters]'" in str(error)
    assert (error.package, error.extra) == ("torch", "exporters")
