"""A converter that does damage publishes nothing, and the error says where the damage is and how large."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from sklearn.datasets import load_iris
from torch import nn

from tritium.exporters import ConversionError, ExportError, ParityError, _torch, export_torch
from tritium.exporters._torch_convert import save_onnx, to_torchscript
from tritium.repository import Repository

Array = NDArray[Any]
Snapshot = Callable[[], dict[str, bytes]]
# An operator, its inputs and its attributes.
Step = tuple[str, list[str], dict[str, Any]]
FORMATS = ("onnx", "torchscript")
KINDS = ["setosa", "versicolor", "virginica"]
# One of the weights that tell versicolor from virginica, which are close to each other: it matters to some rows.
WEIGHT = (1, 0)
# A thousandth or so of what the weights are.
NUDGE = 1e-3
# The held-out flowers have sepals from 4.3 to 7.9 cm: a few rows of 150 are longer than this.
LONG_SEPAL = 7.5


class Classifier(nn.Module):
    """Three kinds of flowers, trained for a moment, so that its weights mean something."""

    def __init__(self, rows: Array, kinds: Array) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.last = nn.Linear(4, 8), nn.Linear(8, 3)
        optimizer = torch.optim.Adam(self.parameters(), lr=0.05)
        for _ in range(60):
            optimizer.zero_grad()
            nn.functional.nll_loss(self(torch.from_numpy(rows)).log(), torch.from_numpy(kinds)).backward()
            optimizer.step()

    def forward(self, measures: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.last(torch.tanh(self.hidden(measures)))
        return scores.softmax(dim=1)


@pytest.fixture(scope="module")
def rows() -> Array:
    found: Array = load_iris().data.astype(np.float32)
    return found


@pytest.fixture(scope="module")
def classifier(rows: Array) -> Classifier:
    return Classifier(rows, load_iris().target)


@pytest.fixture(scope="module")
def good(classifier: Classifier, rows: Array, tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("good") / "models"
    for form in FORMATS:
        export(classifier, rows, models, form)
    return models


@pytest.fixture
def models(good: Path, tmp_path: Path) -> Path:
    """A repository with a good version of the classifier in each format."""
    return shutil.copytree(good, tmp_path / "models")


@pytest.fixture
def snapshot(models: Path) -> Snapshot:
    return lambda: {str(path): path.read_bytes() for path in sorted(models.parent.rglob("*")) if path.is_file()}


def export(classifier: Classifier, rows: Array, models: Path, form: str) -> None:
    export_torch(
        classifier,
        {"measures": rows},
        outputs=["probabilities"],
        labels={"probabilities": KINDS},
        name=f"flowers_{form}",
        repository=models,
        formats=form,
    )


def perturb_onnx(model: onnx.ModelProto) -> None:
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name.endswith("last.weight"))
    values = numpy_helper.to_array(weight).copy()
    values[WEIGHT] += NUDGE
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))


def drop_class_onnx(model: onnx.ModelProto) -> None:
    append_onnx(model, [("Gather", ["whole", "kept"], {"axis": 1})], {"kept": np.array([0, 1])})
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 2


def freeze_batch_onnx(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2


def emit_nan_onnx(model: onnx.ModelProto) -> None:
    """The logarithm of what is left to a long sepal, times nothing: NaN where it is longer."""
    sepal: list[Step] = [
        ("Gather", ["measures", "first"], {"axis": 1}),
        ("Sub", ["long", "_0"], {}),
        ("Log", ["_1"], {}),
    ]
    nothing: list[Step] = [("Mul", ["_2", "zero"], {}), ("Add", ["whole", "_3"], {})]
    constants = {"first": np.array([0]), "long": np.float32(LONG_SEPAL), "zero": np.float32(0)}
    append_onnx(model, [*sepal, *nothing], constants)


def append_onnx(model: onnx.ModelProto, steps: list[Step], constants: dict[str, Any]) -> None:
    """Put nodes behind a graph's output, which is called `whole` to them; each gives `_0`, `_1` and so on."""
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["whole" if name == output else name for name in node.output]
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    for place, (operator, inputs, attributes) in enumerate(steps):
        last = place == len(steps) - 1
        model.graph.node.append(helper.make_node(operator, inputs, [output if last else f"_{place}"], **attributes))


class Sabotaged(nn.Module):
    """What was converted, with damage around it."""

    def __init__(self, inner: nn.Module, damage: str) -> None:
        super().__init__()
        self.inner, self.damage = inner, damage

    def forward(self, measures: torch.Tensor) -> torch.Tensor:
        if self.damage == "freeze":
            measures = measures.reshape(2, 4)
        whole: torch.Tensor = self.inner(measures)
        if self.damage == "drop":
            return whole[:, :2]
        if self.damage == "nan":
            return whole + 0 * (LONG_SEPAL - measures[:, :1]).log()
        return whole


ONNX_DAMAGES: dict[str, Callable[[onnx.ModelProto], None]] = {
    "perturb": perturb_onnx,
    "drop": drop_class_onnx,
    "freeze": freeze_batch_onnx,
    "nan": emit_nan_onnx,
    "none": lambda model: None,
}


