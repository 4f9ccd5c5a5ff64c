"""Fits the two models that MLServer's own scikit-learn runtime serves, in the environment that will read them.

`python fit.py FOLDER` leaves `iris/model.pickle`, `petals/model.pickle` and, for every flower, `expected.npz`.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def main(folder: Path) -> None:
    """Fit and write."""
    flowers, kinds = load_iris(return_X_y=True)
    classifier = make_pipeline(StandardScaler(), LogisticRegression()).fit(flowers, kinds)
    regressor = LinearRegression().fit(flowers[:, :2], flowers[:, 2:])
    for name, model in {"iris": classifier, "petals": regressor}.items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "model.pickle").write_bytes(pickle.dumps(model))
    np.savez(
        folder / "expected.npz",
        flowers=flowers,
        kinds=classifier.predict(flowers),
        probabilities=classifier.predict_proba(flowers),
        petals=regressor.predict(flowers[:, :2]),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
