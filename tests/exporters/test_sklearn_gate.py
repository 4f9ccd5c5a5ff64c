"""What an export of scikit-learn refuses that held-out rows as they are would not show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    RandomTreesEmbedding,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PowerTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

from tritium.client import InputError
from tritium.exporters import ParityError, export_sklearn
from tritium.exporters._sklearn_convert import convert
from tritium.repository import Tolerance, open_artifact

from .converters.same import METHODS

Array = NDArray[Any]


def _gaps() -> tuple[Array, Array]:
    """Rows with values missing, and a target that depends on which."""
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(400, 3))
    rows[generator.random(rows.shape) < 0.2] = np.nan
    return rows, np.isnan(rows[:, 0]).astype(int) + (np.nan_to_num(rows[:, 1]) > 1)


GAPS, KINDS = _gaps()
WHOLE = GAPS[~np.isnan(GAPS).any(axis=1)]
LACKING = GAPS[np.isnan(GAPS).any(axis=1)].astype(np.float32)
SEVERAL = np.column_stack([KINDS > 0, KINDS > 1]).astype(int)
FEW = {"n_estimators": 4, "random_state": 0}


@pytest.mark.parametrize(
    "model",
    [
        BaggingClassifier(**FEW),
        DecisionTreeClassifier(random_state=0),
        DecisionTreeRegressor(random_state=0),
        ExtraTreeClassifier(random_state=0),
        ExtraTreeRegressor(random_state=0),
        ExtraTreesClassifier(**FEW),
        ExtraTreesRegressor(**FEW),
        IsolationForest(**FEW),
        PowerTransformer(),
        RandomForestClassifier(**FEW),
        RandomForestRegressor(**FEW),
        RandomTreesEmbedding(**FEW),
        VotingClassifier([("a", DecisionTreeClassifier()), ("b", DecisionTreeClassifier(max_depth=2))], voting="soft"),
    ],
    ids=lambda item: type(item).__name__,
)
@pytest.mark.parametrize("fitted_on", ["whole rows", "rows with values missing"])
def test_a_missing_value_goes_the_way_that_the_estimator_sends_it(model: Any, fitted_on: str, tmp_path: Path) -> None:
    rows = GAPS if fitted_on == "rows with values missing" else np.nan_to_num(GAPS)
    published = export_sklearn(model.fit(rows, KINDS), WHOLE, name="gaps", repository=tmp_path)
    outputs = [difference.output for difference in published.differences]
    got = open_artifact(published.folder / "model.onnx", "onnxruntime")({"features": LACKING}, outputs)
    for output, array in got.items():
        try:
            wanted = getattr(model, METHODS[output])(LACKING)
        except ValueError:
            pytest.skip("takes no missing values when it was fitted on none")
        wanted = np.asarray(wanted.toarray() if hasattr(wanted, "toarray") else wanted)
        np.testing.assert_allclose(array.reshape(wanted.shape), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model", [DecisionTreeClassifier(random_state=0), RandomForestClassifier(**FEW)], ids=str)
def test_a_missing_value_goes_that_way_for_several_targets_too(model: Any, tmp_path: Path) -> None:
    published = export_sklearn(model.fit(GAPS, SEVERAL), WHOLE, name="gaps", repository=tmp_path)
    got = open_artifact(published.folder / "model.onnx", "onnxruntime")({"features": LACKING}, ["label"])
    np.testing.assert_array_equal(got["label"], model.predict(LACKING))


@pytest.mark.parametrize("kind", [np.asarray, pd.DataFrame], ids=["array", "frame"])
def test_a_model_that_sends_missing_values_elsewhere_is_not_published(
    kind: Callable[[Array], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As skl2onnx does by itself."""
    monkeypatch.setattr("tritium.exporters._sklearn_convert.follow_missing", lambda *_: None)
    rows = kind(GAPS)
    if isinstance(rows, pd.DataFrame):
        rows.columns = ["a", "b", "c"]
    model = DecisionTreeClassifier(random_state=0).fit(rows, KINDS)
    whole = rows[~np.isnan(GAPS).any(axis=1)]
    with pytest.raises(ParityError, match="with a value missing in each row"):
        export_sklearn(model, whole, name="gaps", repository=tmp_path / "models")
    assert not (tmp_path / "models").exists()


