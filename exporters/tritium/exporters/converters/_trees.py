"""Thresholds of trees, and the way of missing values through them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._ops import Array


def float32_below(thresholds: Array | float) -> NDArray[np.float32]:
    """The largest float32 that is not above: the same float32 values are at most that."""
    exact = np.asarray(thresholds, dtype=np.float64)
    rounded = exact.astype(np.float32)
    return np.asarray(np.where(rounded > exact, np.nextafter(rounded, np.float32(-np.inf)), rounded))


def follow_missing(nodes: Iterable[Any], estimator: Any) -> None:
    """Send missing values in a graph's trees where a tree or a forest of scikit-learn sends them.

    Args:
        nodes: of the graph; each tree in them is taken for the first of the estimator's that is built alike and was not
            taken before, because graphs have them in the estimator's order.
        estimator: a tree or a forest.
    """
    fitted = [estimator] if hasattr(estimator, "tree_") else list(np.ravel(estimator.estimators_))
    waiting = [item.tree_ for item in fitted]
    for node in nodes:
        attributes = {item.name: item for item in node.attribute}
        tracks = attributes.get("nodes_missing_value_tracks_true")
        if tracks is None:
            continue
        trees, places, features, truths = (
            np.array(attributes[f"nodes_{name}"].ints) for name in ("treeids", "nodeids", "featureids", "truenodeids")
        )
        ways = np.array(tracks.ints)
        for tree in np.unique(trees):
            of_tree = np.flatnonzero(trees == tree)
            of_tree = of_tree[np.argsort(places[of_tree])]
            built = features[of_tree], truths[of_tree]
            found = next((at for at, item in enumerate(waiting) if _alike(item, *built)), None)
            if found is not None:
                ways[of_tree] = missing_to_left(waiting.pop(found))
        tracks.ints[:] = ways.tolist()


def missing_to_left(tree: Any) -> Array:
    """For each node of a tree whether missing values go to its left, as 0 or 1."""
    return np.where(tree.children_left < 0, 0, tree.missing_go_to_left).astype(np.int64)


def _alike(tree: Any, features: Array, truths: Array) -> bool:
    leaf = tree.children_left < 0
    return np.array_equal(np.where(leaf, 0, tree.feature), features) and np.array_equal(
        np.where(leaf, 0, tree.children_left), truths
    )
