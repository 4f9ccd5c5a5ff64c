from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, RegressorChain
from sklearn.naive_bayes import GaussianNB

from tritium.exporters import export_sklearn
from tritium.repository import open_artifact

from .same import GROWERS, WINE, assert_same

FLAGS = np.column_stack([GROWERS == 0, WINE[:, 0] > 0, WINE[:, 1] > 0]).astype(np.int64)


@pytest.mark.parametrize("order", [None, [2, 0, 1]])
def test_a_chain_of_regressors_answers_in_the_order_of_its_targets(order: list[int] | None, tmp_path: Path) -> None:
    model = RegressorChain(Ridge(), order=order).fit(WINE[::2, 3:], WINE[::2, :3])
    assert_same(model, WINE[1::2, 3:], tmp_path, {"prediction"})


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_a_chain_of_classifiers_passes_on_what_it_should(method: str, tmp_path: Path) -> None:
    model = ClassifierChain(LogisticRegression(), order=[1, 2, 0], chain_method=method).fit(WINE[::2], FLAGS[::2])
    assert_same(model, WINE[1::2], tmp_path, {"label", "probabilities"})


def test_targets_with_the_same_number_of_classes_share_an_output(tmp_path: Path) -> None:
    model = MultiOutputClassifier(GaussianNB()).fit(WINE[::2], FLAGS[::2])
    published = export_sklearn(model, WINE[1::2], name="flags", repository=tmp_path)
    got = open_artifact(published.folder / "model.onnx", "onnxruntime")(
        {"features": WINE[:5]}, ["label", "probabilities"]
    )
    np.testing.assert_array_equal(got["label"], model.predict(WINE[:5]))
    wanted = np.stack(model.predict_proba(WINE[:5]), axis=1)
    assert wanted.shape == (5, 3, 2)
    np.testing.assert_allclose(got["probabilities"], wanted, atol=1e-5)