SECONDS = 1.7e9 + np.random.default_rng(0).uniform(0, 1000, (400, 2)) * [1, 1e-3]
LATE = (SECONDS[:, 0] > 1.7e9 + 500).astype(int)


@pytest.mark.parametrize("model", [LogisticRegression(), DecisionTreeClassifier()], ids=str)
def test_what_float32_loses_is_refused_with_the_column_that_loses_most(model: Any, tmp_path: Path) -> None:
    frame = pd.DataFrame({"size": SECONDS[:, 0] - 1.7e9, "time": SECONDS[:, 0]})
    for rows, column in ((frame[["size", "time"]], "The column 'time'"), (frame.to_numpy(), "Column 1")):
        fitted = make_pipeline(StandardScaler(), model).fit(rows[:300], LATE[:300] ^ (np.arange(300) % 7 == 0))
        with pytest.raises(InputError, match=rf"as float32, which loses what this Pipeline needs.*{column} loses most"):
            export_sklearn(fitted, rows[300:], name="late", repository=tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_rows_rounded_before_the_fit_lose_nothing(tmp_path: Path) -> None:
    rows = (SECONDS - 1.7e9).astype(np.float32)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows[:300], LATE[:300])
    assert export_sklearn(model, rows[300:], name="late", repository=tmp_path).version == 1


@pytest.fixture
def rarely_wrong(monkeypatch: pytest.MonkeyPatch) -> Array:
    """Rows of which one in four hundred lies where a converter writes another tree than was fitted."""
    rows = np.random.default_rng(0).uniform(size=(400, 2))
    rows[350, 0] = 5.0
    another = DecisionTreeClassifier(max_depth=1).fit(rows, rows[:, 0] > 2)

    def convert_another(_estimator: Any, *arguments: Any) -> Any:
        return convert(another, *arguments)

    monkeypatch.setattr("tritium.exporters._sklearn.convert", convert_another)
    return rows


def constant(rows: Array) -> Any:
    """A tree that splits, though far from all rows, and never says yes to one."""
    return DecisionTreeClassifier().fit(np.vstack([rows, [[100.0, 0.0]]]), np.append(np.zeros(len(rows)), 1) > 0)


def test_a_rare_error_that_no_threshold_excuses_is_not_published(rarely_wrong: Array, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="row 350 lies next to no threshold"):
        export_sklearn(constant(rarely_wrong), rarely_wrong, name="rare", repository=tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_tolerance_of_ones_own_is_taken_at_its_word(rarely_wrong: Array, tmp_path: Path) -> None:
    tolerance = Tolerance(agreement=0.99)
    model = constant(rarely_wrong)
    published = export_sklearn(model, rarely_wrong, name="rare", repository=tmp_path, tolerance=tolerance)
    assert {difference.agreement for difference in published.differences} == {399 / 400}


def test_a_row_next_to_a_threshold_may_fall_on_its_other_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).uniform(1, 2, size=(300, 1)).astype(np.float32)
    model = DecisionTreeClassifier(max_depth=1).fit(rows, rows[:, 0] > 1.5)
    rows[0, 0] = np.float32(model.tree_.threshold[0])

    def convert_beside(*arguments: Any) -> Any:
        made = convert(*arguments)
        for node in made.graph.node:
            for attribute in node.attribute:
                if attribute.name == "nodes_values":
                    attribute.floats[0] = np.nextafter(np.float32(attribute.floats[0]), np.float32(0))
        return made

    monkeypatch.setattr("tritium.exporters._sklearn.convert", convert_beside)
    published = export_sklearn(model, rows, name="beside", repository=tmp_path)
    assert {difference.agreement for difference in published.differences} == {299 / 300}
