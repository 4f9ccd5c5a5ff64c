"""The two smallest networks of the zoo: their layers, their accuracy, and that they scale by themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tritium.exporters.zoo import build
from tritium.exporters.zoo._sigmoid import COLUMNS
from tritium.exporters.zoo._tabular import MALIGNANT, cancer
from tritium.repository import Repository

from .conftest import Reference

Get = Callable[[str], Reference]
LAYERS = {"tiny_sigmoid": [(2, 4), (4, 2), (2, 1)], "linear_sigmoid": [(2, 1)]}


@pytest.mark.parametrize("name", LAYERS)
def test_it_has_the_layers_that_its_name_stands_for(reference: Get, name: str) -> None:
    assert reference(name).layers() == LAYERS[name]


@pytest.mark.parametrize("name", LAYERS)
def test_it_tells_malignant_tumours_by_two_raw_measures(reference: Get, name: str) -> None:
    model, data = reference(name), cancer().columns(COLUMNS)
    assert model.manifest.data["columns"] == COLUMNS == ["worst perimeter", "worst smoothness"]
    assert data.held_out[:, 0].mean() > 50  # millimetres, as they were measured
    probability = model(features=data.held_out)["probability"]
    assert probability.shape == (len(data.held_out), 1)
    assert ((probability >= 0) & (probability <= 1)).all()
    malignant = data.held_out_targets == MALIGNANT
    reached = float(((probability[:, 0] > 0.5) == malignant).mean())
    assert reached == model.manifest.metrics["accuracy"] >= 0.93
    assert model.manifest.baselines == {"accuracy": pytest.approx(0.63, abs=0.01), "roc_auc": 0.5}
    assert model.manifest.metrics["roc_auc"] >= 0.95


@pytest.mark.parametrize("name", LAYERS)
def test_the_probability_is_labelled_by_what_it_is_of(reference: Get, name: str) -> None:
    assert (reference(name).folder.parent / "labels.txt").read_text(encoding="utf-8") == "malignant\n"


def test_another_build_has_the_same_weights_to_the_last_bit(reference: Get, tmp_path: Path) -> None:
    first = reference("linear_sigmoid")
    repository = Repository(tmp_path / "models", create=True)
    build("linear_sigmoid", repository, progress=lambda _line: None)
    again = Reference("linear_sigmoid", repository, repository.version_folder("linear_sigmoid"), first.manifest)
    assert first.weights().keys() == again.weights().keys()
    for name, array in again.weights().items():
        np.testing.assert_array_equal(first.weights()[name], array)
