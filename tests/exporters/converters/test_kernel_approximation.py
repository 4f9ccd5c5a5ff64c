from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sklearn.kernel_approximation import (
    AdditiveChi2Sampler,
    Nystroem,
    PolynomialCountSketch,
    RBFSampler,
    SkewedChi2Sampler,
)

from tritium.exporters import ConversionError, export_sklearn

from .same import HELD_OUT, IRIS, WINE, assert_same


@pytest.mark.parametrize("kernel", ["rbf", "linear", "poly", "sigmoid", "laplacian", "cosine"])
def test_nystroem_with_every_kernel_answers_as_it_does(kernel: str, tmp_path: Path) -> None:
    model = Nystroem(kernel=kernel, gamma=0.05, degree=2, n_components=10, random_state=0).fit(WINE[::2])
    assert_same(model, WINE[1::2], tmp_path, {"transformed"})


@pytest.mark.parametrize("kernel", ["chi2", "additive_chi2"])
def test_nystroem_with_a_kernel_of_counts_answers_as_it_does(kernel: str, tmp_path: Path) -> None:
    model = Nystroem(kernel=kernel, n_components=10, random_state=0).fit(IRIS[~HELD_OUT])
    assert_same(model, IRIS[HELD_OUT], tmp_path, {"transformed"}, atol=1e-4)


def test_nystroem_with_a_function_is_refused_with_the_kernels_there_are(tmp_path: Path) -> None:
    model = Nystroem(kernel=lambda a, b: float(a @ b), n_components=5).fit(IRIS)
    with pytest.raises(ConversionError, match=r"has no graph; use one of .*'rbf'"):
        export_sklearn(model, IRIS, name="x", repository=tmp_path)


@pytest.mark.parametrize("sampler", [RBFSampler(gamma=0.1, n_components=9), RBFSampler(gamma="scale", random_state=1)])
def test_random_fourier_features_answer_as_they_do(sampler: Any, tmp_path: Path) -> None:
    assert_same(sampler.fit(WINE[::2]), WINE[1::2], tmp_path, {"transformed"})


@pytest.mark.parametrize(
    "sampler",
    [
        SkewedChi2Sampler(skewedness=0.5, n_components=7),
        AdditiveChi2Sampler(sample_steps=3),
        AdditiveChi2Sampler(sample_steps=1),
    ],
)
def test_samplers_of_counts_answer_as_they_do_also_at_zero(sampler: Any, tmp_path: Path) -> None:
    rows = IRIS[HELD_OUT].copy()
    rows[::5, 0] = 0
    assert_same(sampler.fit(IRIS[~HELD_OUT]), rows, tmp_path, {"transformed"})


@pytest.mark.parametrize(("degree", "coef0"), [(1, 0), (2, 0), (3, 1.5)])
def test_count_sketches_answer_as_they_do(degree: int, coef0: float, tmp_path: Path) -> None:
    sketch = PolynomialCountSketch(gamma=0.3, degree=degree, coef0=coef0, n_components=12, random_state=0)
    assert_same(sketch.fit(WINE[::2]), WINE[1::2], tmp_path, {"transformed"}, atol=1e-4)
