"""scikit-learn to ONNX: what comes out, what is refused, and that a refusal leaves nothing behind."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.cluster import BisectingKMeans, KMeans, MiniBatchKMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import IsolationForest, RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from tritium.client import InputError, MissingExtraError
from tritium.exporters import ConversionError, ParityError, Provenance, export_sklearn, sklearn_to_onnx
from tritium.exporters._sklearn_convert import convert
from tritium.repository import (
    Manifest,
    Published,
    Repository,
    Serving,
    Tolerance,
    load_golden,
    open_artifact,
    output_specs,
)

Array = NDArray[Any]


@dataclass(frozen=True)
class Flowers:
    """Iris, split into rows to fit on and rows held out; `kinds` are the classes as numbers."""

    train: Array
    held_out: Array
    train_kinds: Array
    names: tuple[str, ...]


@pytest.fixture(scope="module")
def iris() -> Flowers:
    data = load_iris()
    order = np.random.default_rng(0).permutation(len(data.data))
    train, test = order[:100], order[100:]
    rows = data.data.astype(np.float32)
    return Flowers(rows[train], rows[test], data.target[train], tuple(map(str, data.target_names)))


def logistic() -> Any:
    return LogisticRegression(max_iter=1000)


def answers(published: Published, rows: Array, outputs: Sequence[str], *, input_name: str = "features") -> Any:
    return open_artifact(published.folder / "model.onnx", "onnxruntime")({input_name: rows}, outputs)


def dtypes(repository: Path, model: str) -> dict[str, str]:
    return {spec.name: spec.dtype for spec in output_specs(Repository(repository).config(model))}


def three_names(iris: Flowers) -> Array:
    return np.array(iris.names)[iris.train_kinds]


def two_names(iris: Flowers) -> Array:
    return np.where(iris.train_kinds == 1, "versicolor", "another")


def three_numbers(iris: Flowers) -> Array:
    return iris.train_kinds


def two_numbers(iris: Flowers) -> Array:
    return np.asarray(iris.train_kinds == 1, dtype=np.int64)


@pytest.mark.parametrize(
    ("targets", "dtype", "classes"),
    [(three_names, "BYTES", 3), (two_names, "BYTES", 2), (three_numbers, "INT64", 3), (two_numbers, "INT64", 2)],
)
def test_a_classifier_gives_its_label_and_a_probability_for_each_class(
    iris: Flowers, tmp_path: Path, targets: Callable[[Flowers], Array], dtype: str, classes: int
) -> None:
    model = make_pipeline(StandardScaler(), logistic()).fit(iris.train, targets(iris))
    published = export_sklearn(model, iris.held_out, name="iris", repository=tmp_path)
    assert (published.model, published.version, published.folder) == ("iris", 1, tmp_path / "iris" / "1")
    assert dtypes(tmp_path, "iris") == {"label": dtype, "probabilities": "FP32"}
    for rows in (iris.held_out[:1], iris.held_out[:2], iris.held_out):
        got = answers(published, rows, ["label", "probabilities"])
        assert got["label"].tolist() == model.predict(rows).tolist()
        assert got["probabilities"].shape == (len(rows), classes)
        np.testing.assert_allclose(got["probabilities"], model.predict_proba(rows), atol=1e-4)


def test_string_labels_are_kept_as_strings_in_the_golden_cases(iris: Flowers, tmp_path: Path) -> None:
    model = logistic().fit(iris.train, three_names(iris))
    published = export_sklearn(model, iris.held_out, name="iris", repository=tmp_path)
    golden = load_golden(published.folder, Repository(tmp_path).config("iris"))
    assert len(golden) == 32
    np.testing.assert_array_equal(golden.inputs["features"], iris.held_out[:32])
    assert [item.decode() for item in golden.outputs["label"].ravel()] == model.predict(iris.held_out[:32]).tolist()


@pytest.mark.parametrize("columns", [slice(3, 4), slice(2, 4)], ids=["one target", "two targets"])
def test_a_regressor_gives_a_prediction_for_each_target(iris: Flowers, tmp_path: Path, columns: slice) -> None:
    model = LinearRegression().fit(iris.train[:, :2], iris.train[:, columns])
    rows = iris.held_out[:, :2]
    published = export_sklearn(model, rows, name="petals", repository=tmp_path)
    assert dtypes(tmp_path, "petals") == {"prediction": "FP32"}
    got = answers(published, rows, ["prediction"])["prediction"]
    assert got.shape == (len(rows), columns.stop - columns.start)
    np.testing.assert_allclose(got, model.predict(rows), atol=1e-5)


def test_a_regressor_on_a_flat_target_gives_one_column(iris: Flowers, tmp_path: Path) -> None:
    model = LinearRegression().fit(iris.train, iris.train_kinds)
    published = export_sklearn(model, iris.held_out, name="kind", repository=tmp_path)
    assert answers(published, iris.held_out, ["prediction"])["prediction"].shape == (len(iris.held_out), 1)


def test_the_names_labels_and_provenance_given_are_the_ones_published(iris: Flowers, tmp_path: Path) -> None:
    provenance = Provenance(source="notebook 7", data={"name": "iris"}, metrics={"accuracy": 0.5}, recipe="by the book")
    published = export_sklearn(
        logistic().fit(iris.train, iris.train_kinds),
        iris.held_out,
        name="iris",
        repository=Repository(tmp_path),
        input_name="lengths",
        labels=iris.names,
        serving=Serving(max_batch_size=7),
        tolerance=Tolerance(atol=1e-3),
        provenance=provenance,
    )
    config = Repository(tmp_path).config("iris")
    assert [tensor.name for tensor in config.input] == ["lengths"]
    assert config.max_batch_size == 7
    assert {output.name: output.label_filename for output in config.output} == {
        "label": "",
        "probabilities": "labels.txt",
    }
    assert (tmp_path / "iris/labels.txt").read_text(encoding="utf-8").splitlines() == list(iris.names)
    manifest = Manifest.load(published.folder)
    assert (manifest.source, dict(manifest.data), dict(manifest.metrics), manifest.recipe) == (
        "notebook 7",
        {"name": "iris"},
        {"accuracy": 0.5},
        "by the book",
    )
    assert manifest.tolerance == Tolerance(atol=1e-3)
    assert manifest.parity["label"] == {"agreement": 1.0}
    assert manifest.parity["probabilities"]["max_abs"] <= 1e-4
    assert manifest.rows == len(iris.held_out)
    assert isinstance(manifest.opset, int)
    assert manifest.frameworks.keys() >= {"python", "scikit-learn", "skl2onnx", "onnx", "numpy"}
    assert answers(published, iris.held_out[:3], ["label"], input_name="lengths")["label"].shape == (3,)


def test_exporting_again_publishes_the_next_version(iris: Flowers, tmp_path: Path) -> None:
    for version, strength in ((1, 1.0), (2, 10.0)):
        model = LogisticRegression(C=strength, max_iter=1000).fit(iris.train, iris.train_kinds)
        published = export_sklearn(model, iris.held_out, name="iris", repository=tmp_path)
        assert published.version == version
    assert Repository(tmp_path).versions("iris") == [1, 2]


@pytest.mark.parametrize("targets", [three_names, two_numbers])
@pytest.mark.parametrize("estimator", [SVC(), LinearSVC(), RidgeClassifier()], ids=lambda item: type(item).__name__)
def test_a_classifier_without_probabilities_gives_its_scores(
    iris: Flowers, tmp_path: Path, estimator: Any, targets: Callable[[Flowers], Array]
) -> None:
    model = clone(estimator).fit(iris.train, targets(iris))
    published = export_sklearn(model, iris.held_out, name="iris", repository=tmp_path)
    got = answers(published, iris.held_out, ["label", "scores"])
    assert got["label"].tolist() == model.predict(iris.held_out).tolist()
    wanted = model.decision_function(iris.held_out).reshape(len(iris.held_out), -1)
    np.testing.assert_allclose(got["scores"], wanted, atol=1e-4)


def test_an_unsupported_estimator_is_refused_with_the_converters_reason(iris: Flowers, tmp_path: Path) -> None:
    model = make_pipeline(FunctionTransformer(np.sort), logistic()).fit(iris.train, iris.train_kinds)
    with pytest.raises(ConversionError, match="The function 'sort' has no graph") as caught:
        export_sklearn(model, iris.held_out, name="iris", repository=tmp_path / "models")
    assert "write a converter" in str(caught.value)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("estimator", "outputs"),
    [
        (KMeans(3, n_init=1, random_state=0), {"label": "INT64", "distances": "FP32"}),
        (IsolationForest(n_estimators=5, random_state=0), {"label": "INT64", "score": "FP32"}),
        (GaussianMixture(3, random_state=0), {"label": "INT64", "probabilities": "FP32"}),
        (StandardScaler(), {"transformed": "FP32"}),
        (PCA(2), {"transformed": "FP32"}),
    ],
    ids=lambda item: type(item).__name__,
)
def test_every_kind_of_estimator_has_outputs_of_its_own(
    iris: Flowers, tmp_path: Path, estimator: Any, outputs: dict[str, str]
) -> None:
    export_sklearn(clone(estimator).fit(iris.train), iris.held_out, name="iris", repository=tmp_path)
    assert dtypes(tmp_path, "iris") == outputs


@pytest.mark.parametrize(
    "estimator",
    [RandomForestClassifier(5, random_state=0), DecisionTreeClassifier(random_state=0), KNeighborsClassifier()],
    ids=lambda item: type(item).__name__,
)
def test_several_targets_are_an_axis_of_label_and_probabilities(iris: Flowers, tmp_path: Path, estimator: Any) -> None:
    targets = np.column_stack([iris.train_kinds == 1, iris.train[:, 0] > 6]).astype(int)
    model = clone(estimator).fit(iris.train, targets)
    published = export_sklearn(model, iris.held_out, name="iris", repository=tmp_path)
    got = answers(published, iris.held_out, ["label", "probabilities"])
    np.testing.assert_array_equal(got["label"], model.predict(iris.held_out))
    wanted = np.stack(model.predict_proba(iris.held_out), axis=1)
    np.testing.assert_allclose(got["probabilities"], wanted, atol=1e-6)


def test_targets_with_different_numbers_of_classes_have_an_output_each(iris: Flowers, tmp_path: Path) -> None:
    targets = np.column_stack([iris.train_kinds, iris.train[:, 0] > 6]).astype(int)
    model = RandomForestClassifier(5, random_state=0).fit(iris.train, targets)
    published = export_sklearn(model, iris.held_out, name="iris", repository=tmp_path)
    got = answers(published, iris.held_out, ["probabilities_0", "probabilities_1"])
    for array, wanted in zip(got.values(), model.predict_proba(iris.held_out), strict=True):
        np.testing.assert_allclose(array, wanted, atol=1e-6)


def test_thresholds_may_disagree_in_one_row_of_a_hundred_unless_told_otherwise(iris: Flowers, tmp_path: Path) -> None:
    for name, model, agreement in (("tree", DecisionTreeClassifier(), 0.99), ("linear", logistic(), 1.0)):
        fitted = make_pipeline(StandardScaler(), model).fit(iris.train, iris.train_kinds)
        published = export_sklearn(fitted, iris.held_out, name=name, repository=tmp_path)
        assert Manifest.load(published.folder).tolerance.agreement == agreement


@pytest.mark.parametrize("step", [KMeans(3, n_init=1, random_state=0), LinearDiscriminantAnalysis()], ids=str)
@pytest.mark.parametrize("where", ["pipeline", "union", "columns"])
def test_a_step_that_could_predict_transforms(iris: Flowers, tmp_path: Path, step: Any, where: str) -> None:
    made = {
        "pipeline": step,
        "union": FeatureUnion([("step", step), ("scaled", StandardScaler())]),
        "columns": ColumnTransformer([("step", step, [0, 1]), ("scaled", StandardScaler(), [2, 3])]),
    }
    model = make_pipeline(made[where], logistic()).fit(iris.train, iris.train_kinds)
    published = export_sklearn(model, iris.held_out, name="iris", repository=tmp_path)
    got = answers(published, iris.held_out, ["probabilities"])["probabilities"]
    np.testing.assert_allclose(got, model.predict_proba(iris.held_out), atol=1e-5)


def test_a_step_that_could_predict_and_has_no_converter_is_named(iris: Flowers, tmp_path: Path) -> None:
    voters = VotingClassifier([("a", logistic()), ("b", DecisionTreeClassifier())], voting="soft")
    model = make_pipeline(voters, logistic()).fit(iris.train, iris.train_kinds)
    with pytest.raises(ConversionError, match=r"VotingClassifier also predicts.*put it last"):
        export_sklearn(model, iris.held_out, name="iris", repository=tmp_path)


def test_a_converter_that_writes_what_does_not_run_is_told_apart_from_a_wrong_answer(
    iris: Flowers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert_badly(*arguments: Any) -> Any:
        model = convert(*arguments)
        model.graph.node[0].op_type = "NoSuchOperator"
        return model

    monkeypatch.setattr("tritium.exporters._sklearn.convert", convert_badly)
    model = logistic().fit(iris.train, iris.train_kinds)
    with pytest.raises(ConversionError, match="LogisticRegression writes a model that does not run"):
        export_sklearn(model, iris.held_out, name="iris", repository=tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_the_opset_asked_for_is_the_one_written(iris: Flowers, tmp_path: Path) -> None:
    model = logistic().fit(iris.train, iris.train_kinds)
    published = export_sklearn(model, iris.held_out, name="iris", repository=tmp_path, opset=18)
    assert Manifest.load(published.folder).opset == 18


@pytest.mark.parametrize("opset", [9, 99])
def test_an_opset_that_nobody_writes_is_refused(iris: Flowers, tmp_path: Path, opset: int) -> None:
    model = logistic().fit(iris.train, iris.train_kinds)
    with pytest.raises(InputError, match=f"'opset' parameter must be from 18 to .* got {opset}"):
        export_sklearn(model, iris.held_out, name="iris", repository=tmp_path, opset=opset)


def test_outputs_can_have_other_names_when_only_converting(iris: Flowers) -> None:
    model = sklearn_to_onnx(PCA(2).fit(iris.train), {"lengths": iris.train}, ["embedded"])
    assert [item.name for item in (*model.graph.input, *model.graph.output)] == ["lengths", "embedded"]
    with pytest.raises(InputError, match="must name all of"):
        sklearn_to_onnx(PCA(2).fit(iris.train), {"lengths": iris.train}, ["a", "b"])


@pytest.fixture
def wrong_conversion(iris: Flowers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A converter that writes another model than the one it was given."""
    another = DecisionTreeClassifier(max_depth=1).fit(iris.train, iris.train_kinds)

    def convert_another(_estimator: Any, *arguments: Any) -> Any:
        return convert(another, *arguments)

    monkeypatch.setattr("tritium.exporters._sklearn.convert", convert_another)


