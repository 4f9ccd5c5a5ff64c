"""The reference models as they lie in the project's own repository: how good, how faithful, and what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from tritium.exporters.zoo import MODELS, load_digits
from tritium.exporters.zoo.digits_cnn import DigitsCnn
from tritium.exporters.zoo.digits_mlp import DigitsMlp
from tritium.repository import Manifest, Repository, input_specs, load_golden, open_artifact, output_specs

Array = NDArray[Any]

FLOORS = {"digits_cnn": 0.965, "digits_svm": 0.93, "digits_mlp": 0.92}
BACKENDS = {"digits_cnn": "onnxruntime", "digits_svm": "onnxruntime", "digits_mlp": "pytorch"}


def artifact(zoo: Repository, name: str) -> Path:
    (found,) = zoo.version_folder(name).glob("model.*")
    return found


def held_out(zoo: Repository, name: str) -> dict[str, Array]:
    """All held-out digits in the shape that the model takes."""
    (spec,) = input_specs(zoo.config(name))
    return {spec.name: load_digits().test_pixels.reshape(spec.shape)}


def answers(zoo: Repository, name: str) -> dict[str, Array]:
    """What the published artifact says of all held-out digits."""
    config = zoo.config(name)
    run = open_artifact(artifact(zoo, name), config.backend)
    return run(held_out(zoo, name), [spec.name for spec in output_specs(config)])


def probabilities(outputs: dict[str, Array]) -> Array:
    (found,) = (array for name, array in outputs.items() if name.startswith("probabilities"))
    return found


def framework_module(path: Path) -> torch.nn.Module:
    """The zoo's own module with the weights that are in the artifact."""
    module: torch.nn.Module
    if path.suffix == ".onnx":
        module = DigitsCnn()
        weights = {
            tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
            for tensor in onnx.load(path).graph.initializer
            if tensor.name in module.state_dict()
        }
    else:
        module = DigitsMlp()
        weights = torch.jit.load(str(path)).state_dict()
    module.load_state_dict(weights)  # strict: every weight must be there
    return module.eval()


def test_the_reference_models_are_the_three_digit_models() -> None:
    assert list(MODELS) == ["digits_cnn", "digits_mlp", "digits_svm"]
    assert all(model.name == name and model.summary for name, model in MODELS.items())


@pytest.mark.parametrize("name", FLOORS)
def test_the_published_artifact_reaches_its_accuracy_on_the_held_out_digits(zoo: Repository, name: str) -> None:
    outputs = answers(zoo, name)
    predicted = outputs["label"] if "label" in outputs else probabilities(outputs).argmax(axis=1)
    truth = load_digits().test_labels
    assert len(truth) == 1000
    reached = float((predicted.ravel() == truth).mean())
    assert reached >= FLOORS[name]
    assert reached == Manifest.load(zoo.version_folder(name)).metrics["accuracy"]


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", ["digits_cnn", "digits_mlp"])
def test_a_torch_artifact_answers_as_its_module_does_on_all_held_out_digits(zoo: Repository, name: str) -> None:
    (pixels,) = held_out(zoo, name).values()
    with torch.inference_mode():
        expected = framework_module(artifact(zoo, name))(torch.from_numpy(pixels)).numpy()
    assert expected.shape == (1000, 10)
    np.testing.assert_allclose(probabilities(answers(zoo, name)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "parity"),
    [
        ("digits_cnn", {"probabilities": 1e-5}),
        ("digits_mlp", {"probabilities__0": 1e-5}),
        ("digits_svm", {"probabilities": 1e-4}),
    ],
)
def test_the_recorded_parity_is_within_its_limit(zoo: Repository, name: str, parity: dict[str, float]) -> None:
    recorded = dict(Manifest.load(zoo.version_folder(name)).parity)
    recorded.pop("label", None)
    assert recorded.keys() == parity.keys()
    assert all(0 <= recorded[output] <= limit for output, limit in parity.items())


def test_the_svm_agrees_with_scikit_learn_on_every_label(zoo: Repository) -> None:
    assert Manifest.load(zoo.version_folder("digits_svm")).parity["label"] == 1.0
    outputs = answers(zoo, "digits_svm")
    np.testing.assert_array_equal(outputs["label"], outputs["probabilities"].argmax(axis=1))


@pytest.mark.parametrize("name", FLOORS)
def test_probabilities_are_probabilities(zoo: Repository, name: str) -> None:
    found = probabilities(answers(zoo, name))
    assert found.shape == (1000, 10)
    assert found.dtype == np.float32
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", FLOORS)
def test_the_golden_inputs_are_the_first_held_out_digits(zoo: Repository, name: str) -> None:
    golden = load_golden(zoo.version_folder(name), zoo.config(name))
    assert len(golden) == 32
    for key, pixels in held_out(zoo, name).items():
        np.testing.assert_array_equal(golden.inputs[key], pixels[:32])


@pytest.mark.parametrize("name", FLOORS)
def test_the_manifest_says_where_the_version_comes_from(zoo: Repository, name: str) -> None:
    manifest = Manifest.load(zoo.version_folder(name))
    assert manifest.source == f"tritium.exporters.zoo.{name}"
    assert manifest.data == load_digits().provenance
    assert manifest.data["held_out_rows"] == 1000
    assert manifest.recipe
    assert (manifest.opset is None) == (BACKENDS[name] == "pytorch")


@pytest.mark.parametrize("name", FLOORS)
def test_a_config_names_a_backend_that_the_container_has_too(zoo: Repository, name: str) -> None:
    text = (zoo.path / name / "config.pbtxt").read_text(encoding="utf-8")
    assert re.findall(r'^backend: "(.*)"$', text, re.MULTILINE) == [BACKENDS[name]]
    assert "platform:" not in text
    assert "runtime:" not in text


@pytest.mark.parametrize("name", FLOORS)
def test_no_text_in_the_repository_knows_of_the_embedded_server(zoo: Repository, name: str) -> None:
    files = [path for path in (zoo.path / name).rglob("*") if path.suffix in (".json", ".pbtxt", ".txt")]
    assert {path.name for path in files} == {"config.pbtxt", "labels.txt", "manifest.json"}
    hints = re.compile(r"tritium[._]server|pytriton|tritonserver|python[- _]?based|\bstub|embedded|model\.py", re.I)
    assert not [(path, hint) for path in files for hint in hints.findall(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("name", FLOORS)
def test_the_labels_of_the_probabilities_are_the_ten_digits(zoo: Repository, name: str) -> None:
    assert (zoo.path / name / "labels.txt").read_text(encoding="utf-8").split() == [str(digit) for digit in range(10)]
    labelled = {output.name: output.label_filename for output in zoo.config(name).output if output.label_filename}
    assert labelled == dict.fromkeys(labelled, "labels.txt")
    assert [output.partition("__")[0] for output in labelled] == ["probabilities"]


def test_the_held_out_digits_are_balanced_and_none_of_them_was_trained_on() -> None:
    digits = load_digits()
    assert digits.train_pixels.shape == (4000, 784)
    assert digits.test_pixels.shape == (1000, 784)
    assert digits.test_pixels.dtype == np.float32
    assert (digits.test_pixels.min(), digits.test_pixels.max()) == (0, 255)
    np.testing.assert_array_equal(np.bincount(digits.test_labels), [100] * 10)
    trained_on = {row.tobytes() for row in digits.train_pixels}
    assert not [row for row in digits.test_pixels if row.tobytes() in trained_on]
