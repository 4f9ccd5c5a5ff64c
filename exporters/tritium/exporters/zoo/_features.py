"""Digits by scikit-learn's features and torch's perceptron, joined in one ONNX graph."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tritium.repository import Published, Repository

from .._export import Provenance
from .._onnx import export_onnx, join_onnx
from .._sklearn import sklearn_to_onnx
from .._torch import torch_to_onnx
from ..training import seeded, train
from ._digits import LABELS, load
from ._metrics import accuracy, majority_accuracy
from ._modules import perceptron
from ._registry import Progress
from ._threads import one_thread


@one_thread()
def export_perceptron_on(
    features: Any,
    sizes: tuple[int, ...],
    *,
    learning_rate: float,
    l2: float,
    name: str,
    repository: Repository,
    recipe: str,
    progress: Progress,
) -> Published:
    """Fit the features, train the perceptron on them, measure on the held-out digits, publish both as one model.

    Args:
        features: a transformer, from pixels to as many features as the first of the sizes.
        sizes: of the perceptron's layers.
        learning_rate: Adam's, at the start.
        l2: the penalty on the weights.
        name: the model's name.
        repository: where to publish.
        recipe: for the manifest.
        progress: called with lines for people.
    """
    digits = load()
    progress(f"fitting {sizes[0]} features")
    rows = features.fit_transform(digits.train_pixels)
    with seeded(0):
        layers = perceptron(*sizes, dropout=0.2)
    history = train(
        layers,
        rows,
        digits.train_labels,
        loss=nn.functional.cross_entropy,
        learning_rate=learning_rate,
        batch_size=32,
        epochs=10,
        l2=l2,
        schedule="cosine",
        validation=0.05,
        metrics={"accuracy": accuracy},
        progress=progress,
    )
    model = nn.Sequential(layers, nn.Softmax(dim=1)).eval()
    held_out = features.transform(digits.test_pixels).astype(np.float32)
    with torch.inference_mode():
        probabilities = model(torch.from_numpy(held_out)).numpy()
    features_onnx = sklearn_to_onnx(features, {"pixels": digits.test_pixels}, ["features"])
    layers_onnx = torch_to_onnx(model, {"features": held_out}, ["probabilities"])
    joined = join_onnx(features_onnx, layers_onnx, {"features": "features"})
    with tempfile.TemporaryDirectory() as folder:
        return export_onnx(
            joined,
            {"pixels": digits.test_pixels},
            {"probabilities": probabilities},
            name=name,
            repository=repository,
            labels={"probabilities": LABELS},
            files={"learning_curve.png": history.draw(Path(folder) / "learning_curve.png")},
            provenance=Provenance(
                source=f"{__package__}.{name}",
                data=digits.provenance,
                metrics={"accuracy": accuracy(digits.test_labels, probabilities)},
                baselines={"accuracy": majority_accuracy(digits.train_labels, digits.test_labels)},
                training=history.to_dict(),
                recipe=recipe,
            ),
            frameworks=("onnxscript", "scikit-learn", "skl2onnx", "torch"),
        )
