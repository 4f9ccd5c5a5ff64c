"""How held-out rows become the inputs of a scikit-learn model: DataFrames, texts, dtypes, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import BernoulliNB, GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from tritium.client import InputError
from tritium.exporters import ConversionError, export_sklearn
from tritium.repository import Manifest, Published, Repository, input_specs, open_artifact

Array = NDArray[Any]
palmerpenguins = pytest.importorskip("palmerpenguins")
MEASURES = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
KINDS = ["island", "sex"]


def _penguins() -> pd.DataFrame:
    frame = palmerpenguins.load_penguins().sample(frac=1, random_state=0).reset_index(drop=True)
    frame["sex"] = frame["sex"].fillna("missing")
    frame["year"] = frame["year"].astype("int64")
    frame["heavy"] = frame["body_mass_g"] > 4200
    return frame


PENGUINS = _penguins()
SPECIES = PENGUINS["species"].to_numpy(dtype=object)
TRAIN, HELD_OUT = PENGUINS[:240], PENGUINS[240:]


def classifier(*steps: Any) -> Any:
    return make_pipeline(*steps, LogisticRegression(max_iter=5000))


def mixed() -> Any:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    return classifier(ColumnTransformer([("n", numbers, MEASURES), ("k", OneHotEncoder(), KINDS)]))


def published(model: Any, columns: list[str], folder: Path, **options: Any) -> Published:
    model.fit(TRAIN[columns], SPECIES[:240])
    return export_sklearn(model, HELD_OUT[columns], name="penguins", repository=folder, **options)


def inputs(folder: Path) -> dict[str, tuple[str, int]]:
    return {spec.name: (spec.dtype, spec.shape[-1]) for spec in input_specs(Repository(folder).config("penguins"))}


def test_numbers_and_text_are_an_input_each_with_the_columns_name(tmp_path: Path) -> None:
    model = mixed()
    done = published(model, MEASURES + KINDS, tmp_path)
    assert inputs(tmp_path) == {
        **dict.fromkeys(MEASURES, ("FP32", 1)),
        **dict.fromkeys(KINDS, ("BYTES", 1)),
    }
    rows = HELD_OUT[MEASURES + KINDS]
    tensors = {name: rows[[name]].to_numpy(dtype=np.float32 if name in MEASURES else object) for name in rows.columns}
    got = open_artifact(done.folder / "model.onnx", "onnxruntime")(tensors, ["label", "probabilities"])
    assert got["label"].tolist() == model.predict(rows).tolist()
    np.testing.assert_allclose(got["probabilities"], model.predict_proba(rows), atol=1e-5)


def test_columns_of_a_group_are_one_input_that_is_split_inside(tmp_path: Path) -> None:
    model = mixed()
    order = MEASURES[::-1]
    done = published(model, MEASURES + KINDS, tmp_path, column_groups={"measures": order, "kinds": KINDS})
    assert inputs(tmp_path) == {"measures": ("FP32", 4), "kinds": ("BYTES", 2)}
    assert Manifest.load(done.folder).data["columns"] == {"measures": order, "kinds": KINDS}
    tensors = {
        "measures": HELD_OUT[order].to_numpy(dtype=np.float32),
        "kinds": HELD_OUT[KINDS].to_numpy(dtype=object),
    }
    got = open_artifact(done.folder / "model.onnx", "onnxruntime")(tensors, ["label"])
    assert got["label"].tolist() == model.predict(HELD_OUT[MEASURES + KINDS]).tolist()


def test_columns_of_floats_are_one_matrix_whose_columns_the_manifest_names(tmp_path: Path) -> None:
    done = published(classifier(SimpleImputer(), StandardScaler()), MEASURES, tmp_path)
    assert inputs(tmp_path) == {"features": ("FP32", 4)}
    assert Manifest.load(done.folder).data["columns"] == {"features": MEASURES}


def test_floats_and_whole_numbers_keep_their_dtypes_and_meet_inside(tmp_path: Path) -> None:
    published(classifier(SimpleImputer(), StandardScaler()), [*MEASURES, "year"], tmp_path)
    assert inputs(tmp_path) == {**dict.fromkeys(MEASURES, ("FP32", 1)), "year": ("INT64", 1)}


def test_a_group_leaves_the_order_of_the_other_columns(tmp_path: Path) -> None:
    groups = {"bill": ["bill_depth_mm", "bill_length_mm"]}
    published(classifier(SimpleImputer(), StandardScaler()), [*MEASURES, "year"], tmp_path, column_groups=groups)
    assert inputs(tmp_path)["bill"] == ("FP32", 2)


def test_booleans_and_whole_numbers_are_categories_and_numbers_alike(tmp_path: Path) -> None:
    # Scaled, because whether the fit converges without depends on the processor.
    measures = make_pipeline(SimpleImputer(), StandardScaler())
    step = ColumnTransformer(
        [("n", measures, MEASURES), ("b", "passthrough", ["heavy"]), ("y", OneHotEncoder(), ["year"])]
    )
    published(classifier(step), [*MEASURES, "heavy", "year"], tmp_path)
    assert (inputs(tmp_path)["heavy"], inputs(tmp_path)["year"]) == (("BOOL", 1), ("INT64", 1))


@pytest.mark.parametrize(
    "step",
    [
        make_column_transformer(
            (make_pipeline(SimpleImputer(), StandardScaler()), make_column_selector(dtype_include=np.number)),
            (OneHotEncoder(), make_column_selector(dtype_exclude=np.number)),
        ),
        make_column_transformer((OneHotEncoder(), ["island"]), (OrdinalEncoder(), ["sex"]), remainder=SimpleImputer()),
        make_column_transformer((make_pipeline(SimpleImputer(), StandardScaler()), MEASURES), (OneHotEncoder(), KINDS)),
    ],
    ids=["selectors", "remainder", "names"],
)
def test_columns_may_be_picked_in_any_way(step: Any, tmp_path: Path) -> None:
    published(classifier(step), [*MEASURES, *KINDS, "year"], tmp_path)
    assert len(inputs(tmp_path)) == 7


def test_categories_are_text(tmp_path: Path) -> None:
    train, held_out = (part[KINDS].astype("category") for part in (TRAIN, HELD_OUT))
    model = classifier(OneHotEncoder()).fit(train, SPECIES[:240])
    export_sklearn(model, held_out, name="penguins", repository=tmp_path)
    assert inputs(tmp_path) == dict.fromkeys(KINDS, ("BYTES", 1))


def test_a_matrix_of_text_is_one_input(tmp_path: Path) -> None:
    rows = PENGUINS[KINDS].to_numpy(dtype=object)
    model = classifier(OneHotEncoder()).fit(rows[:240], SPECIES[:240])
    export_sklearn(model, rows[240:], name="penguins", repository=tmp_path)
    assert inputs(tmp_path) == {"features": ("BYTES", 2)}


def test_texts_are_one_string_a_row_alone_and_beside_numbers(tmp_path: Path) -> None:
    texts = [f"{island} {sex} bird" for island, sex in zip(PENGUINS["island"], PENGUINS["sex"], strict=True)]
    model = classifier(TfidfVectorizer()).fit(texts[:240], SPECIES[:240])
    export_sklearn(model, texts[240:], name="penguins", repository=tmp_path / "alone", input_name="text")
    assert inputs(tmp_path / "alone") == {"text": ("BYTES", 1)}
    frame = pd.DataFrame({"text": texts, "mass": PENGUINS["body_mass_g"].fillna(0)})
    model = classifier(make_column_transformer((TfidfVectorizer(), "text"), (StandardScaler(), ["mass"])))
    model.fit(frame[:240], SPECIES[:240])
    export_sklearn(model, frame[240:], name="penguins", repository=tmp_path / "beside")
    assert inputs(tmp_path / "beside") == {"text": ("BYTES", 1), "mass": ("FP32", 1)}


@pytest.mark.parametrize(("dtype", "tensor"), [("uint8", "INT64"), ("bool", "BOOL"), ("float64", "FP32")])
def test_an_array_keeps_its_kind_of_number(dtype: str, tensor: str, tmp_path: Path) -> None:
    rows = (np.random.default_rng(0).random((300, 5)) > 0.5).astype(dtype)
    model = BernoulliNB().fit(rows[:240], SPECIES[:240])
    export_sklearn(model, rows[240:], name="penguins", repository=tmp_path)
    assert inputs(tmp_path) == {"features": (tensor, 5)}


WHOLE = PENGUINS[MEASURES].fillna(0).to_numpy(dtype=np.float32)


def bayes() -> Any:
    return GaussianNB().fit(WHOLE[:240], SPECIES[:240])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (csr_array(WHOLE), r"must be dense.*toarray\(\)"),
        (WHOLE[:0], "must be at least one"),
        (WHOLE[0], r"must have the shape \(rows, 4\), got \(4,\) instead; one row is"),
        (WHOLE[:9, :3], "fitted on 4 features, and the held-out rows have 3"),
        (np.where(WHOLE[:9] > 0, WHOLE[:9], np.nan) * np.nan, "does not take the held-out rows: .*NaN"),
        (WHOLE[:9].astype(object), "must be numbers or text.*Give each column one type"),
        (np.full((3, 4), 1e60), r"must fit into float32, got 1e\+60"),
        (np.full((3, 4), 2**64 - 1, np.uint64), r"must fit into int64, which ends at \d+, got 18446744073709551615"),
        ([{"a": 1.0}], "got dict rows instead, which no tensor holds"),
        (3.5, "must be at least one"),
    ],
    ids=[
        "sparse",
        "no rows",
        "one row",
        "too few",
        "missing",
        "objects",
        "too large",
        "too large for int64",
        "records",
        "scalar",
    ],
)
def test_rows_that_no_request_could_carry_are_refused(rows: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        export_sklearn(bayes(), rows, name="penguins", repository=tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_missing_text_is_refused_with_the_way_to_name_it(tmp_path: Path) -> None:
    model = mixed().fit(TRAIN[MEASURES + KINDS], SPECIES[:240])
    rows = HELD_OUT[MEASURES + KINDS].copy()
    rows.loc[rows.index[3], "sex"] = None
    with pytest.raises(InputError, match=r"The column 'sex' must be numbers or text.*fill it with a word"):
        export_sklearn(model, rows, name="penguins", repository=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[rows.columns[::-1]], "was fitted on the columns"),
        (lambda rows: rows[:0], "at least one"),
        (lambda rows: rows.set_axis(["x"] * len(rows.columns), axis=1), "names of their own"),
    ],
    ids=["another order", "no rows", "one name"],
)
def test_columns_other_than_the_fitted_ones_are_refused(change: Any, message: str, tmp_path: Path) -> None:
    model = mixed().fit(TRAIN[MEASURES + KINDS], SPECIES[:240])
    with pytest.raises(InputError, match=message):
        export_sklearn(model, change(HELD_OUT[MEASURES + KINDS]), name="penguins", repository=tmp_path)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"a": ["wing"]}, "names the column 'wing'; there are"),
        ({"a": ["sex"], "b": ["sex"]}, "must name each column once"),
        ({"sex": ["island"]}, "must have a name that no column has"),
        ({"a": ["sex", "body_mass_g"]}, "must have one dtype"),
    ],
)
def test_groups_that_make_no_input_are_refused(groups: Any, message: str, tmp_path: Path) -> None:
    model = mixed().fit(TRAIN[MEASURES + KINDS], SPECIES[:240])
    with pytest.raises(InputError, match=message):
        export_sklearn(model, HELD_OUT[MEASURES + KINDS], name="penguins", repository=tmp_path, column_groups=groups)


def test_groups_without_names_of_columns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs held-out rows as a DataFrame"):
        export_sklearn(bayes(), WHOLE, name="penguins", repository=tmp_path, column_groups={"a": ["b"]})


def test_a_column_with_the_name_of_an_output_is_refused(tmp_path: Path) -> None:
    frame = HELD_OUT[[*MEASURES, "year"]].fillna(0).rename(columns={"year": "label"})
    model = make_pipeline(StandardScaler(), GaussianNB()).fit(frame, SPECIES[240:])
    with pytest.raises(InputError, match="'label' has the name of an output; rename that column"):
        export_sklearn(model, frame, name="penguins", repository=tmp_path)


def test_text_and_numbers_at_once_need_a_column_transformer(tmp_path: Path) -> None:
    train, held_out = (part[MEASURES + KINDS].astype(dict.fromkeys(KINDS, "category")) for part in (TRAIN, HELD_OUT))
    model = HistGradientBoostingClassifier(max_iter=3, categorical_features="from_dtype").fit(train, SPECIES[:240])
    with pytest.raises(ConversionError, match="text and numbers at once; put a ColumnTransformer before it"):
        export_sklearn(model, held_out, name="penguins", repository=tmp_path)


@pytest.mark.parametrize("large", [2**24 + 1, -(2**24) - 1, 2**53 + 1, 2**63 - 1])
def test_whole_numbers_that_would_change_beside_floats_are_refused_by_name(large: int, tmp_path: Path) -> None:
    frame = HELD_OUT[["bill_length_mm", "year"]].fillna(0).reset_index(drop=True)
    model = GaussianNB().fit(frame, SPECIES[240:])
    export_sklearn(model, frame, name="penguins", repository=tmp_path / "small")
    frame.loc[3, "year"] = large
    with pytest.raises(InputError, match=f"The column 'year' has whole numbers beside .*: {large} becomes"):
        export_sklearn(model, frame, name="penguins", repository=tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    "estimator", [GaussianNB(), make_pipeline(StandardScaler(), DecisionTreeClassifier())], ids=str
)
def test_an_estimator_that_was_not_fitted_is_refused(estimator: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not fitted; call its fit"):
        export_sklearn(estimator, WHOLE, name="penguins", repository=tmp_path)


@pytest.mark.parametrize("thing", [GaussianNB, None, "a model"], ids=repr)
def test_what_is_no_estimator_is_refused(thing: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape("must be a fitted scikit-learn estimator or Pipeline")):
        export_sklearn(thing, WHOLE, name="penguins", repository=tmp_path)
