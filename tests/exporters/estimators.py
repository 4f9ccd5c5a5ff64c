"""Every estimator of scikit-learn: how each is made, and the real data that it is fitted on.

`python -m tests.exporters.estimators --write docs/sklearn.md` exports all of them and writes the table of what became
of each.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import __version__ as sklearn_version
from sklearn import datasets
from sklearn.base import is_regressor
from sklearn.experimental import enable_halving_search_cv, enable_iterative_imputer  # noqa: F401
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils import all_estimators
from threadpoolctl import threadpool_limits

from tritium.client import InputError
from tritium.exporters import ConversionError, export_sklearn
from tritium.repository import Published, Serving

Array = NDArray[Any]
HELD_OUT = 40


@dataclass(frozen=True)
class Data:
    """Rows to fit on with their targets, and rows held out."""

    train: Any
    targets: Any
    held_out: Any


def _split(rows: Any, targets: Any, most: int = 200) -> Data:
    train, held_out, fitted, _ = train_test_split(rows, targets, test_size=HELD_OUT, random_state=0)
    return Data(train[:most], fitted[:most], held_out)


def _scaled(load: Callable[..., Any]) -> Data:
    rows, targets = load(return_X_y=True)
    return _split(StandardScaler().fit_transform(rows), targets)


def _raw(load: Callable[..., Any]) -> Data:
    rows, targets = load(return_X_y=True)
    return _split(rows, targets)


def _shades() -> Data:
    """Digits with pixels from 0 to 1."""
    rows, targets = datasets.load_digits(return_X_y=True)
    return _split(rows / 16, targets)


def _tens() -> Data:
    """Iris in tenths of a centimetre: whole numbers."""
    rows, targets = datasets.load_iris(return_X_y=True)
    return _split(np.round(rows * 10), targets)


def _small_counts() -> Data:
    """Iris in whole centimetres: few categories in each column, each of them seen."""
    rows, targets = datasets.load_iris(return_X_y=True)
    data = _split(np.round(rows), targets)
    seen = [np.isin(data.held_out[:, i], data.train[:, i]) for i in range(rows.shape[1])]
    return Data(data.train, data.targets, data.held_out[np.all(seen, axis=0)])


def _missing() -> Data:
    data = _scaled(datasets.load_wine)
    generator = np.random.default_rng(0)
    train, held_out = data.train.copy(), data.held_out.copy()
    for rows in (train, held_out):
        rows[generator.random(rows.shape) < 0.1] = np.nan
    return Data(train, data.targets, held_out)


def _several_classes() -> Data:
    data = _scaled(datasets.load_wine)
    return Data(data.train, np.column_stack([data.targets, data.train[:, 0] > 0]).astype(np.int64), data.held_out)


def _two_flags() -> Data:
    data = _scaled(datasets.load_wine)
    return Data(data.train, np.column_stack([data.targets == 0, data.train[:, 0] > 0]).astype(np.int64), data.held_out)


def _several_numbers() -> Data:
    rows, targets = datasets.load_diabetes(return_X_y=True)
    return _split(rows * 20, np.column_stack([targets / 100, rows[:, 2] * 20 + targets / 100]))


def _texts() -> Data:
    """Descriptions that come with scikit-learn's own data sets, a sentence a row."""
    loads = (datasets.load_iris, datasets.load_wine, datasets.load_diabetes, datasets.load_breast_cancer)
    lines = [(line.strip(), kind) for kind, load in enumerate(loads) for line in load().DESCR.splitlines()]
    kept = [(line, kind) for line, kind in lines if len(line.split()) > 3 and line.isascii()]
    return _split(np.array([line for line, _ in kept], dtype=object), np.array([kind for _, kind in kept]))


def _one_number() -> Data:
    data = _scaled(datasets.load_diabetes)
    return Data(data.train[:, 2], data.targets, data.held_out[:, 2])


def _kinds() -> Data:
    names = np.array(datasets.load_iris().target_names, dtype=object)
    data = _raw(datasets.load_iris)
    return Data(names[data.targets], None, names[np.arange(HELD_OUT) % 3])


def _images() -> Data:
    images = datasets.load_digits().images[:100]
    return Data(images[:60], np.zeros(60), images[60:])


def _kernel() -> Data:
    data = _scaled(datasets.load_iris)
    return Data(data.train @ data.train.T, data.targets, data.held_out @ data.train.T)


