"""Curves through points."""

from __future__ import annotations

import numpy as np

from ._ops import Array, Ops


def interpolate(ops: Ops, x: str, places: Array, values: Array) -> str:
    """Straight lines between points, and level ones beyond the first and the last.

    Args:
        ops: for the graph.
        x: of shape (rows, 1).
        places: ascending.
        values: at the places.

    Returns:
        The values at `x`, of shape (rows, 1).
    """
    places, values = np.asarray(places, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if len(places) == 1:
        places, values = np.append(places, places + 1), np.append(values, values)
    inside = ops.Min(ops.Max(x, places[0]), places[-1])
    passed = ops.integer(ops.GreaterOrEqual(inside, places[np.newaxis, 1:-1]))
    start = ops.sum(passed)
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = np.where(np.diff(places) > 0, np.diff(values) / np.diff(places), 0.0)
    along = ops.Sub(inside, ops.Gather(places[:-1], start))
    value = ops.Add(ops.Gather(values[:-1], start), ops.Mul(along, ops.Gather(slopes, start)))
    # Where several points share the last place, the last of them counts.
    return ops.Where(ops.GreaterOrEqual(x, places[-1]), values[-1], value)


def cubic(ops: Ops, x: str, places: Array, values: Array, slopes: Array) -> str:
    """Cubics through evenly spaced points with the slopes that they have there (Hermite's), level beyond them."""
    step = places[1] - places[0]
    inside = ops.Min(ops.Max(x, places[0]), places[-1])
    scaled = ops.Div(ops.Sub(inside, places[0]), step)
    start = ops.Min(ops.Floor(scaled), float(len(places) - 2))
    along, at = ops.Sub(scaled, start), ops.integer(start)
    rise, first, last = np.diff(values), step * slopes[:-1], step * slopes[1:]
    value = ops.Gather(first + last - 2 * rise, at)
    for coefficients in (3 * rise - 2 * first - last, first, values[:-1]):
        value = ops.Add(ops.Mul(value, along), ops.Gather(coefficients, at))
    return value
