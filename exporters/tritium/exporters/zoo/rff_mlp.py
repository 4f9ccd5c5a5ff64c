"""1000 random Fourier features and a perceptron 1000 → 64 → 64 → 10 on MNIST, in one ONNX graph.

The features are those of A. Rahimi and B. Recht, "Random Features for Large-Scale Kernel Machines" (2007).
"""

from __future__ import annotations

from sklearn.kernel_approximation import RBFSampler
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tritium.repository import Published, Repository

from ._features import export_perceptron_on
from ._registry import Progress


def export(repository: Repository, recipe: str, progress: Progress) -> Published:
    """Train, measure on the held-out digits, publish."""
    return export_perceptron_on(
        # The scale of gamma is that of the pixels; the features come out near 0, too small to learn from quickly.
        make_pipeline(RBFSampler(gamma="scale", n_components=1000, random_state=0), StandardScaler()),
        (1000, 64, 64, 10),
        learning_rate=3e-3,
        l2=1e-3,
        name="rff_mlp",
        repository=repository,
        recipe=recipe,
        progress=progress,
    )
