"""Whether a converted estimator answers as the estimator itself, asked without the gate of an export."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.preprocessing import StandardScaler

from tritium.exporters import export_sklearn
from tritium.repository import Serving, open_artifact

Array = NDArray[Any]
WINE = StandardScaler().fit_transform(datasets.load_wine().data).astype(np.float32)
GROWERS = datasets.load_wine().target
IRIS = datasets.load_iris().data.astype(np.float32)
KINDS = datasets.load_iris().target
IRISES = np.array(datasets.load_iris().target_names, dtype=object)[KINDS]
# Every third row is held out.
HELD_OUT = np.arange(150) % 3 == 0
METHODS = {
    "label": "predict",
    "prediction": "predict",
    "probabilities": "predict_proba",
    "scores": "decision_function",
    "score": "decision_function",
    "distances": "transform",
    "transformed": "transform",
}


def assert_same(estimator: Any, rows: Any, folder: Path, outputs: set[str], *, atol: float = 2e-5) -> None:
    """Export an estimator, and compare each output with what its method says of the rows."""
    with quiet():
        published = export_sklearn(estimator, rows, name="same", repository=folder, serving=Serving(max_batch_size=8))
    assert {difference.output for difference in published.differences} == outputs
    got = open_artifact(published.folder / "model.onnx", "onnxruntime")({"features": rows}, sorted(outputs))
    for output in outputs:
        with quiet():
            wanted = getattr(estimator, METHODS[output])(rows)
        wanted = np.asarray(wanted.toarray() if hasattr(wanted, "toarray") else wanted)
        if wanted.dtype.kind in "OU":
            assert got[output].tolist() == wanted.tolist()
        else:
            np.testing.assert_allclose(got[output].reshape(wanted.shape), wanted, atol=atol, rtol=2e-5)


@contextmanager
def quiet() -> Iterator[None]:
    """Deprecations inside scikit-learn and its converter are not what is tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
