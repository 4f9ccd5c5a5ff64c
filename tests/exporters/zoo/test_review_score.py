"""The score of a review: scikit-learn's TF-IDF and a network in one graph, from text."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from skl2onnx import to_onnx
from skl2onnx.common.data_types import StringTensorType

from tritium.exporters.zoo._reviews import load
from tritium.exporters.zoo.review_score import vectorizer

from .conftest import Reference


@pytest.fixture
def model(reference: Callable[[str], Reference]) -> Reference:
    return reference("review_score")


def scores(model: Reference, *texts: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    found: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
    found = model(text=np.array(texts, dtype=object).reshape(-1, 1))["score"]
    assert found.shape == (len(texts), 1)
    assert np.isfinite(found).all()
    return found


def test_it_is_clearly_nearer_to_the_held_out_ratings_than_their_mean(model: Reference) -> None:
    data = load()
    error = float(np.sqrt(np.mean((scores(model, *data.test_texts)[:, 0] - data.test_targets) ** 2)))
    assert error == pytest.approx(model.manifest.metrics["rmse"], abs=1e-5)
    mean = float(np.sqrt(np.mean((data.test_targets - data.train_targets.mean()) ** 2)))
    assert mean == pytest.approx(model.manifest.baselines["rmse"], abs=1e-5)
    assert error < 0.85 * mean
    assert model.manifest.metrics["r2"] > 0.3 > model.manifest.baselines["r2"]


def test_it_has_its_layers_and_its_words_lie_beside_it(model: Reference) -> None:
    assert model.layers() == [(1000, 100), (100, 1)]
    words = (model.folder / "vocabulary.txt").read_text(encoding="utf-8").splitlines()
    assert words == vectorizer().fit(load().train_texts).get_feature_names_out().tolist()
    assert len(words) == 1000


def test_scikit_learn_and_the_graph_split_every_sentence_alike() -> None:
    import onnxruntime

    data = load()
    words = vectorizer().fit(data.train_texts)
    graph = to_onnx(words, initial_types=[("text", StringTensorType([None, 1]))], options={id(words): {"locale": "C"}})
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    for texts in (data.train_texts, data.test_texts):
        (given,) = session.run(None, {"text": texts.reshape(-1, 1)})
        np.testing.assert_allclose(given, words.transform(texts).toarray(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("texts", [[""], ["", ""], ["..."], ["日本語 😀"], ["", "fine"]])
def test_texts_without_a_known_word_have_a_score(model: Reference, texts: list[str]) -> None:
    scores(model, *texts)


def test_a_sentence_is_in_any_company_what_it_is_alone(model: Reference) -> None:
    texts = ["", "Dull.", *load().test_texts[:30], "good " * 1000]
    alone = np.concatenate([scores(model, text) for text in texts])
    np.testing.assert_allclose(scores(model, *texts), alone, rtol=0, atol=1e-5)


def test_praise_scores_high_and_blame_low(model: Reference) -> None:
    blame, praise = scores(model, "A dull, boring and pointless mess.", "A moving, funny and beautiful film!")[:, 0]
    assert blame < -1
    assert praise > 1
