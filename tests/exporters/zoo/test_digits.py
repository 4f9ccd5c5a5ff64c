"""The models of the digits: how good they are on all that were held out, and that the artifact is the framework's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tritium.exporters.zoo import load_digits
from tritium.exporters.zoo.digits_cnn import DigitsCnn
from tritium.exporters.zoo.digits_mlp import DigitsMlp

from .conftest import Reference

Array = NDArray[Any]
Get = Callable[[str], Reference]
FLOORS = {"digits_cnn": 0.965, "digits_svm": 0.93, "digits_mlp": 0.92, "pca_mlp": 0.925, "rff_mlp": 0.93}
INPUTS = {"digits_cnn": "image", "digits_mlp": "pixels__0"}


def asked(model: Reference, pixels: Array) -> dict[str, Array]:
    """What a model answers, whatever its input is called; the outputs as they were named."""
    name = INPUTS.get(model.name, "pixels")
    shape = (-1, 1, 28, 28) if name == "image" else (-1, 784)
    return {output.partition("__")[0]: array for output, array in model(**{name: pixels.reshape(shape)}).items()}


@pytest.fixture(params=FLOORS)
def model(request: pytest.FixtureRequest, reference: Get) -> Reference:
    return reference(request.param)


def test_it_reaches_its_accuracy_on_all_held_out_digits(model: Reference) -> None:
    digits = load_digits()
    outputs = asked(model, digits.test_pixels)
    predicted = outputs["label"] if "label" in outputs else outputs["probabilities"].argmax(axis=1)
    reached = float((predicted.ravel() == digits.test_labels).mean())
    assert len(digits.test_labels) == 1000
    assert reached == model.manifest.metrics["accuracy"] >= FLOORS[model.name]
    assert model.manifest.baselines == {"accuracy": 0.1}


def test_probabilities_are_probabilities(model: Reference) -> None:
    found = asked(model, load_digits().test_pixels)["probabilities"]
    assert found.shape == (1000, 10)
    assert found.dtype == np.float32
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_the_manifest_says_which_digits_and_the_labels_are_theirs(model: Reference) -> None:
    assert model.manifest.data == load_digits().provenance
    assert model.manifest.rows == model.manifest.data["held_out_rows"] == 1000
    labels = (model.folder.parent / "labels.txt").read_text(encoding="utf-8")
    assert labels.split() == [str(digit) for digit in range(10)]


@pytest.mark.parametrize(("name", "module"), [("digits_cnn", DigitsCnn()), ("digits_mlp", DigitsMlp())])
@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:DeprecationWarning")
def test_a_torch_artifact_answers_as_its_module_does_with_the_same_weights(
    reference: Get, name: str, module: torch.nn.Module
) -> None:
    found = reference(name)
    if found.artifact.suffix == ".onnx":
        weights = {key: torch.from_numpy(array.copy()) for key, array in found.weights().items()}
    else:
        weights = torch.jit.load(str(found.artifact)).state_dict()
    # The exporter may put the module into one of its own.
    own = {key: tensor for name in module.state_dict() for key, tensor in weights.items() if key.endswith(name)}
    module.load_state_dict(dict(zip(module.state_dict(), own.values(), strict=True)))
    pixels = load_digits().test_pixels
    with torch.inference_mode():
        shaped = pixels.reshape(-1, 1, 28, 28) if name == "digits_cnn" else pixels
        expected = module.eval()(torch.from_numpy(shaped)).numpy()
    np.testing.assert_allclose(asked(found, pixels)["probabilities"], expected, rtol=0, atol=1e-5)


def test_the_svm_agrees_with_scikit_learn_on_every_label(reference: Get) -> None:
    model = reference("digits_svm")
    assert model.manifest.parity["label"] == {"agreement": 1.0}
    outputs = asked(model, load_digits().test_pixels)
    np.testing.assert_array_equal(outputs["label"], outputs["probabilities"].argmax(axis=1))


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("pca_mlp", [(784, 100), (100, 64), (64, 32), (32, 10)]),
        ("rff_mlp", [(784, 1000), (1000, 64), (64, 64), (64, 10)]),
    ],
)
def test_one_graph_leads_from_raw_pixels_through_the_features_to_probabilities(
    reference: Get, name: str, layers: list[tuple[int, ...]]
) -> None:
    model = reference(name)
    assert model.layers() == layers
    assert {"scikit-learn", "skl2onnx", "torch"} <= model.manifest.frameworks.keys()
    assert model.manifest.training["settings"]["epochs"] == 10
    assert model.manifest.training["settings"]["batch_size"] == 32


def test_the_features_of_rff_mlp_are_those_of_scikit_learn(reference: Get) -> None:
    """Fitted again, with the weights of the perceptron that are in the artifact."""
    from sklearn.kernel_approximation import RBFSampler
    from sklearn.preprocessing import StandardScaler

    model, digits = reference("rff_mlp"), load_digits()
    sampler = RBFSampler(gamma="scale", n_components=1000, random_state=0).fit(digits.train_pixels)
    scaler = StandardScaler().fit(sampler.transform(digits.train_pixels))
    rows = scaler.transform(sampler.transform(digits.test_pixels))
    weights = model.weights()
    prefix = next(name for name in weights if name.endswith("0.1.weight")).removesuffix("1.weight")
    for place in (1, 3, 5):
        rows = rows @ weights[f"{prefix}{place}.weight"].T + weights[f"{prefix}{place}.bias"]
        rows = np.maximum(rows, 0) if place < 5 else rows
    scores = np.exp(rows - rows.max(axis=1, keepdims=True))
    expected = scores / scores.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(asked(model, digits.test_pixels)["probabilities"], expected, atol=1e-4)


def test_the_held_out_digits_are_balanced_and_none_of_them_was_trained_on() -> None:
    digits = load_digits()
    assert digits.train_pixels.shape == (4000, 784)
    assert digits.test_pixels.shape == (1000, 784)
    assert digits.test_pixels.dtype == np.float32
    assert (digits.test_pixels.min(), digits.test_pixels.max()) == (0, 255)
    np.testing.assert_array_equal(np.bincount(digits.test_labels), [100] * 10)
    trained_on = {row.tobytes() for row in digits.train_pixels}
    assert not [row for row in digits.test_pixels if row.tobytes() in trained_on]
