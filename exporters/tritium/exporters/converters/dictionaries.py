"""Sparse codes of a dictionary."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._errors import ConversionError
from ._ops import Array, Ops
from ._registry import Converter
from ._solve import solve

_MOST_ATOMS = 10


def _sparse_code(estimator: Any, x: str, ops: Ops) -> str:
    atoms = np.asarray(getattr(estimator, "components_", getattr(estimator, "dictionary", None)), dtype=np.float64)
    algorithm = estimator.transform_algorithm
    if algorithm == "threshold":
        code = _threshold(estimator, x, atoms, ops)
    elif algorithm == "omp":
        code = _matching_pursuit(estimator, x, atoms, ops)
    else:
        raise ConversionError(
            f"transform_algorithm={algorithm!r} goes on until it converges, which a graph does not; use 'omp' or "
            "'threshold'"
        )
    if estimator.split_sign:
        code = ops.Concat(ops.Relu(code), ops.Relu(ops.Neg(code)), axis=1)
    return code


def _threshold(estimator: Any, x: str, atoms: Array, ops: Ops) -> str:
    alpha = 1.0 if estimator.transform_alpha is None else float(estimator.transform_alpha)
    products = ops.MatMul(x, atoms.T)
    sign = 0.0 if estimator.positive_code else -1.0
    above = ops.Relu(ops.Sub(products, alpha))
    return ops.Add(above, ops.Mul(ops.Relu(ops.Sub(ops.Neg(products), alpha)), sign))


def _matching_pursuit(estimator: Any, x: str, atoms: Array, ops: Ops) -> str:
    """Orthogonal matching pursuit: step by step the atom most like what is left, then all coefficients anew."""
    most = estimator.transform_n_nonzero_coefs
    steps = int(min(max(estimator.n_features_in_ / 10, 1), len(atoms)) if most is None else most)
    if steps > _MOST_ATOMS or (most is None and estimator.transform_alpha is not None):
        raise ConversionError(
            f"A code of {steps} atoms, or of as many as an alpha asks for, has no graph; set transform_n_nonzero_coefs "
            f"to {_MOST_ATOMS} or less"
        )
    left, code = x, ""
    chosen: list[str] = []
    for step in range(1, steps + 1):
        place = ops.argmax(ops.Abs(ops.MatMul(left, atoms.T)))
        chosen.append(ops.Unsqueeze(place, np.array([1])))
        places = ops.Concat(*chosen, axis=1) if step > 1 else chosen[0]
        picked = ops.Gather(atoms, places)
        gram = ops.MatMul(picked, ops.Transpose(picked, perm=[0, 2, 1]))
        right = ops.MatMul(picked, ops.Unsqueeze(x, np.array([2])))
        weights = solve(ops, gram, right, step)
        code = ops.sum(ops.Mul(ops.Gather(np.eye(len(atoms)), places), weights), axis=1, keepdims=False)
        left = ops.Sub(x, ops.MatMul(code, atoms))
    return code


CONVERTERS = [
    Converter(estimator="sklearn.decomposition.DictionaryLearning", convert=_sparse_code),
    Converter(estimator="sklearn.decomposition.MiniBatchDictionaryLearning", convert=_sparse_code),
    Converter(estimator="sklearn.decomposition.SparseCoder", convert=_sparse_code),
]
