"""A transformer of your own, with a converter, as a verified model.

In a package of yours the converter is registered by an entry point, and `export_sklearn` finds it once the package is
installed::

    [project.entry-points."tritium.sklearn_converters"]
    log_ratios = "your_package.converters:CONVERTER"

Here a folder with such metadata on Python's path stands for the installed package.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from tritium.exporters import export_sklearn
from tritium.exporters.converters import Converter, Ops


class LogRatios(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """The logarithm of each column's ratio to the row's mean."""

    def fit(self, rows: Any, _targets: Any = None) -> LogRatios:
        self.n_features_in_ = rows.shape[1]
        return self

    def transform(self, rows: Any) -> Any:
        return np.log(rows / rows.mean(axis=1, keepdims=True))


def log_ratios(_estimator: LogRatios, x: str, ops: Ops) -> str:
    return ops.Log(ops.Div(x, ops.ReduceMean(x, np.array([1]), keepdims=1)))


CONVERTER = Converter(estimator=f"{__name__}.LogRatios", convert=log_ratios)


def main() -> None:
    rows, kinds = load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(rows))
    train, held_out = order[:100], order[100:]
    model = make_pipeline(LogRatios(), LogisticRegression(max_iter=1000)).fit(rows[train], kinds[train])
    with tempfile.TemporaryDirectory() as site, tempfile.TemporaryDirectory() as repository:
        metadata = Path(site) / "log_ratios-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: log-ratios\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[tritium.sklearn_converters]\nlog_ratios = {__name__}:CONVERTER\n")
        sys.path.append(site)
        print(export_sklearn(model, rows[held_out], name="iris", repository=repository))


if __name__ == "__main__":
    main()