@pytest.fixture
def sabotage(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets every converter do its work, and then damage to the file that it wrote."""

    def damage_onnx(damage: str, program: Any, path: Path) -> dict[str, Path]:
        beside = save_onnx(program, path)
        model = onnx.load(path)
        ONNX_DAMAGES[damage](model)
        onnx.checker.check_model(model)
        onnx.save(model, path)
        return beside

    def damage_torchscript(damage: str, module: Any, call: Any, example: Any, path: Path, *, script: bool) -> None:
        to_torchscript(module, call, example, path, script=script)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            converted: Any = torch.jit.load(str(path))
            if damage == "perturb":
                with torch.no_grad():
                    converted.inner.last.weight[WEIGHT] += NUDGE
            with torch.no_grad():
                torch.jit.trace(Sabotaged(converted, damage).eval(), torch.ones(2, 4)).save(str(path))

    def put(damage: str) -> None:
        monkeypatch.setattr(_torch, "save_onnx", lambda *args: damage_onnx(damage, *args))
        monkeypatch.setattr(_torch, "to_torchscript", lambda *args, **keys: damage_torchscript(damage, *args, **keys))

    return put


@pytest.mark.parametrize("form", FORMATS)
def test_one_perturbed_weight_publishes_nothing_and_the_error_says_by_how_much(
    form: str, classifier: Classifier, rows: Array, models: Path, sabotage: Callable[[str], None], snapshot: Snapshot
) -> None:
    before = snapshot()
    sabotage("perturb")
    with pytest.raises(ParityError, match=r"probabilities\S*: max \|Δ\| .* differ, first at \(\d+, \d\)") as caught:
        export(classifier, rows, models, form)
    (difference,) = caught.value.differences
    effect = effect_of_the_nudge(classifier, rows)
    assert effect > 5e-5
    assert difference.max_abs == pytest.approx(effect, rel=0.05)
    assert snapshot() == before


def effect_of_the_nudge(classifier: Classifier, rows: Array) -> float:
    """What the same change to the module itself does to its answers."""
    with torch.no_grad():
        whole = classifier(torch.from_numpy(rows))
        classifier.last.weight[WEIGHT] += NUDGE
        nudged = classifier(torch.from_numpy(rows))
        classifier.last.weight[WEIGHT] -= NUDGE
    return float((whole - nudged).abs().max())


@pytest.mark.parametrize("form", FORMATS)
def test_a_dropped_class_publishes_nothing_and_the_error_has_both_shapes(
    form: str, classifier: Classifier, rows: Array, models: Path, sabotage: Callable[[str], None], snapshot: Snapshot
) -> None:
    before = snapshot()
    sabotage("drop")
    with pytest.raises(ParityError, match=r"probabilities\S*: .*shape \(64, 2\) instead of \(64, 3\)"):
        export(classifier, rows, models, form)
    assert snapshot() == before


@pytest.mark.parametrize("form", FORMATS)
def test_a_frozen_batch_axis_publishes_nothing_and_the_error_has_the_size(
    form: str, classifier: Classifier, rows: Array, models: Path, sabotage: Callable[[str], None], snapshot: Snapshot
) -> None:
    before = snapshot()
    sabotage("freeze")
    size = {
        "onnx": r"index: 0 Got: 64 Expected: 2",
        "torchscript": r"shape '\[2, 4\]' is invalid for input of size 256",
    }
    with pytest.raises(ConversionError, match=rf"(?s)'flowers_{form}' does not run on held-out data: .*{size[form]}"):
        export(classifier, rows, models, form)
    assert snapshot() == before


@pytest.mark.parametrize("form", FORMATS)
def test_nan_in_a_few_rows_publishes_nothing_and_the_error_has_the_first_of_them(
    form: str, classifier: Classifier, rows: Array, models: Path, sabotage: Callable[[str], None], snapshot: Snapshot
) -> None:
    before = snapshot()
    sabotage("nan")
    long = np.flatnonzero(rows[:, 0] > LONG_SEPAL)
    assert long[0] > 32, "a golden case would show it; here only the rows beyond them do"
    assert len(long) < 10
    where = rf"max \|Δ\| inf .*{3 * len(long)} of 450 differ, first at \({long[0]}, 0\): .*nan"
    with pytest.raises(ParityError, match=where):
        export(classifier, rows, models, form)
    assert snapshot() == before


@pytest.mark.parametrize("form", FORMATS)
def test_without_damage_the_same_way_publishes(
    form: str, classifier: Classifier, rows: Array, models: Path, sabotage: Callable[[str], None]
) -> None:
    sabotage("none")
    export(classifier, rows, models, form)
    assert Repository(models).versions(f"flowers_{form}") == [1, 2]


def test_a_module_that_is_broken_itself_publishes_nothing(
    classifier: Classifier, rows: Array, models: Path, snapshot: Snapshot
) -> None:
    """Training that ran away: the comparison alone would find two NaN alike, or none."""
    before = snapshot()
    broken = Sabotaged(classifier, "nan")
    with pytest.raises(ExportError, match=r"itself answers held-out row \d+ with a probabilities that is not finite"):
        export_torch(broken, {"measures": rows}, outputs=["probabilities"], name="flowers_onnx", repository=models)
    assert snapshot() == before
