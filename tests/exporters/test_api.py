"""What the package publishes, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

import tritium.client
import tritium.exporters
import tritium.exporters.converters
import tritium.exporters.zoo

HEAVY = ("torch", "sklearn", "skl2onnx", "onnx", "onnxruntime", "onnxscript", "mlxtend", "locust", "gevent")


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (
            tritium.exporters,
            [
                "ConversionError",
                "ExportError",
                "ParityError",
                "Provenance",
                "export_file",
                "export_onnx",
                "export_sklearn",
                "export_torch",
                "join_onnx",
                "sklearn_to_onnx",
                "torch_to_onnx",
            ],
        ),
        (tritium.exporters.converters, ["GROUP", "Converter", "Ops"]),
        (
            tritium.exporters.zoo,
            ["MODELS", "Built", "Digits", "ZooModel", "build", "built", "check_names", "load_digits"],
        ),
    ],
)
def test_the_public_names_are_these_and_all_are_there(module: ModuleType, names: list[str]) -> None:
    assert module.__all__ == names
    assert all(hasattr(module, name) for name in names)


@pytest.mark.parametrize(
    "module",
    ["tritium.exporters", "tritium.exporters.text", "tritium.exporters.training", "tritium.exporters.zoo"],
)
def test_importing_the_package_loads_no_framework(module: str) -> None:
    code = f"import sys, {module}; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


def test_the_errors_of_an_export_share_one_root() -> None:
    assert issubclass(tritium.exporters.ExportError, tritium.client.TritiumError)
    assert issubclass(tritium.exporters.ConversionError, tritium.exporters.ExportError)
    assert issubclass(tritium.exporters.ParityError, tritium.exporters.ExportError)
