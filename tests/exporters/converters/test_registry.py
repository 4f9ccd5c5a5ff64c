"""Converters of third parties: how they are found, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from tritium.client import InputError
from tritium.exporters import ConversionError, _sklearn_convert, export_sklearn
from tritium.exporters.converters import GROUP, Converter, Ops
from tritium.exporters.converters._registry import Registry, registry

from .same import IRIS, KINDS

ROOT = Path(__file__).resolve().parents[3]


def identity(_estimator: Any, x: str, _ops: Ops) -> str:
    return x


SOME = Converter(estimator="json.JSONDecoder", convert=identity)
SEVERAL = [SOME, Converter(estimator="json.JSONEncoder", convert=identity)]
NONE = "no converter"


def point(name: str) -> EntryPoint:
    return EntryPoint(name, f"{__name__}:{name}", GROUP)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or sys.modules["__main__"])


def test_an_entry_point_is_a_converter_or_a_list_of_them() -> None:
    assert Registry().load([point("SOME")]).converters == {"json.JSONDecoder": SOME}
    assert list(Registry().load([point("SEVERAL")]).converters) == ["json.JSONDecoder", "json.JSONEncoder"]


@pytest.mark.parametrize(
    ("name", "reason"), [("NONE", "must be a Converter"), ("MISSING", "MISSING"), ("SEVERAL", "which has one already")]
)
def test_a_broken_entry_point_stops_no_other_and_is_kept_with_its_reason(name: str, reason: str) -> None:
    loaded = Registry().load([point("SOME"), point(name)])
    assert "json.JSONDecoder" in loaded.converters
    (told,) = loaded.broken
    assert told.startswith(f"the entry point '{name}' of the package ")
    assert reason in told


def test_a_broken_entry_point_is_told_when_a_converter_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Registry(registry().converters, ["the entry point 'x' of the package y: no luck"])
    monkeypatch.setattr(_sklearn_convert, "registry", lambda: broken)
    fine = LogisticRegression(max_iter=1000).fit(IRIS, KINDS)
    assert export_sklearn(fine, IRIS, name="fine", repository=tmp_path).version == 1

    class Unknown(FunctionTransformer):  # type: ignore[misc]
        """Nobody converts it."""

    model = make_pipeline(Unknown(), LogisticRegression(max_iter=1000)).fit(IRIS, KINDS)
    with pytest.raises(ConversionError, match=r"(?s)cannot be converted.*the package y: no luck"):
        export_sklearn(model, IRIS, name="unknown", repository=tmp_path)


@pytest.mark.parametrize("estimator", ["Ridge", "", "a b.C", None, 7])
def test_what_is_no_dotted_name_is_refused(estimator: Any) -> None:
    with pytest.raises(InputError, match="must be a dotted name"):
        Converter(estimator=estimator, convert=identity)


@pytest.mark.parametrize(
    "given", [{}, {"convert": 7}, {"convert": identity, "refusal": "no"}], ids=["neither", "no function", "both"]
)
def test_a_converter_without_a_function_or_a_refusal_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="must have a function in 'convert' or 'transform', or a 'refusal'"):
        Converter(estimator="a.B", **given)


def test_ours_are_registered_and_none_is_broken() -> None:
    assert registry().broken == []
    assert "sklearn.kernel_approximation.RBFSampler" in registry().converters


def test_every_module_of_converters_has_a_test_and_a_registration() -> None:
    folder = ROOT / "exporters" / "tritium" / "exporters" / "converters"
    modules = {path.stem for path in folder.glob("[a-z]*.py")}
    tests = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    registered = {
        converter.convert.__module__.rpartition(".")[2]
        for converter in registry().converters.values()
        if converter.convert and converter.convert.__module__.startswith("tritium.")
    }
    assert modules <= tests
    # A refusal has no function.
    assert modules - registered == {"refused"}


def test_the_example_of_a_converter_of_your_own_runs() -> None:
    example = ROOT / "exporters" / "examples" / "own_sklearn_converter.py"
    done = subprocess.run([sys.executable, example], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert "label: agreement 100.0%" in done.stdout


def test_importing_the_converters_loads_no_framework() -> None:
    code = (
        "import sys; from tritium.exporters.converters._registry import registry; registry();"
        "print(*({'sklearn', 'skl2onnx', 'onnx', 'lightgbm', 'xgboost', 'onnxmltools', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []
