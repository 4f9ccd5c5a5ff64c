"""What the package publishes, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tritium.loadtest

HEAVY = (
    "bokeh",
    "optuna",
    "scipy",
    "matplotlib",
    "locust",
    "gevent",
    "geventhttpclient",
    "torch",
    "sklearn",
    "onnx",
    "onnxruntime",
)


def test_the_public_names_are_these_and_all_are_there() -> None:
    names = ["SUITES", "Comparison", "Difference", "Figures", "Knobs", "Level", "LoadError", "LoadInterrupted"]
    names += ["LoadReport", "LoadResult", "Second", "Stage", "StageResult", "Trial", "TuneResult", "Verdict", "Work"]
    names += ["apply", "compare_reports", "join_run", "parse_budget", "run_suite", "tune", "write_report"]
    assert tritium.loadtest.__all__ == names
    assert all(hasattr(tritium.loadtest, name) for name in names)


@pytest.mark.parametrize("module", ["tritium.loadtest", "tritium.loadtest.suites"])
def test_importing_the_package_loads_neither_locust_nor_gevent(module: str) -> None:
    code = f"import sys, {module}; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []
