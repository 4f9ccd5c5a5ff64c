from __future__ import annotations

from pathlib import Path

import pytest
from sklearn.kernel_ridge import KernelRidge

from .same import WINE, assert_same


@pytest.mark.parametrize("kernel", ["linear", "rbf", "polynomial", "laplacian"])
def test_kernel_ridge_answers_as_it_does(kernel: str, tmp_path: Path) -> None:
    model = KernelRidge(kernel=kernel, gamma=0.1, degree=2, coef0=0.5).fit(WINE[::2, 1:], WINE[::2, 0])
    assert_same(model, WINE[1::2, 1:], tmp_path, {"prediction"}, atol=1e-4)


def test_several_targets_have_a_column_each(tmp_path: Path) -> None:
    model = KernelRidge(kernel="rbf").fit(WINE[::2, 2:], WINE[::2, :2])
    assert_same(model, WINE[1::2, 2:], tmp_path, {"prediction"})
