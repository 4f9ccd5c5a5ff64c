"""A support vector machine with calibrated probabilities on MNIST, by skl2onnx."""

from __future__ import annotations

from sklearn.calibration import CalibratedClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.svm import SVC

from tritium.repository import Published, Repository

from .._export import Provenance, export_sklearn
from ._digits import LABELS, accuracy, load
from ._registry import Progress


def export(repository: Repository, recipe: str, progress: Progress) -> Published:
    """Fit, measure on the held-out digits, publish."""
    digits = load()
    # ensemble=False: one SVM fitted on everything, with its probabilities calibrated by cross-validation.
    model = make_pipeline(MinMaxScaler(), CalibratedClassifierCV(SVC(C=5.0), ensemble=False))
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
            metrics={"accuracy": accuracy(model.predict(digits.test_pixels), digits.test_labels)},
            recipe=recipe,
        ),
    )
