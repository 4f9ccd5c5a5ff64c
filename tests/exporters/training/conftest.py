"""Real rows that a small module learns in a moment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_iris
from sklearn.preprocessing import StandardScaler

Array = NDArray[Any]


@pytest.fixture(scope="session")
def iris() -> tuple[Array, Array]:
    """Iris: 150 flowers in a fixed random order, four standardised measures each, and their species."""
    measures, species = load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(measures))
    return StandardScaler().fit_transform(measures)[order], species[order]
