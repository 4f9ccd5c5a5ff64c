"""Publishing ONNX models that were converted elsewhere, and joining two of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tritium.client import InputError
from tritium.exporters import ConversionError, ExportError, ParityError, Provenance, export_onnx, join_onnx
from tritium.repository import ArtifactError, Manifest, Repository, Serving, Tolerance, load_golden

Array = NDArray[Any]
ROWS = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)


def linear(weights: Array, names: tuple[str, str] = ("x", "y"), *, batch: str | int = "batch", opset: int = 20) -> Any:
    """`y = x @ weights`."""
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, size])
        for name, size in zip(names, weights.shape, strict=True)
    ]
    node = helper.make_node("MatMul", [names[0], "weights"], [names[1]])
    graph = helper.make_graph(
        [node], "linear", tensors[:1], tensors[1:], [numpy_helper.from_array(weights.astype(np.float32), "weights")]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "models", create=True)


WEIGHTS = np.arange(6).reshape(3, 2) / 7


@pytest.mark.parametrize("as_file", [True, False])
def test_a_model_or_its_file_is_published(as_file: bool, repository: Repository, tmp_path: Path) -> None:
    model: Any = linear(WEIGHTS)
    if as_file:
        onnx.save(model, tmp_path / "some.onnx")
        model = tmp_path / "some.onnx"
    note = tmp_path / "vocabulary.txt"
    note.write_text("a\nb\n", encoding="utf-8")
    published = export_onnx(
        model,
        {"x": ROWS},
        {"y": (ROWS @ WEIGHTS).astype(np.float32)},
        name="linear",
        repository=repository,
        labels={"y": ["no", "yes"]},
        files={"vocabulary.txt": note},
        provenance=Provenance(metrics={"r2": 1.0}, baselines={"r2": 0.0}, training={"seed": 3}),
    )
    assert (published.folder / "vocabulary.txt").read_text(encoding="utf-8") == "a\nb\n"
    manifest = Manifest.load(published.folder)
    assert (manifest.opset, manifest.rows, manifest.metrics, manifest.baselines) == (20, 50, {"r2": 1.0}, {"r2": 0.0})
    assert manifest.training == {"seed": 3}
    assert set(manifest.files) == {"model.onnx", "golden.npz", "vocabulary.txt"}
    assert manifest.parity["y"]["max_abs"] <= 1e-6
    assert manifest.parity["y"]["agreement"] == 1.0
    golden = load_golden(published.folder, repository.config("linear"))
    np.testing.assert_array_equal(golden.inputs["x"], ROWS[:32])


def test_wrong_answers_publish_nothing_and_say_where_and_by_how_much(repository: Repository) -> None:
    expected = (ROWS @ WEIGHTS).astype(np.float32)
    expected[40, 1] += 0.25
    with pytest.raises(ParityError, match=r"max \|Δ\| 2\.5e-01 .*1 of 100 differ, first at \(40, 1\)"):
        export_onnx(linear(WEIGHTS), {"x": ROWS}, {"y": expected}, name="linear", repository=repository)
    assert repository.models() == []


def test_what_is_wrong_in_small_batches_only_is_found(repository: Repository) -> None:
    # Right for every batch that is as large as the trace was, as with an axis that an exporter froze by a Reshape.
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in "xy"]
    shape = numpy_helper.from_array(np.array([64, 3]), "shape")
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    graph = helper.make_graph([node], "frozen", tensors[:1], tensors[1:], [shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    with pytest.raises(ArtifactError, match="Reshape"):
        export_onnx(model, {"x": ROWS}, {"y": ROWS}, name="frozen", repository=repository)
    assert repository.models() == []


def test_rows_that_may_disagree_are_reported_and_are_no_golden_cases(repository: Repository) -> None:
    expected = (ROWS @ WEIGHTS).astype(np.float32)
    expected[1] += 1
    tolerance = Tolerance(atol=1e-5, agreement=0.95)
    published = export_onnx(
        linear(WEIGHTS), {"x": ROWS}, {"y": expected}, name="linear", repository=repository, tolerance=tolerance
    )
    assert Manifest.load(published.folder).parity["y"]["agreement"] == 0.98
    assert "agreement 98.0%" in str(published)
    golden = load_golden(published.folder, repository.config("linear"))
    np.testing.assert_array_equal(golden.inputs["x"], np.delete(ROWS, 1, axis=0)[:32])


def test_rows_with_missing_values_are_golden_inputs(repository: Repository) -> None:
    rows = ROWS.copy()
    rows[0, 0] = np.nan
    nodes = [
        helper.make_node("IsNaN", ["x"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "x"], ["y"]),
    ]
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in "xy"]
    zero = numpy_helper.from_array(np.zeros((), np.float32), "zero")
    graph = helper.make_graph(nodes, "impute", tensors[:1], tensors[1:], [zero])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    published = export_onnx(model, {"x": rows}, {"y": np.nan_to_num(rows)}, name="impute", repository=repository)
    assert np.isnan(load_golden(published.folder, repository.config("impute")).inputs["x"][0, 0])


@pytest.mark.parametrize("largest", [1e-6, 5e-6])
def test_a_tolerance_that_zeros_would_pass_is_refused(largest: float, repository: Repository) -> None:
    expected = np.full((50, 2), largest, np.float32)
    with pytest.raises(InputError, match=r"zeros would pass .*; pass a `tolerance`"):
        export_onnx(linear(WEIGHTS * 0), {"x": ROWS}, {"y": expected}, name="linear", repository=repository)
    assert repository.models() == []


def test_a_tolerance_without_bounds_is_refused(repository: Repository) -> None:
    expected = (ROWS @ WEIGHTS).astype(np.float32)
    with pytest.raises(InputError, match="A Tolerance's 'atol' must be from 0 to 1000"):
        export_onnx(
            linear(WEIGHTS),
            {"x": ROWS},
            {"y": expected},
            name="linear",
            repository=repository,
            tolerance=Tolerance(atol=1e9),
        )


@pytest.mark.parametrize("labels", [["a\nb", "c"], ["", "c"], ["c", "c"]])
def test_labels_that_a_file_of_lines_cannot_hold_are_refused(labels: list[str], repository: Repository) -> None:
    expected = {"y": (ROWS @ WEIGHTS).astype(np.float32)}
    with pytest.raises(InputError, match="name each class once, in one line"):
        export_onnx(linear(WEIGHTS), {"x": ROWS}, expected, name="linear", repository=repository, labels={"y": labels})


def test_a_file_with_external_data_takes_it_along(repository: Repository, tmp_path: Path) -> None:
    path = tmp_path / "big.onnx"
    onnx.save(linear(WEIGHTS), path, save_as_external_data=True, location="big.data", size_threshold=0)
    published = export_onnx(
        path, {"x": ROWS}, {"y": (ROWS @ WEIGHTS).astype(np.float32)}, name="big", repository=repository
    )
    assert (published.folder / "big.data").is_file()


def test_a_file_that_is_no_onnx_is_refused(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(InputError, match="pickle"):
        export_onnx(tmp_path / "model.onnx", {"x": ROWS}, {"y": ROWS}, name="none", repository=repository)


def test_expected_outputs_that_are_not_finite_are_refused(repository: Repository) -> None:
    expected = np.full((50, 2), np.nan, np.float32)
    with pytest.raises(ExportError, match="itself answers held-out row 0 with a y that is not finite"):
        export_onnx(linear(WEIGHTS), {"x": ROWS}, {"y": expected}, name="linear", repository=repository)


@pytest.mark.parametrize(("inputs", "outputs"), [(50, 49), (0, 0)])
def test_rows_that_do_not_fit_together_are_refused(inputs: int, outputs: int, repository: Repository) -> None:
    with pytest.raises(InputError, match=r"the same number of rows, at least one, got \{'x': "):
        export_onnx(
            linear(WEIGHTS),
            {"x": ROWS[:inputs]},
            {"y": np.zeros((outputs, 2), np.float32)},
            name="linear",
            repository=repository,
        )


def test_a_model_without_a_batch_axis_is_published_case_by_case(repository: Repository) -> None:
    cases = ROWS[:8, np.newaxis]
    published = export_onnx(
        linear(WEIGHTS, batch=1),
        {"x": cases},
        {"y": (cases @ WEIGHTS).astype(np.float32)},
        name="single",
        repository=repository,
        serving=Serving(max_batch_size=0),
    )
    assert list(repository.config("single").input[0].dims) == [1, 3]
    assert Manifest.load(published.folder).rows == 8


# joining


def test_two_models_become_one_graph(repository: Repository) -> None:
    other = np.eye(2) * 3
    first = linear(WEIGHTS, opset=17)
    first.ir_version = 9
    joined = join_onnx(first, linear(other, ("a", "b"), opset=20), {"y": "a"})
    assert [tensor.name for tensor in (*joined.graph.input, *joined.graph.output)] == ["x", "b"]
    expected = (ROWS @ WEIGHTS @ other).astype(np.float32)
    export_onnx(joined, {"x": ROWS}, {"b": expected}, name="joined", repository=repository)


@pytest.mark.parametrize(
    ("names", "message"),
    [({"z": "a"}, "no output of the first model 'z'; it has y"), ({"y": "z"}, "no input of the second")],
)
def test_joining_names_what_is_not_there(names: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        join_onnx(linear(WEIGHTS), linear(np.eye(2), ("a", "b")), names)


def test_joining_what_does_not_fit_is_refused() -> None:
    with pytest.raises(
        ConversionError, match=r"'y' of the first model is FLOAT\[batch, 2\], and the input 'a' of the second FLOAT"
    ):
        join_onnx(linear(WEIGHTS), linear(np.eye(5), ("a", "b")), {"y": "a"})
