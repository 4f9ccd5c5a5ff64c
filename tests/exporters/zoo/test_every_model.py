"""What holds for every reference model, as it lies in the project's own repository."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from tritium.exporters.zoo import MODELS
from tritium.repository import input_specs, load_golden, output_specs

from .conftest import Reference, texts

# Metrics of which less is better; of all others it is more.
_ERRORS = re.compile(r"(^|_)(mse|rmse|mae)$")


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, reference: Callable[[str], Reference]) -> Reference:
    return reference(request.param)


def test_it_is_described_by_its_own_name() -> None:
    assert all(model.name == name and model.summary and model.data for name, model in MODELS.items())


def test_it_beats_the_baseline_of_each_metric_clearly(model: Reference) -> None:
    manifest = model.manifest
    assert manifest.metrics.keys() == manifest.baselines.keys() != set()
    for metric, reached in manifest.metrics.items():
        baseline = manifest.baselines[metric]
        assert better(metric, reached, baseline), f"{metric}: {reached} against {baseline}"


def better(metric: str, reached: float, baseline: float) -> bool:
    """Clearly: by a twentieth of the baseline, and by a tenth where that is next to nothing, as R² of the mean is."""
    if _ERRORS.search(metric):
        return reached < 0.95 * baseline
    return reached > max(1.05 * baseline, baseline + (0.1 if abs(baseline) < 0.1 else 0))


@pytest.mark.parametrize(
    ("metric", "reached", "baseline", "expected"),
    [
        ("r2", 0.05, 0.0, False),
        ("r2", 0.3, -0.001, True),
        ("r2", 0.0001, -0.001, False),
        ("accuracy", 0.55, 0.5, True),
        ("accuracy", 0.51, 0.5, False),
        ("rmse", 0.9, 1.0, True),
        ("rmse", 0.96, 1.0, False),
    ],
)
def test_clearly_better_means_a_margin_near_zero_too(
    metric: str, reached: float, baseline: float, expected: bool
) -> None:
    assert better(metric, reached, baseline) is expected


def test_the_manifest_says_where_the_version_comes_from(model: Reference) -> None:
    manifest = model.manifest
    assert manifest.source == f"tritium.exporters.zoo.{model.name}"
    assert manifest.recipe
    assert manifest.training
    assert {"name", "train_rows", "held_out_rows", "sha256"} <= manifest.data.keys()
    assert (manifest.opset is None) == (model.artifact.suffix == ".pt")


def test_the_parity_of_every_output_was_measured_on_held_out_rows_and_is_within_its_limit(model: Reference) -> None:
    manifest = model.manifest
    outputs = output_specs(model.repository.config(model.name))
    assert manifest.parity.keys() == {spec.name for spec in outputs}
    assert manifest.rows >= 50
    for spec in outputs:
        figures = manifest.parity[spec.name]
        assert manifest.tolerance.agreement <= figures["agreement"] <= 1
        assert ("max_abs" in figures) == spec.dtype.startswith("FP")
        assert all(0 <= value < np.inf for value in figures.values())


def test_what_was_trained_by_epochs_has_its_learning_curve_beside_it(model: Reference) -> None:
    curves = model.manifest.training.get("curves", {})
    by_epochs = "validation_loss" in curves
    assert by_epochs == (model.folder / "learning_curve.png").is_file()
    if by_epochs:
        assert (model.folder / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
        assert {"optimizer", "learning_rate", "batch_size"} <= model.manifest.training["settings"].keys()
        assert model.manifest.training["seed"] is not None
        assert curves["loss"][-1] < curves["loss"][0]


def test_the_artifact_answers_its_golden_cases(model: Reference) -> None:
    config = model.repository.config(model.name)
    golden = load_golden(model.folder, config)
    assert len(golden) >= 16
    outputs = model(**golden.inputs)
    tolerance = model.manifest.tolerance
    for name, expected in golden.outputs.items():
        if expected.dtype.kind == "f":
            got = outputs[name].reshape(expected.shape)
            np.testing.assert_allclose(got, expected, rtol=tolerance.rtol, atol=tolerance.atol)
        elif expected.dtype.kind == "O":
            assert texts(outputs[name]) == texts(expected)
        else:
            assert outputs[name].ravel().tolist() == expected.ravel().tolist()


def test_any_number_of_rows_goes_in_at_once(model: Reference) -> None:
    config = model.repository.config(model.name)
    assert config.max_batch_size > 1
    assert all(spec.shape[0] == -1 for spec in (*input_specs(config), *output_specs(config)))


def test_the_config_names_a_backend_that_the_container_has_too(model: Reference) -> None:
    text = (model.folder.parent / "config.pbtxt").read_text(encoding="utf-8")
    backend = "pytorch" if model.artifact.suffix == ".pt" else "onnxruntime"
    assert re.findall(r'^backend: "(.*)"$', text, re.MULTILINE) == [backend]
    assert "platform:" not in text
    assert "runtime:" not in text


def test_no_text_beside_it_knows_of_the_embedded_server(model: Reference) -> None:
    texts = {
        path.name: path.read_text(encoding="utf-8")
        for path in (model.folder.parent / "config.pbtxt", model.folder / "manifest.json")
    }
    hints = re.compile(r"tritium[._]server|pytriton|tritonserver|python[- _]?based|\bstub|embedded|model\.py", re.I)
    assert not [(name, hint) for name, text in texts.items() for hint in hints.findall(text)]


def test_each_label_file_names_as_many_classes_as_its_output_has(model: Reference) -> None:
    for output in model.repository.config(model.name).output:
        if output.label_filename:
            labels = (model.folder.parent / output.label_filename).read_text(encoding="utf-8").splitlines()
            assert len(labels) == output.dims[-1] == len(set(labels))
