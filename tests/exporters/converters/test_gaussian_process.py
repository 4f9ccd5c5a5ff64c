from __future__ import annotations

from pathlib import Path

import pytest
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import (
    RBF,
    ConstantKernel,
    DotProduct,
    Kernel,
    Matern,
    RationalQuadratic,
    WhiteKernel,
)

from tritium.exporters import ConversionError, export_sklearn

from .same import HELD_OUT, IRIS, KINDS, assert_same

KERNELS = [
    RBF(2.0),
    RBF([1.0, 2.0, 3.0, 4.0]),
    Matern(1.5, nu=0.5),
    Matern(1.5, nu=1.5),
    Matern(1.5, nu=2.5),
    RationalQuadratic(2.0, 0.5),
    0.5 * DotProduct(1.0) + WhiteKernel(0.1),
    ConstantKernel(2.0) * RBF(1.0),
]


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_every_kernel_gives_the_same_probabilities(kernel: Kernel, tmp_path: Path) -> None:
    model = GaussianProcessClassifier(kernel, optimizer=None).fit(IRIS[~HELD_OUT], KINDS[~HELD_OUT])
    assert_same(model, IRIS[HELD_OUT], tmp_path, {"label", "probabilities"})


def test_two_classes_need_one_process(tmp_path: Path) -> None:
    model = GaussianProcessClassifier(RBF(1.0), optimizer=None).fit(IRIS[~HELD_OUT], KINDS[~HELD_OUT] == 1)
    assert_same(model, IRIS[HELD_OUT], tmp_path, {"label", "probabilities"})


def test_a_kernel_without_a_graph_is_refused_with_those_that_have_one(tmp_path: Path) -> None:
    model = GaussianProcessClassifier(RBF(1.0) ** 2, optimizer=None).fit(IRIS, KINDS)
    with pytest.raises(ConversionError, match=r"Exponentiation has no graph; use sums and products of .*'RBF'"):
        export_sklearn(model, IRIS[:9], name="x", repository=tmp_path)
