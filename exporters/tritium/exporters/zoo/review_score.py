"""TF-IDF of the 1000 most frequent words and a network 1000 → 100 → 1 on movie reviews: text in, the score out."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from skl2onnx import to_onnx
from skl2onnx.common.data_types import StringTensorType
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import r2_score
from torch import nn

from tritium.repository import Published, Repository

from .._export import Provenance
from .._onnx import OPSET, export_onnx, join_onnx
from .._torch import torch_to_onnx
from ..training import seeded, train
from ._modules import perceptron
from ._registry import Progress
from ._reviews import load
from ._threads import one_thread


def vectorizer() -> TfidfVectorizer:
    """Words as ONNX Runtime and scikit-learn split them alike: outside A to Z they do not agree on what a word is."""
    pattern = r"[a-zA-Z0-9']+"
    return TfidfVectorizer(max_features=1000, token_pattern=pattern, dtype=np.float32)


def export(repository: Repository, recipe: str, progress: Progress) -> Published:
    """Train, measure on the held-out sentences, publish."""
    reviews = load(progress)
    words = vectorizer().fit(reviews.train_texts)
    features, held_out = (words.transform(texts).toarray() for texts in (reviews.train_texts, reviews.test_texts))
    with seeded(0):
        network = perceptron(1000, 100, 1)
    with one_thread():
        history = train(
            network,
            features,
            reviews.train_targets[:, np.newaxis],
            loss=nn.functional.mse_loss,
            learning_rate=1e-3,
            epochs=8,
            l2=1e-4,
            validation=0.1,
            patience=2,
            progress=progress,
        )
    with torch.inference_mode():
        score = network(torch.from_numpy(held_out)).numpy()
    words_onnx = to_onnx(
        words,
        initial_types=[("text", StringTensorType([None, 1]))],
        final_types=[("tfidf", None)],
        # Else it asks for American English, and does not load on a machine that has not installed that.
        options={TfidfVectorizer: {"locale": "C"}},
        target_opset=OPSET,
    )
    network_onnx = torch_to_onnx(network, {"tfidf": held_out}, ["score"])
    with tempfile.TemporaryDirectory() as folder:
        return export_onnx(
            join_onnx(words_onnx, network_onnx, {"tfidf": "tfidf"}),
            {"text": reviews.test_texts.reshape(-1, 1)},
            {"score": score},
            name="review_score",
            repository=repository,
            files=_vocabulary(words, Path(folder))
            | {"learning_curve.png": history.draw(Path(folder) / "learning_curve.png")},
            provenance=Provenance(
                source=__name__,
                data=reviews.provenance,
                metrics=_metrics(reviews.test_targets, score[:, 0]),
                baselines=_metrics(reviews.test_targets, np.full(len(score), reviews.train_targets.mean())),
                training=history.to_dict(),
                recipe=recipe,
            ),
            frameworks=("scikit-learn", "skl2onnx", "torch", "onnxscript"),
        )


def _metrics(truth: NDArray[np.float32], given: NDArray[np.floating]) -> dict[str, float]:
    return {"rmse": float(np.sqrt(np.mean((truth - given) ** 2))), "r2": float(r2_score(truth, given))}


def _vocabulary(words: TfidfVectorizer, folder: Path) -> dict[str, Path]:
    path = folder / "vocabulary.txt"
    path.write_text("".join(f"{word}\n" for word in words.get_feature_names_out()), encoding="utf-8")
    return {path.name: path}
