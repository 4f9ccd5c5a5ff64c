"""Leaves of random trees as features."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._ops import Ops
from ._registry import Converter
from ._trees import float32_below, missing_to_left


def _random_trees_embedding(estimator: Any, x: str, ops: Ops) -> str:
    """One ensemble with a target for each leaf of each tree, whose weight is 1."""
    starts = np.cumsum([0, *map(len, estimator.one_hot_encoder_.categories_)])
    nodes: dict[str, list[Any]] = {
        key: []
        for key in (
            "treeids",
            "nodeids",
            "featureids",
            "modes",
            "values",
            "truenodeids",
            "falsenodeids",
            "missing_value_tracks_true",
        )
    }
    leaves: list[tuple[int, int, int]] = []
    for number, (fitted, categories) in enumerate(
        zip(estimator.estimators_, estimator.one_hot_encoder_.categories_, strict=True)
    ):
        tree = fitted.tree_
        is_leaf = tree.children_left < 0
        nodes["treeids"] += [number] * tree.node_count
        nodes["nodeids"] += range(tree.node_count)
        nodes["featureids"] += np.where(is_leaf, 0, tree.feature).tolist()
        nodes["modes"] += np.where(is_leaf, "LEAF", "BRANCH_LEQ").tolist()
        nodes["values"] += float32_below(np.where(is_leaf, 0.0, tree.threshold)).tolist()
        nodes["truenodeids"] += np.where(is_leaf, 0, tree.children_left).tolist()
        nodes["falsenodeids"] += np.where(is_leaf, 0, tree.children_right).tolist()
        nodes["missing_value_tracks_true"] += missing_to_left(tree).tolist()
        places = np.searchsorted(categories, np.flatnonzero(is_leaf)) + starts[number]
        leaves += [(number, int(leaf), int(at)) for leaf, at in zip(np.flatnonzero(is_leaf), places, strict=True)]
    return ops.TreeEnsembleRegressor(
        ops.single(x),
        n_targets=int(starts[-1]),
        target_treeids=[tree for tree, _, _ in leaves],
        target_nodeids=[node for _, node, _ in leaves],
        target_ids=[at for _, _, at in leaves],
        target_weights=[1.0] * len(leaves),
        **{f"nodes_{key}": values for key, values in nodes.items()},
    )


CONVERTERS = [Converter(estimator="sklearn.ensemble.RandomTreesEmbedding", convert=_random_trees_embedding)]