def _records() -> Data:
    data = _raw(datasets.load_iris)
    names = datasets.load_iris().feature_names

    def records(rows: Array) -> list[dict[str, float]]:
        return [dict(zip(names, map(float, row), strict=True)) for row in rows]

    return Data(records(data.train), data.targets, records(data.held_out))


def _tags() -> Data:
    data = _kinds()
    return Data([[kind, "flower"] for kind in data.train], None, [[kind] for kind in data.held_out])


def _one_class() -> Data:
    data = _scaled(datasets.load_wine)
    return Data(data.train[data.targets < 2], data.targets[data.targets < 2], data.held_out)


DATA: Mapping[str, Callable[[], Data]] = {
    "iris": partial(_raw, datasets.load_iris),
    "wine": partial(_scaled, datasets.load_wine),
    "breast cancer": partial(_scaled, datasets.load_breast_cancer),
    "diabetes": partial(_scaled, datasets.load_diabetes),
    "digits": _shades,
    "iris in millimetres": _tens,
    "iris in whole centimetres": _small_counts,
    "wine with values missing": _missing,
    "wine, two targets": _several_classes,
    "wine, two yes or no": _two_flags,
    "diabetes, two targets": _several_numbers,
    "descriptions of data sets": _texts,
    "diabetes, one column": _one_number,
    "names of irises": _kinds,
    "digits as images": _images,
    "kernel of iris": _kernel,
    "iris as records": _records,
    "irises with tags": _tags,
    "wine of two growers": _one_class,
}


