"""Small systems of equations, one a row."""

from __future__ import annotations

import numpy as np

from ._ops import Ops


def solve(ops: Ops, matrices: str, right: str, size: int) -> str:
    """Solve symmetric positive definite systems by Gauss-Jordan elimination, which needs no pivoting for them.

    Args:
        ops: for the graph.
        matrices: of shape (rows, size, size).
        right: of shape (rows, size, 1).
        size: of the systems; the graph grows with it.

    Returns:
        The solutions, of shape (rows, size, 1).
    """
    system = ops.Concat(matrices, right, axis=2)
    for place in range(size):
        at = np.array([place])
        row = ops.Gather(system, at, axis=1)
        row = ops.Div(row, ops.Gather(row, at, axis=2))
        column = ops.Gather(system, at, axis=2)
        own = np.eye(size)[np.newaxis, :, [place]]
        # Every other row loses its part of this one; this one is put in place of itself.
        factor = ops.Mul(column, 1 - own)
        system = ops.Add(ops.Mul(ops.Sub(system, ops.Mul(factor, row)), 1 - own), ops.Mul(own, row))
    return ops.Gather(system, np.array([size]), axis=2)
