"""Approximations of kernels by features."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._kernels import kernel
from ._ops import Array, Ops
from ._registry import Converter


def _rbf_sampler(estimator: Any, x: str, ops: Ops) -> str:
    angles = ops.Add(ops.MatMul(x, _double(estimator.random_weights_)), _double(estimator.random_offset_))
    return ops.Mul(ops.Cos(angles), np.sqrt(2 / estimator.n_components))


def _skewed_chi2_sampler(estimator: Any, x: str, ops: Ops) -> str:
    return _rbf_sampler(estimator, ops.Log(ops.Add(x, float(estimator.skewedness))), ops)


def _additive_chi2_sampler(estimator: Any, x: str, ops: Ops) -> str:
    steps = estimator.sample_steps
    # Where none was given, scikit-learn takes that of Vedaldi and Zisserman (2012) for this number of steps.
    given = estimator.sample_interval
    interval = float({1: 0.8, 2: 0.5, 3: 0.4}[steps] if given is None else given)
    positive = ops.Greater(x, 0.0)
    logarithm = ops.Log(ops.Where(positive, x, 1.0))
    parts = [ops.Sqrt(ops.Mul(x, interval))]
    for j in range(1, steps):
        factor = ops.Sqrt(ops.Mul(x, 2 * interval / np.cosh(np.pi * j * interval)))
        angle = ops.Mul(logarithm, j * interval)
        parts += [ops.Mul(factor, ops.Cos(angle)), ops.Mul(factor, ops.Sin(angle))]
    return ops.Concat(*parts, axis=1)


def _nystroem(estimator: Any, x: str, ops: Ops) -> str:
    names = ("gamma", "degree", "coef0")
    parameters = {**{name: getattr(estimator, name) for name in names}, **(estimator.kernel_params or {})}
    embedded = kernel(ops, x, estimator.components_, estimator.kernel, parameters)
    return ops.MatMul(embedded, _double(estimator.normalization_.T))


def _polynomial_count_sketch(estimator: Any, x: str, ops: Ops) -> str:
    """The count sketches' circular convolution, by Fourier transforms written as products of matrices."""
    size = estimator.n_components
    x = ops.Mul(x, np.sqrt(float(estimator.gamma)))
    width = estimator.n_features_in_ + (estimator.coef0 != 0)
    sketches = np.zeros((estimator.degree, width, size))
    degrees, features = np.indices((estimator.degree, width))
    sketches[degrees, features, estimator.indexHash_] = estimator.bitHash_
    turns = 2 * np.pi * np.outer(np.arange(size), np.arange(size)) / size
    real = imaginary = ""
    for place, sketch in enumerate(sketches):
        seen = ops.MatMul(x, sketch[: estimator.n_features_in_])
        if estimator.coef0 != 0:
            seen = ops.Add(seen, np.sqrt(float(estimator.coef0)) * sketch[-1])
        re, im = ops.MatMul(seen, np.cos(turns)), ops.MatMul(seen, -np.sin(turns))
        if place:
            re, im = (
                ops.Sub(ops.Mul(real, re), ops.Mul(imaginary, im)),
                ops.Add(ops.Mul(real, im), ops.Mul(imaginary, re)),
            )
        real, imaginary = re, im
    return ops.Sub(ops.MatMul(real, np.cos(turns) / size), ops.MatMul(imaginary, np.sin(turns) / size))


def _double(array: Any) -> Array:
    return np.asarray(array, dtype=np.float64)


CONVERTERS = [
    Converter(estimator="sklearn.kernel_approximation.AdditiveChi2Sampler", convert=_additive_chi2_sampler),
    Converter(estimator="sklearn.kernel_approximation.Nystroem", convert=_nystroem),
    Converter(estimator="sklearn.kernel_approximation.PolynomialCountSketch", convert=_polynomial_count_sketch),
    Converter(estimator="sklearn.kernel_approximation.RBFSampler", convert=_rbf_sampler),
    Converter(estimator="sklearn.kernel_approximation.SkewedChi2Sampler", convert=_skewed_chi2_sampler),
]
