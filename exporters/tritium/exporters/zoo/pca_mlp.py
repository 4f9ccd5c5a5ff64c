"""PCA to 100 features and a perceptron 100 → 64 → 32 → 10 on MNIST: scikit-learn and torch in one ONNX graph."""

from __future__ import annotations

from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from tritium.repository import Published, Repository

from ._features import export_perceptron_on
from ._registry import Progress


def export(repository: Repository, recipe: str, progress: Progress) -> Published:
    """Train, measure on the held-out digits, publish."""
    return export_perceptron_on(
        make_pipeline(MinMaxScaler(), PCA(100, random_state=0)),
        (100, 64, 32, 10),
        learning_rate=8e-3,
        l2=1e-4,
        name="pca_mlp",
        repository=repository,
        recipe=recipe,
        progress=progress,
    )
