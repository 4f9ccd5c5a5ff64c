"""From a sentence of a movie review to positive or negative: what the three sentiment models of the zoo do alike."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from tritium.repository import Published, Repository

from .._export import Provenance
from .._onnx import export_onnx, join_onnx
from .._torch import torch_to_onnx
from ..text import PADDING, Tokenizer
from ..training import seeded, train
from ._metrics import accuracy, majority_accuracy
from ._registry import Progress
from ._reviews import LABELS, sentiments
from ._threads import one_thread

MAX_LENGTH = 40
_IDS = 6000


def real(token_ids: torch.Tensor) -> torch.Tensor:
    """Which tokens of (rows, length) are words, and not padding."""
    return token_ids != PADDING


def word_embedding(ids: int, size: int) -> nn.Embedding:
    """Vectors for so many token ids; torch's own start from a deviation of 1, from which little is learned here."""
    embedding = nn.Embedding(ids, size, padding_idx=PADDING)
    with torch.no_grad():
        embedding.weight[PADDING + 1 :].normal_(std=0.1)
    return embedding


def last_state(states: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
    """Of (rows, length, size) states of a network that reads from left to right, those at each row's last word.

    What comes behind that word is padding, and has no part in it. A row without a word has its first state.
    """
    last = (real(token_ids).sum(dim=1) - 1).clamp(min=0)
    return states.gather(1, last[:, None, None].expand(-1, 1, states.shape[2])).squeeze(1)


def export_sentiment(
    make: Callable[[int], nn.Module],
    *,
    name: str,
    repository: Repository,
    recipe: str,
    progress: Progress,
) -> Published:
    """Train with Adam on cross-entropy, measure on the held-out sentences, publish tokenizer and network as one graph.

    Args:
        make: the network for so many token ids: from ids of shape (rows, length), padded with 0, to logits.
        name: the model's name.
        repository: where to publish.
        recipe: for the manifest.
        progress: called with lines for people.
    """
    reviews = sentiments(progress)
    tokenizer = Tokenizer.fit(reviews.train_texts, size=_IDS, max_length=MAX_LENGTH)
    with seeded(0):
        network = make(len(tokenizer))
    with one_thread():
        history = train(
            network,
            tokenizer(reviews.train_texts),
            reviews.train_targets,
            loss=nn.functional.cross_entropy,
            learning_rate=1e-3,
            epochs=6,
            validation=0.1,
            patience=2,
            metrics={"accuracy": accuracy},
            progress=progress,
        )
    classifier = nn.Sequential(network, nn.Softmax(dim=1)).eval()
    token_ids = {"token_ids": tokenizer(reviews.test_texts)}
    with torch.inference_mode():
        probabilities = classifier(torch.from_numpy(token_ids["token_ids"])).numpy()
    network_onnx = torch_to_onnx(classifier, token_ids, ["probabilities"], dynamic={"token_ids": {1: "length"}})
    with tempfile.TemporaryDirectory() as folder:
        return export_onnx(
            join_onnx(tokenizer.to_onnx(), network_onnx, {"token_ids": "token_ids"}),
            {"text": reviews.test_texts.reshape(-1, 1)},
            {"probabilities": probabilities},
            name=name,
            repository=repository,
            labels={"probabilities": LABELS},
            files=tokenizer.save(folder) | {"learning_curve.png": history.draw(Path(folder) / "learning_curve.png")},
            provenance=Provenance(
                source=f"{__package__}.{name}",
                data=reviews.provenance,
                metrics={"accuracy": accuracy(reviews.test_targets, probabilities)},
                baselines={"accuracy": majority_accuracy(reviews.train_targets, reviews.test_targets)},
                training=history.to_dict(),
                recipe=recipe,
            ),
            frameworks=("torch", "onnxscript"),
        )