@dataclass(frozen=True)
class Subject:
    """How an estimator is made and which data it gets."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    data: str = ""


def logistic() -> Any:
    return LogisticRegression(max_iter=1000)


def few(**others: Any) -> Subject:
    """Few trees are enough to see whether they are converted."""
    return Subject({"n_estimators": 10, "random_state": 0, **others})


SUBJECTS: Mapping[str, Subject] = {
    "AdaBoostClassifier": few(),
    "AdaBoostRegressor": few(),
    "AdditiveChi2Sampler": Subject(data="iris"),
    "BaggingClassifier": few(),
    "BaggingRegressor": few(),
    "BayesianGaussianMixture": Subject({"n_components": 3, "random_state": 0}),
    "BernoulliRBM": Subject({"n_components": 8, "random_state": 0}, "digits"),
    "Birch": Subject({"n_clusters": 3}),
    "BisectingKMeans": Subject({"n_clusters": 4, "random_state": 0}),
    "CategoricalNB": Subject(data="iris in whole centimetres"),
    "CalibratedClassifierCV": Subject({"estimator": LinearSVC(random_state=0), "cv": 3}),
    "ClassicalMDS": Subject({"n_components": 2}),
    "ClassifierChain": Subject({"estimator": logistic()}, "wine, two yes or no"),
    "ColumnTransformer": Subject(
        {"transformers": [("scaled", StandardScaler(), [0, 1]), ("bounded", MinMaxScaler(), [2, 3])]}
    ),
    "ComplementNB": Subject(data="iris"),
    "CCA": Subject({"n_components": 1}, "diabetes, two targets"),
    "CountVectorizer": Subject(data="descriptions of data sets"),
    "DictionaryLearning": Subject({"n_components": 4, "max_iter": 5, "random_state": 0}),
    "DictVectorizer": Subject(data="iris as records"),
    "ExtraTreesClassifier": few(),
    "ExtraTreesRegressor": few(),
    "FeatureAgglomeration": Subject({"n_clusters": 3}),
    "FeatureHasher": Subject({"n_features": 8}, "iris as records"),
    "FeatureUnion": Subject({"transformer_list": [("scaled", StandardScaler()), ("bounded", MinMaxScaler())]}),
    "FixedThresholdClassifier": Subject({"estimator": logistic(), "threshold": 0.3}, "breast cancer"),
    "FunctionTransformer": Subject({"func": np.log1p}, "iris"),
    "GaussianMixture": Subject({"n_components": 3, "random_state": 0}),
    "GaussianRandomProjection": Subject({"n_components": 4, "random_state": 0}),
    "GradientBoostingClassifier": few(),
    "GradientBoostingRegressor": few(),
    "HalvingGridSearchCV": Subject({"estimator": logistic(), "param_grid": {"C": [0.1, 1.0]}, "cv": 3}),
    "HalvingRandomSearchCV": Subject(
        {"estimator": logistic(), "param_distributions": {"C": [0.1, 1.0]}, "cv": 3, "random_state": 0}
    ),
    "GridSearchCV": Subject({"estimator": logistic(), "param_grid": {"C": [0.1, 1.0]}, "cv": 3}),
    "HashingVectorizer": Subject({"n_features": 64}, "descriptions of data sets"),
    "HistGradientBoostingClassifier": Subject({"max_iter": 10}),
    "HistGradientBoostingRegressor": Subject({"max_iter": 10}),
    "IsolationForest": few(),
    "IsotonicRegression": Subject({"out_of_bounds": "clip"}, "diabetes, one column"),
    "IncrementalPCA": Subject({"n_components": 4}),
    "IterativeImputer": Subject({"max_iter": 3, "random_state": 0}, "wine with values missing"),
    "KBinsDiscretizer": Subject({"n_bins": 4, "quantile_method": "averaged_inverted_cdf"}),
    "KernelCenterer": Subject(data="kernel of iris"),
    "KernelPCA": Subject({"n_components": 3, "kernel": "rbf"}),
    "KernelRidge": Subject({"kernel": "rbf"}),
    "KMeans": Subject({"n_clusters": 3, "n_init": 1, "random_state": 0}),
    "KNNImputer": Subject(data="wine with values missing"),
    "LabelBinarizer": Subject(data="names of irises"),
    "LabelEncoder": Subject(data="names of irises"),
    "LatentDirichletAllocation": Subject({"n_components": 3, "max_iter": 3, "random_state": 0}, "iris in millimetres"),
    "LabelPropagation": Subject(data="iris"),
    "LabelSpreading": Subject(data="iris"),
    "LinearSVC": Subject({"random_state": 0}),
    "LocalOutlierFactor": Subject({"novelty": True}),
    "MiniBatchDictionaryLearning": Subject({"n_components": 4, "max_iter": 5, "random_state": 0}),
    "MiniBatchKMeans": Subject({"n_clusters": 3, "n_init": 1, "random_state": 0}),
    "MiniBatchNMF": Subject({"n_components": 3, "max_iter": 20, "random_state": 0}, "iris"),
    "MiniBatchSparsePCA": Subject({"n_components": 3, "max_iter": 5, "random_state": 0}),
    "MissingIndicator": Subject({"features": "all"}, "wine with values missing"),
    "MLPClassifier": Subject({"hidden_layer_sizes": (8,), "random_state": 0, "max_iter": 1000}),
    "MLPRegressor": Subject({"hidden_layer_sizes": (8,), "random_state": 0, "max_iter": 20}),
    "MultiLabelBinarizer": Subject(data="irises with tags"),
    "MultiOutputClassifier": Subject({"estimator": logistic()}, "wine, two targets"),
    "MultiOutputRegressor": Subject({"estimator": Ridge()}, "diabetes, two targets"),
    "MultiTaskElasticNet": Subject(data="diabetes, two targets"),
    "MultiTaskElasticNetCV": Subject({"cv": 3}, "diabetes, two targets"),
    "MultiTaskLasso": Subject(data="diabetes, two targets"),
    "MultiTaskLassoCV": Subject({"cv": 3}, "diabetes, two targets"),
    "MultinomialNB": Subject(data="iris"),
    "NMF": Subject({"n_components": 3, "random_state": 0, "init": "nndsvda"}, "iris"),
    "NuSVC": Subject({"nu": 0.1}),
    "Nystroem": Subject({"n_components": 20, "random_state": 0}),
    "OneVsOneClassifier": Subject({"estimator": logistic()}),
    "OneVsRestClassifier": Subject({"estimator": logistic()}),
    "OrthogonalMatchingPursuit": Subject({"n_nonzero_coefs": 4}),
    "OutputCodeClassifier": Subject({"estimator": logistic(), "random_state": 0}),
    "PatchExtractor": Subject({"patch_size": (2, 2)}, "digits as images"),
    "PCA": Subject({"n_components": 4}),
    "Pipeline": Subject({"steps": [("scaled", StandardScaler()), ("model", logistic())]}),
    "PLSCanonical": Subject({"n_components": 1}, "diabetes, two targets"),
    "PLSRegression": Subject(data="diabetes, two targets"),
    "PLSSVD": Subject({"n_components": 1}, "diabetes, two targets"),
    "PolynomialCountSketch": Subject({"n_components": 16, "random_state": 0}),
    "QuantileTransformer": Subject({"n_quantiles": 50}, "iris in millimetres"),
    "RadiusNeighborsClassifier": Subject({"radius": 3.0, "outlier_label": "most_frequent"}),
    "RadiusNeighborsRegressor": Subject({"radius": 5.0}),
    "RandomForestClassifier": few(),
    "RandomForestRegressor": few(),
    "RandomizedSearchCV": Subject(
        {"estimator": logistic(), "param_distributions": {"C": [0.1, 1.0]}, "n_iter": 2, "cv": 3, "random_state": 0}
    ),
    "RandomTreesEmbedding": few(),
    "RANSACRegressor": Subject({"random_state": 0}),
    "RBFSampler": Subject({"n_components": 20, "random_state": 0}),
    "RegressorChain": Subject({"estimator": Ridge()}, "diabetes, two targets"),
    "RFE": Subject({"estimator": logistic(), "n_features_to_select": 4, "step": 4}),
    "RFECV": Subject({"estimator": logistic(), "step": 4, "cv": 3}),
    "SelectFdr": Subject({"alpha": 0.01}),
    "SelectFromModel": Subject({"estimator": logistic()}),
    "SelectKBest": Subject({"k": 4}),
    "SelfTrainingClassifier": Subject({"estimator": logistic()}),
    "SequentialFeatureSelector": Subject({"estimator": GaussianNB(), "n_features_to_select": 2, "cv": 2}),
    "SkewedChi2Sampler": Subject({"n_components": 20, "random_state": 0}, "iris"),
    "SparseCoder": Subject({"dictionary": np.eye(13)[:6], "transform_algorithm": "threshold", "transform_alpha": 0.1}),
    "SparsePCA": Subject({"n_components": 3, "max_iter": 5, "random_state": 0}),
    "SparseRandomProjection": Subject({"n_components": 4, "random_state": 0}),
    "SpectralBiclustering": Subject({"n_clusters": 2, "random_state": 0}, "iris"),
    "SpectralClustering": Subject({"n_clusters": 3, "random_state": 0}),
    "SpectralCoclustering": Subject({"n_clusters": 2, "random_state": 0}, "iris"),
    "StackingClassifier": Subject(
        {"estimators": [("linear", logistic()), ("bayes", GaussianNB())], "final_estimator": logistic(), "cv": 3}
    ),
    "StackingRegressor": Subject(
        {"estimators": [("linear", LinearRegression()), ("ridge", Ridge())], "final_estimator": Ridge(), "cv": 3}
    ),
    "TargetEncoder": Subject({"random_state": 0, "cv": 3}, "iris in whole centimetres"),
    "TfidfTransformer": Subject(data="iris in millimetres"),
    "TfidfVectorizer": Subject(data="descriptions of data sets"),
    "TheilSenRegressor": Subject({"random_state": 0, "max_subpopulation": 100}),
    "TransformedTargetRegressor": Subject({"regressor": Ridge(), "func": np.log1p, "inverse_func": np.expm1}),
    "TruncatedSVD": Subject({"n_components": 4}),
    "TSNE": Subject({"perplexity": 10, "max_iter": 250}),
    "TunedThresholdClassifierCV": Subject({"estimator": logistic(), "cv": 3}, "breast cancer"),
    "VotingClassifier": Subject({"estimators": [("linear", logistic()), ("bayes", GaussianNB())], "voting": "soft"}),
    "VotingRegressor": Subject({"estimators": [("linear", LinearRegression()), ("ridge", Ridge())]}),
    "OneHotEncoder": Subject(data="iris in whole centimetres"),
    "OrdinalEncoder": Subject(data="iris in whole centimetres"),
    "SimpleImputer": Subject(data="wine with values missing"),
    "BernoulliNB": Subject(),
    "GammaRegressor": Subject(data="diabetes"),
    "SpectralEmbedding": Subject({"random_state": 0}),
    "MDS": Subject({"random_state": 0, "n_init": 1, "max_iter": 10, "init": "random"}),
    "AffinityPropagation": Subject({"random_state": 0}),
    "EllipticEnvelope": Subject({"random_state": 0}),
    "MinCovDet": Subject({"random_state": 0}),
    "HDBSCAN": Subject({"copy": True}),
}


@cache
def data_of(name: str) -> Data:
    """A data set, by its name in the table."""
    return DATA[name]()


def subject_of(name: str) -> tuple[Any, str]:
    """An estimator that is not fitted yet, and the name of its data."""
    estimator_class = dict(all_estimators())[name]
    subject = SUBJECTS.get(name, Subject())
    with _quiet():
        if name == "FrozenEstimator":
            estimator = estimator_class(logistic().fit(data_of("wine").train, data_of("wine").targets))
        else:
            estimator = estimator_class(**subject.arguments)
    return estimator, subject.data or ("diabetes" if is_regressor(estimator) else "wine")


def names() -> list[str]:
    """Every public estimator of scikit-learn."""
    return [name for name, _ in all_estimators()]


def fitted(name: str) -> tuple[Any, Data]:
    """An estimator, fitted on real data, and the data."""
    estimator, data_name = subject_of(name)
    data = data_of(data_name)
    with _quiet():
        estimator = estimator.fit(data.train) if data.targets is None else estimator.fit(data.train, data.targets)
    return estimator, data


def export(name: str, repository: Path) -> Published:
    """Fit and export an estimator as a user would."""
    estimator, data = fitted(name)
    return export_sklearn(
        estimator, data.held_out, name=name, repository=repository, serving=Serving(max_batch_size=16)
    )


@dataclass(frozen=True)
class Outcome:
    """What became of an estimator: `refusal` is empty if its model was verified and published."""

    name: str
    data: str
    measured: str = ""
    refusal: str = ""


def outcome(name: str, repository: Path) -> Outcome:
    """Export an estimator; anything but a refusal that says why is an error."""
    data = subject_of(name)[1]
    try:
        published = export(name, repository)
    except (ConversionError, InputError) as exc:
        return Outcome(name, data, refusal=str(exc).splitlines()[0])
    return Outcome(name, data, measured="; ".join(map(str, published.differences)))


def page(outcomes: Sequence[Outcome]) -> str:
    """The document of what can be exported."""
    verified = [item for item in outcomes if not item.refusal]
    refused = [item for item in outcomes if item.refusal]
    head = _HEAD.format(all=len(outcomes), verified=len(verified), refused=len(refused), version=sklearn_version)
    rows = [
        # A bar would end the cell.
        *(f"| {item.name} | {item.data} | {item.measured.replace('max |Δ|', 'max Δ')} |" for item in verified),
        "",
        "## Refused",
        "",
        "| estimator | why, and what to do |",
        "| --- | --- |",
        *(f"| {item.name} | {item.refusal} |" for item in refused),
    ]
    return head + "\n".join(rows) + "\n"


_HEAD = """# scikit-learn estimators as models

