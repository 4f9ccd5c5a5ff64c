"""A support vector machine with calibrated probabilities on MNIST, by skl2onnx."""

from __future__ import annotations

from sklearn.calibration import CalibratedClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.svm import SVC

from tritium.repository import Published, Repository

from .._export import Provenance
from .._sklearn import export_sklearn
from ._digits import LABELS, load
from ._metrics import accuracy, majority_accuracy
from ._registry import Progress

_C = 5.0


def export(repository: Repository, recipe: str, progress: Progress) -> Published:
    """Fit, measure on the held-out digits, publish."""
    digits = load()
    # ensemble=False: one SVM fitted on everything, with its probabilities calibrated by cross-validation.
    model = make_pipeline(MinMaxScaler(), CalibratedClassifierCV(SVC(C=_C), ensemble=False))
    progress("fitting the SVM, and five more for its calibration")
    model.fit(digits.train_pixels, digits.train_labels)
    return export_sklearn(
        model,
        digits.test_pixels,
        name="digits_svm",
        repository=repository,
        input_name="pixels",
        labels=LABELS,
        provenance=Provenance(
            source=__name__,
            data=digits.provenance,
            metrics={"accuracy": accuracy(digits.test_labels, model.predict(digits.test_pixels))},
            baselines={"accuracy": majority_accuracy(digits.train_labels, digits.test_labels)},
            training={"C": _C, "calibration_folds": 5},
            recipe=recipe,
        ),
    )
