"""What the package publishes, and what importing it costs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tritium.client
from tritium.client import _errors

# Each of these takes a good part of a second, or patches the process, and a client needs none of them to start.
HEAVY = ["gevent", "grpc", "locust", "onnx", "onnxruntime", "pandas", "skl2onnx", "sklearn", "torch", "tqdm"]


def test_published_names_are_pinned_and_sorted() -> None:
    assert tritium.client.__all__ == [
        "AccessDeniedError",
        "ApiKey",
        "AsyncClient",
        "AsyncModel",
        "AsyncPreparedCall",
        "AsyncSequence",
        "BearerToken",
        "BulkError",
        "CallError",
        "Classification",
        "Client",
        "ConnectFailedError",
        "DeadlineExceededError",
        "InferenceFailedError",
        "InputError",
        "Limits",
        "MissingExtraError",
        "Model",
        "ModelMetadata",
        "ModelNotFoundError",
        "ModelNotReadyError",
        "ModelStatus",
        "Outputs",
        "PreparedCall",
        "ProtocolError",
        "RequestRecord",
        "RequestRejectedError",
        "Retries",
        "Sequence",
        "ServerBusyError",
        "ServerError",
        "SharedMemory",
        "TensorSpec",
        "Tls",
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
        pytest.param("from tritium.client import Client; Client('http://127.0.0.1:1').close()", HEAVY, id="http"),
        pytest.param(
            "from tritium.client import Client; Client('grpc://127.0.0.1:1').close()",
            [name for name in HEAVY if name != "grpc"],
            id="grpc",
        ),
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
    ("CallError", (_errors.TritiumError,), 1),
    ("TransportError", (_errors.CallError,), 1),
    ("ConnectFailedError", (_errors.TransportError,), 1),
    ("DeadlineExceededError", (_errors.TransportError, TimeoutError), 1),
    ("ProtocolError", (_errors.TransportError,), 1),
    ("ServerError", (_errors.CallError,), 1),
    ("ModelNotFoundError", (_errors.ServerError,), 1),
    ("ModelNotReadyError", (_errors.ServerError,), 1),
    ("RequestRejectedError", (_errors.ServerError,), 1),
    ("AccessDeniedError", (_errors.ServerError,), 1),
    ("ServerBusyError", (_errors.ServerError,), 1),
    ("InferenceFailedError", (_errors.ServerError,), 1),
    ("BulkError", (_errors.TritiumError,), 1),
]


@pytest.mark.parametrize(("name", "bases", "exit_code"), TREE)
def test_error_has_its_place_and_its_exit_code(name: str, bases: tuple[type, ...], exit_code: int) -> None:
    error = getattr(tritium.client, name)
    assert (error.__bases__, error.exit_code) == (bases, exit_code)


def test_error_tree_in_the_docstring_names_every_error() -> None:
    words = set((_errors.__doc__ or "").split())
    errors = {name for name, item in vars(_errors).items() if isinstance(item, type) and issubclass(item, Exception)}
    assert errors == {name for name, _, _ in TREE}
    assert errors <= words


def test_missing_extra_names_the_command_that_brings_it() -> None:
    error = tritium.client.MissingExtraError("torch", "exporters")
    assert "pip install 'tritium[exporters]'" in str(error)
    assert (error.package, error.extra) == ("torch", "exporters")


@pytest.mark.parametrize(
    "error",
    [
        tritium.client.MissingExtraError("tqdm", "progress"),
        tritium.client.ServerBusyError("full", url="http://a:1", model="m", status="503", valid=["n"]),
        tritium.client.DeadlineExceededError("late", url="http://a:1", request_id="7"),
        tritium.client.BulkError("some", failed=[(range(2), tritium.client.InputError("no"))], results=None),
    ],
    ids=lambda error: type(error).__name__,
)
def test_error_goes_to_another_process_and_keeps_what_it_knows(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert {key: str(value) for key, value in vars(copy).items()} == {
        key: str(value) for key, value in vars(error).items()
    }


def test_types_of_all_that_is_public_are_complete(tmp_path: Path) -> None:
    # Where pip would put it: pyright looks for a namespace in one folder only.
    shutil.copytree(Path(tritium.client.__file__).parent, tmp_path / "tritium" / "client")
    command = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, "--ignoreexternal"]
    command += ["--outputjson", "--verifytypes", "tritium.client"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, env=environment)
    found = json.loads(done.stdout)["typeCompleteness"]
    wrong = [symbol["name"] for symbol in found["symbols"] if symbol["isExported"] and not symbol["isTypeKnown"]]
    assert (found["completenessScore"], wrong) == (1, [])
    assert found["exportedSymbolCounts"]["withKnownType"] >= len(tritium.client.__all__)
