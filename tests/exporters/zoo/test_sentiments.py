"""The models that tell positive sentences from negative ones: what they are, and that padding is nothing to them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from tritium.exporters.text import Tokenizer
from tritium.exporters.zoo._reviews import sentiments
from tritium.exporters.zoo._sentiment import MAX_LENGTH

from .conftest import Reference

NAMES = ("sentiment_rnn", "sentiment_lstm", "sentiment_transformer")


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest, reference: Callable[[str], Reference]) -> Reference:
    return reference(request.param)


def probabilities(model: Reference, *texts: str) -> NDArray[np.float32]:
    found: NDArray[np.float32] = model(text=np.array(texts, dtype=object).reshape(-1, 1))["probabilities"]
    assert found.shape == (len(texts), 2)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    return found


def test_it_is_far_better_on_the_held_out_sentences_than_always_saying_the_same(model: Reference) -> None:
    data = sentiments()
    reached = float((probabilities(model, *data.test_texts).argmax(axis=1) == data.test_targets).mean())
    assert reached == pytest.approx(model.manifest.metrics["accuracy"], abs=1e-3)
    assert model.manifest.baselines["accuracy"] == pytest.approx(1 - data.test_targets.mean())
    assert reached > model.manifest.baselines["accuracy"] + 0.2


def test_a_sentence_is_in_any_company_what_it_is_alone(model: Reference) -> None:
    texts = ["", "Dull.", *sentiments().test_texts[:60], "good " * 100]
    alone = np.concatenate([probabilities(model, text) for text in texts])
    np.testing.assert_allclose(probabilities(model, *texts), alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("texts", [[""], ["", ""], ["... --"], ["日本語 😀 \0"]])
def test_texts_without_a_known_word_have_an_answer(model: Reference, texts: list[str]) -> None:
    probabilities(model, *texts)


def test_what_comes_after_the_fortieth_word_does_not_count(model: Reference) -> None:
    long = " ".join(["a", "dull", "film"] * 20)
    cut = " ".join(long.split()[:MAX_LENGTH])
    np.testing.assert_array_equal(probabilities(model, long + " great great great"), probabilities(model, cut))
    assert (probabilities(model, " ".join(long.split()[: MAX_LENGTH - 1])) != probabilities(model, cut)).any()


def test_it_tells_praise_from_blame(model: Reference) -> None:
    blame, praise = probabilities(model, "A dull, boring and pointless mess.", "A moving, funny and beautiful film!")
    assert blame[0] > 0.8
    assert praise[1] > 0.8
    labels = (model.folder.parent / "labels.txt").read_text(encoding="utf-8").split()
    assert labels == ["negative", "positive"]


def test_the_tokenizer_of_the_training_sentences_lies_beside_it(model: Reference) -> None:
    texts = sentiments().train_texts
    tokenizer = Tokenizer.load(model.folder)
    assert tokenizer == Tokenizer.fit(texts, size=6000, max_length=MAX_LENGTH)
    (embedding,) = (array for array in model.weights().values() if array.shape[:1] == (len(tokenizer),))
    assert embedding.ndim == 2
    assert model.manifest.files.keys() >= {"vocabulary.txt", "tokenizer.json", "learning_curve.png", "model.onnx"}


def operators(model: Reference, kind: str) -> list[dict[str, object]]:
    return [
        {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        for node in onnx.load(model.artifact).graph.node
        if node.op_type == kind
    ]


def test_the_rnn_is_one_operator_with_the_tangent(reference: Callable[[str], Reference]) -> None:
    (rnn,) = operators(reference("sentiment_rnn"), "RNN")
    assert rnn["hidden_size"] == 64
    assert rnn["activations"] == [b"Tanh"]


def test_the_lstm_has_128_units_and_a_dense_layer_of_128(reference: Callable[[str], Reference]) -> None:
    model = reference("sentiment_lstm")
    (lstm,) = operators(model, "LSTM")
    assert lstm["hidden_size"] == 128
    assert model.layers() == [(128, 128), (128, 2)]


def test_the_transformer_has_two_layers_of_attention(reference: Callable[[str], Reference]) -> None:
    model = reference("sentiment_transformer")
    assert len(operators(model, "Softmax")) == 3  # one of them makes the probabilities
    assert len(operators(model, "LayerNormalization")) == 4
    assert (MAX_LENGTH, 32) in {array.shape for array in model.weights().values()}
