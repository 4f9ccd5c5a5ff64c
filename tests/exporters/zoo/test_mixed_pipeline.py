"""Numbers and strings in, strings out: the penguins, some of whose measures are missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tritium.exporters.zoo._tabular import penguins
from tritium.exporters.zoo.mixed_pipeline import MEASURES, STRINGS
from tritium.repository import input_specs, output_specs

from .conftest import Reference, texts

Array = NDArray[Any]
SPECIES = ["Adelie", "Chinstrap", "Gentoo"]


@pytest.fixture
def pipeline(reference: Callable[[str], Reference]) -> Reference:
    return reference("mixed_pipeline")


def columns(birds: Any) -> dict[str, Array]:
    """One array for each column, as the endpoint takes them."""
    return {name: birds[[name]].to_numpy(dtype=object) for name in STRINGS} | {
        name: birds[[name]].to_numpy(dtype=np.float32) for name in MEASURES
    }


def test_each_column_is_an_input_of_its_own_type(pipeline: Reference) -> None:
    config = pipeline.repository.config("mixed_pipeline")
    dtypes = {spec.name: spec.dtype for spec in input_specs(config)}
    assert dtypes == dict.fromkeys(STRINGS, "BYTES") | dict.fromkeys(MEASURES, "FP32")
    assert {spec.name: spec.dtype for spec in output_specs(config)} == {"label": "BYTES", "probabilities": "FP32"}
    assert (pipeline.folder.parent / "labels.txt").read_text(encoding="utf-8").split() == SPECIES


def test_it_names_the_species_of_birds_held_out(pipeline: Reference) -> None:
    _, held_out, provenance = penguins()
    label = texts(pipeline(**columns(held_out))["label"])
    reached = float((np.array(label) == held_out["species"].to_numpy()).mean())
    assert reached == pytest.approx(pipeline.manifest.metrics["accuracy"], abs=0.02)  # a bird on a threshold
    assert reached >= 0.93
    assert pipeline.manifest.baselines["accuracy"] < 0.5
    assert provenance.items() <= pipeline.manifest.data.items()


def test_birds_with_missing_measures_are_among_those_trained_on_and_held_out(pipeline: Reference) -> None:
    for birds in penguins()[:2]:
        assert birds[MEASURES].isna().to_numpy().any()
        assert (birds["sex"] == "").any()
    held_out = columns(penguins()[1])
    missing = {name: array[np.isnan(held_out["body_mass_g"])[:, 0]] for name, array in held_out.items()}
    assert len(missing["sex"]) >= 1
    probabilities = pipeline(**missing)["probabilities"]
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_a_bird_of_nothing_but_unknowns_still_gets_an_answer(pipeline: Reference) -> None:
    unknown = {"island": np.array([["Atlantis"]], object), "sex": np.array([["?"]], object)}
    outputs = pipeline(**unknown, **{name: np.full((1, 1), np.nan, np.float32) for name in MEASURES})
    assert texts(outputs["label"])[0] in SPECIES
    assert np.isfinite(outputs["probabilities"]).all()