@pytest.mark.usefixtures("wrong_conversion")
def test_a_wrong_conversion_is_never_published(iris: Flowers, tmp_path: Path) -> None:
    model = logistic().fit(iris.train, iris.train_kinds)
    with pytest.raises(
        ParityError, match=r"'iris' does not answer as the framework does.*Nothing was published"
    ) as caught:
        export_sklearn(model, iris.held_out, name="iris", repository=tmp_path / "models")
    differences = {difference.output: difference for difference in caught.value.differences}
    assert differences.keys() == {"label", "probabilities"}
    assert differences["label"].agreement < 1
    assert (differences["probabilities"].max_abs or 0) > 1e-4
    assert not (tmp_path / "models").exists()


def test_a_wrong_conversion_leaves_the_versions_before_it_as_they_were(
    iris: Flowers, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model = logistic().fit(iris.train, iris.train_kinds)
    export_sklearn(model, iris.held_out, name="iris", repository=tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    request.getfixturevalue("wrong_conversion")
    with pytest.raises(ParityError):
        export_sklearn(model, iris.held_out, name="iris", repository=tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_wider_tolerance_excuses_numbers_but_no_label(
    iris: Flowers, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("wrong_conversion")
    model = logistic().fit(iris.train, iris.train_kinds)
    with pytest.raises(ParityError) as caught:
        export_sklearn(model, iris.held_out, name="iris", repository=tmp_path, tolerance=Tolerance(atol=0.95))
    assert [difference.output for difference in caught.value.differences if not difference.ok] == ["label"]


def test_a_model_without_batches_is_refused(iris: Flowers, tmp_path: Path) -> None:
    model = logistic().fit(iris.train, iris.train_kinds)
    with pytest.raises(InputError, match="max_batch_size of 1 or more"):
        export_sklearn(
            model, iris.held_out, name="iris", repository=tmp_path / "models", serving=Serving(max_batch_size=0)
        )
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("name", ["", "a/b", "../up", ".hidden", "x" * 65])
def test_a_name_that_cannot_stand_in_a_path_is_refused(iris: Flowers, tmp_path: Path, name: str) -> None:
    model = logistic().fit(iris.train, iris.train_kinds)
    with pytest.raises(InputError, match="model's name"):
        export_sklearn(model, iris.held_out, name=name, repository=tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("labels", [("setosa", "versicolor"), ("a", "b", "c", "d")], ids=["too few", "too many"])
def test_labels_that_are_not_as_many_as_the_classes_are_refused(
    iris: Flowers, tmp_path: Path, labels: tuple[str, ...]
) -> None:
    model = logistic().fit(iris.train, iris.train_kinds)
    with pytest.raises(InputError, match="labels"):
        export_sklearn(model, iris.held_out, name="iris", repository=tmp_path / "models", labels=labels)
    assert not (tmp_path / "models").exists()


def test_a_missing_converter_is_named_with_the_command_that_brings_it(
    iris: Flowers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "skl2onnx", None)
    with pytest.raises(MissingExtraError, match=r"'skl2onnx'.*pip install 'tritium\[exporters\]'"):
        export_sklearn(logistic(), iris.held_out, name="iris", repository=tmp_path / "models")


@pytest.mark.parametrize("dtype", ["uint8", "int32", "bool"])
def test_labels_of_every_kind_of_whole_number_come_out_as_int64(iris: Flowers, dtype: str, tmp_path: Path) -> None:
    labels = (iris.train_kinds == 1 if dtype == "bool" else iris.train_kinds).astype(dtype)
    model = logistic().fit(iris.train, labels)
    published = export_sklearn(model, iris.held_out, name="whole", repository=tmp_path)
    assert dtypes(tmp_path, "whole")["label"] == "INT64"
    got = answers(published, iris.held_out, ["label"])["label"]
    np.testing.assert_array_equal(got, model.predict(iris.held_out).astype(np.int64))


@pytest.mark.parametrize("step", [False, True], ids=["alone", "as a step"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", [BisectingKMeans, KMeans, MiniBatchKMeans])
def test_centres_are_asked_in_the_float_that_they_were_fitted_on(
    iris: Flowers, kind: Any, dtype: Any, step: bool, tmp_path: Path
) -> None:
    model = kind(3, n_init=1, random_state=0)
    model = make_pipeline(StandardScaler(), model, logistic()) if step else model
    model.fit(iris.train.astype(dtype), iris.train_kinds)
    rows = iris.held_out.astype(dtype)
    published = export_sklearn(model, rows, name="centres", repository=tmp_path)
    assert answers(published, iris.held_out, ["label"])["label"].tolist() == model.predict(rows).tolist()
