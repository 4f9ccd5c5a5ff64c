"""Numbers and strings in, a penguin's species out: a ColumnTransformer and gradient boosting, by skl2onnx."""

from __future__ import annotations

from sklearn.compose import make_column_transformer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tritium.repository import Published, Repository

from .._export import Provenance
from .._sklearn import export_sklearn
from ._metrics import accuracy, majority_accuracy
from ._registry import Progress
from ._tabular import penguins

MEASURES = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
STRINGS = ["island", "sex"]
_TREES = 50


def export(repository: Repository, recipe: str, progress: Progress) -> Published:
    """Fit, measure on the held-out birds, publish. A measure may be missing (NaN), and so may a string (empty)."""
    train, held_out, provenance = penguins()
    columns = [*STRINGS, *MEASURES]
    model = make_pipeline(
        make_column_transformer(
            (make_pipeline(SimpleImputer(), StandardScaler()), MEASURES),
            (OneHotEncoder(handle_unknown="ignore", sparse_output=False), STRINGS),
        ),
        GradientBoostingClassifier(n_estimators=_TREES, random_state=0),
    )
    progress(f"fitting {_TREES} trees for each of three species")
    model.fit(train[columns], train["species"])
    truth = held_out["species"].to_numpy()
    return export_sklearn(
        model,
        held_out[columns],
        name="mixed_pipeline",
        repository=repository,
        labels=[str(species) for species in model.classes_],
        provenance=Provenance(
            source=__name__,
            data=provenance | {"columns": columns},
            metrics={"accuracy": accuracy(truth, model.predict(held_out[columns]))},
            baselines={"accuracy": majority_accuracy(train["species"].to_numpy(), truth)},
            training={"seed": 0, "trees": _TREES, "curves": {"loss": model[-1].train_score_.tolist()}},
            recipe=recipe,
        ),
    )