Every estimator of scikit-learn {version} was given to `export_sklearn`: {verified} of {all} become a model that answers
as the estimator does, and {refused} are refused with the reason. Each was fitted on real data and exported as a user
would; its model answered held-out rows in batches of 1, 2, 7 and 16, floats within 1e-4 and 1e-4 of the value, labels
exactly; where trees, neighbours or bins decide, one row in a hundred may lie on a threshold's other side. Data
are float64, and the estimator had to answer the rows rounded to float32, as a model gets them, as it answers the rows
themselves; where it takes missing values, its model also answered rows with one planted in a column each.

This page is written by `python -m tests.exporters.estimators --write docs/sklearn.md`.

What skl2onnx lacks, or rounds differently, has a converter of ours in `tritium.exporters.converters`. They are
registered under the entry-point group `tritium.sklearn_converters`, as yours would be: see
`exporters/examples/own_sklearn_converter.py`. LightGBM and XGBoost models need the extra `boosting`.

A parameter can make the difference: what only raises, draws at random or iterates until it converges has no graph, and
the error says which value has one. An encoder that raises for a category it never saw, as `OneHotEncoder()` does by
default, makes the model fail for the whole batch; fit it with `handle_unknown="ignore"`.

## Verified

| estimator | data | measured |
| --- | --- | --- |
"""


def main() -> None:
    """Write or print the page."""
    parser = argparse.ArgumentParser(description="Export every estimator of scikit-learn.")
    parser.add_argument("--write", type=Path, help="where the page goes; by default it is printed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = page([outcome(name, Path(folder)) for name in names()])
    if arguments.write:
        arguments.write.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)


@contextmanager
def _quiet() -> Iterator[None]:
    """Whether a fit of few iterations converges does not matter here, nor that an estimator is to be renamed."""
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        yield


if __name__ == "__main__":
    main()
