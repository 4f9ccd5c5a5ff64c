"""A decision tree on breast cancer, its depth chosen by cross-validation, by skl2onnx."""

from __future__ import annotations

from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from tritium.repository import Published, Repository

from .._export import Provenance
from .._sklearn import export_sklearn
from ._metrics import accuracy, majority_accuracy
from ._registry import Progress
from ._tabular import cancer

_DEPTHS = list(range(1, 9))


def export(repository: Repository, recipe: str, progress: Progress) -> Published:
    """Fit, measure on the held-out tumours, publish. A measure that is missing (NaN) is taken for its mean."""
    data = cancer()
    search = GridSearchCV(
        make_pipeline(SimpleImputer(), StandardScaler(), DecisionTreeClassifier(random_state=0)),
        {"decisiontreeclassifier__max_depth": _DEPTHS},
        cv=StratifiedKFold(5, shuffle=True, random_state=0),
    )
    search.fit(data.train, data.train_targets)
    depth = search.best_params_["decisiontreeclassifier__max_depth"]
    progress(f"depth {depth} of 1 to {_DEPTHS[-1]}: accuracy {search.best_score_:.4f} in cross-validation")
    return export_sklearn(
        search.best_estimator_,
        data.held_out,
        name="cancer_tree",
        repository=repository,
        labels=["malignant", "benign"],
        provenance=Provenance(
            source=__name__,
            data=data.provenance,
            metrics={"accuracy": accuracy(data.held_out_targets, search.predict(data.held_out))},
            baselines={"accuracy": majority_accuracy(data.train_targets, data.held_out_targets)},
            training={
                "folds": 5,
                "seed": 0,
                "depth": depth,
                "accuracy_by_depth": dict(
                    zip(map(str, _DEPTHS), search.cv_results_["mean_test_score"].tolist(), strict=True)
                ),
            },
            recipe=recipe,
        ),
    )
