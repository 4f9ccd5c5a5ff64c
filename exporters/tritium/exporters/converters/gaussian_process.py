"""Classifiers by Gaussian processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import erf
from typing import Any

import numpy as np

from .._errors import ConversionError
from ._curves import cubic
from ._kernels import squared_distances
from ._ops import Array, Ops
from ._registry import Converter

# The five error functions of Williams and Barber (1998), Appendix A, that stand for the logistic function.
_LAMBDAS = (0.41, 0.4, 0.37, 0.44, 0.39)
_COEFFICIENTS = (-1854.8214151, 3516.89893646, 221.29346712, 128.12323805, -2010.49422654)


def _gaussian_process_classifier(estimator: Any, x: str, ops: Ops) -> list[str]:
    if estimator.n_classes_ == 2:
        mean, probability = _binary(estimator.base_estimator_, x, ops)
        label = ops.Cast(ops.Squeeze(ops.Greater(mean, 0.0), np.array([1])), to=7)
        return [ops.labels(label, estimator.classes_), ops.Concat(ops.Sub(1.0, probability), probability, axis=1)]
    if estimator.multi_class != "one_vs_rest":
        raise ConversionError("A GaussianProcessClassifier has a graph with multi_class='one_vs_rest'")
    each = ops.Concat(*[_binary(part, x, ops)[1] for part in estimator.base_estimator_.estimators_], axis=1)
    return [ops.labels(ops.argmax(each), estimator.classes_), ops.Div(each, ops.sum(each))]


def _binary(part: Any, x: str, ops: Ops) -> tuple[str, str]:
    """The latent mean and the second class's probability, each of shape (rows, 1); after GPML, Algorithm 3.2."""
    points = np.asarray(part.X_train_, dtype=np.float64)
    seen = _kernel(part.kernel_, x, points, ops)
    mean = ops.MatMul(seen, (part.y_train_ - part.pi_)[:, np.newaxis].astype(float))
    whitened = ops.MatMul(ops.Mul(seen, part.W_sr_.astype(float)), np.linalg.inv(part.L_).T)
    variance = ops.Sub(_diagonal(part.kernel_, x, ops), ops.sum(ops.Mul(whitened, whitened)))
    total = None
    for scale, coefficient in zip(_LAMBDAS, _COEFFICIENTS, strict=True):
        width = ops.Sqrt(ops.Add(ops.Mul(variance, 2 * scale**2), 1.0))
        term = ops.Mul(_erf(ops.Div(ops.Mul(mean, scale), width), ops), coefficient / 2)
        total = term if total is None else ops.Add(total, term)
    return mean, ops.Add(total, 0.5 * sum(_COEFFICIENTS))


def _erf(x: str, ops: Ops) -> str:
    """ONNX Runtime has it in float32, and these coefficients multiply what it is off."""
    places = np.linspace(-6, 6, 2401)
    values, slopes = np.vectorize(erf)(places), 2 / np.sqrt(np.pi) * np.exp(-(places**2))
    return cubic(ops, x, places, values, slopes)


def _kernel(kernel: Any, x: str, points: Array, ops: Ops) -> str:
    return _found(kernel, _BETWEEN)(kernel, x, points, ops)


def _diagonal(kernel: Any, x: str, ops: Ops) -> str:
    return _found(kernel, _OF_ITSELF)(kernel, x, ops)


def _found(kernel: Any, table: Mapping[str, Callable[..., str]]) -> Callable[..., str]:
    name = type(kernel).__name__
    if name not in table:
        raise ConversionError(f"The kernel {name} has no graph; use sums and products of {sorted(table)}")
    return table[name]


def _ones(x: str, ops: Ops) -> str:
    shape = ops.Concat(ops.Slice(ops.Shape(x), np.array([0]), np.array([1])), np.array([1]), axis=0)
    return ops.Expand(np.ones((1, 1)), shape)


def _squares(kernel: Any, x: str, points: Array, ops: Ops) -> str:
    scale = np.asarray(kernel.length_scale, dtype=np.float64) * np.ones(points.shape[1])
    return squared_distances(ops, ops.Div(x, scale), points / scale)


def _matern(kernel: Any, x: str, points: Array, ops: Ops) -> str:
    if kernel.nu not in (0.5, 1.5, 2.5, np.inf):
        raise ConversionError(f"The kernel Matern has a graph with nu 0.5, 1.5, 2.5 or inf, not {kernel.nu}")
    squares = _squares(kernel, x, points, ops)
    if kernel.nu == np.inf:
        return ops.Exp(ops.Mul(squares, -0.5))
    far = ops.Mul(ops.Sqrt(squares), np.sqrt(2 * kernel.nu))
    decay = ops.Exp(ops.Neg(far))
    if kernel.nu == 0.5:
        return decay
    factor = ops.Add(far, 1.0)
    if kernel.nu == 2.5:
        factor = ops.Add(factor, ops.Div(ops.Mul(far, far), 3.0))
    return ops.Mul(factor, decay)


def _rational_quadratic(kernel: Any, x: str, points: Array, ops: Ops) -> str:
    base = ops.Add(ops.Div(squared_distances(ops, x, points), 2 * kernel.alpha * kernel.length_scale**2), 1.0)
    return ops.Pow(base, -float(kernel.alpha))


def _constant(kernel: Any, x: str, points: Array, ops: Ops) -> str:
    return ops.Mul(ops.MatMul(_ones(x, ops), np.ones((1, len(points)))), float(kernel.constant_value))


def _white(_: Any, x: str, points: Array, ops: Ops) -> str:
    return ops.MatMul(_ones(x, ops), np.zeros((1, len(points))))


def _dot_product(kernel: Any, x: str, points: Array, ops: Ops) -> str:
    return ops.Add(ops.MatMul(x, points.T), float(kernel.sigma_0) ** 2)


_BETWEEN: Mapping[str, Callable[..., str]] = {
    "ConstantKernel": _constant,
    "DotProduct": _dot_product,
    "Matern": _matern,
    "Product": lambda k, x, p, ops: ops.Mul(_kernel(k.k1, x, p, ops), _kernel(k.k2, x, p, ops)),
    "RBF": lambda k, x, p, ops: ops.Exp(ops.Mul(_squares(k, x, p, ops), -0.5)),
    "RationalQuadratic": _rational_quadratic,
    "Sum": lambda k, x, p, ops: ops.Add(_kernel(k.k1, x, p, ops), _kernel(k.k2, x, p, ops)),
    "WhiteKernel": _white,
}
_OF_ITSELF: Mapping[str, Callable[..., str]] = {
    "ConstantKernel": lambda k, x, ops: ops.Mul(_ones(x, ops), float(k.constant_value)),
    "DotProduct": lambda k, x, ops: ops.Add(ops.sum(ops.Mul(x, x)), float(k.sigma_0) ** 2),
    "Matern": lambda _, x, ops: _ones(x, ops),
    "Product": lambda k, x, ops: ops.Mul(_diagonal(k.k1, x, ops), _diagonal(k.k2, x, ops)),
    "RBF": lambda _, x, ops: _ones(x, ops),
    "RationalQuadratic": lambda _, x, ops: _ones(x, ops),
    "Sum": lambda k, x, ops: ops.Add(_diagonal(k.k1, x, ops), _diagonal(k.k2, x, ops)),
    "WhiteKernel": lambda k, x, ops: ops.Mul(_ones(x, ops), float(k.noise_level)),
}

CONVERTERS = [
    Converter(estimator="sklearn.gaussian_process.GaussianProcessClassifier", convert=_gaussian_process_classifier)
]
