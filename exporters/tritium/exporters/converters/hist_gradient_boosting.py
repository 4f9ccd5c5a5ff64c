"""Gradient boosting on histograms, with categories."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._errors import ConversionError
from ._ops import Array, Ops
from ._registry import Converter
from ._trees import float32_below


def _regressor(estimator: Any, x: str, ops: Ops) -> str:
    raw = _raw(estimator, x, ops)
    link = type(estimator._loss.link).__name__
    if link not in _LINKS:
        raise ConversionError(f"The link {link} of this {type(estimator).__name__} has no graph")
    return ops.Exp(raw) if _LINKS[link] == "Exp" else raw


def _classifier(estimator: Any, x: str, ops: Ops) -> list[str]:
    raw = _raw(estimator, x, ops)
    if len(estimator.classes_) > 2:
        probabilities = ops.Softmax(raw, axis=1)
    else:
        second = ops.Sigmoid(raw)
        probabilities = ops.Concat(ops.Sub(1.0, second), second, axis=1)
    return [ops.labels(ops.argmax(probabilities), estimator.classes_), probabilities]


_LINKS = {"IdentityLink": "", "LogLink": "Exp"}


def _raw(estimator: Any, x: str, ops: Ops) -> str:
    """The sum of the trees, of shape (rows, trees an iteration)."""
    if estimator._preprocessor is not None:
        x = _encoded(estimator, x, ops)
    nodes = _Nodes()
    for trees in estimator._predictors:
        for target, predictor in enumerate(trees):
            nodes.add_tree(predictor, estimator._bin_mapper, target)
    baseline = np.asarray(estimator._baseline_prediction, dtype=np.float64).reshape(1, -1)
    total = ops.TreeEnsembleRegressor(ops.single(x), n_targets=baseline.shape[1], **nodes.attributes())
    return ops.Add(ops.double(total), baseline)


def _encoded(estimator: Any, x: str, ops: Ops) -> str:
    """Categories as their numbers, in front of all other columns, as the estimator has them."""
    _, encoder, chosen = estimator._preprocessor.transformers_[0]
    places = np.flatnonzero(chosen)
    others = [place for place in range(estimator.n_features_in_) if place not in places]
    columns = []
    for place, categories in zip(places, encoder.categories_, strict=True):
        if categories.dtype.kind not in "biuf":
            raise ConversionError(
                f"{type(estimator).__name__} takes text as categories beside numbers; put a ColumnTransformer with an "
                "OrdinalEncoder before it, and name its categorical_features by number"
            )
        known = categories[~np.isnan(categories.astype(float))].astype(float)[np.newaxis]
        hit = ops.double(ops.Equal(ops.columns(x, [int(place)]), known))
        number = ops.MatMul(hit, np.arange(float(known.size))[:, np.newaxis])
        # What was never seen counts as missing.
        columns.append(ops.Where(ops.Greater(ops.sum(hit), 0.0), number, np.float64("nan")))
    return ops.Concat(*columns, *([ops.columns(x, others)] if others else []), axis=1)


class _Nodes:
    """The attributes of a TreeEnsembleRegressor, node by node."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, int, str, float, int, int, int]] = []
        self._leaves: list[tuple[int, int, int, float]] = []
        self._trees = 0

    def add_tree(self, predictor: Any, mapper: Any, target: int) -> None:
        """Add a tree; a split by categories becomes a chain of comparisons with one each."""
        tree, self._trees = self._trees, self._trees + 1
        spare = len(predictor.nodes)
        for number, node in enumerate(predictor.nodes):
            left, right, missing = int(node["left"]), int(node["right"]), int(node["missing_go_to_left"])
            feature = int(node["feature_idx"])
            if node["is_leaf"]:
                self._rows.append((tree, number, 0, "LEAF", 0.0, 0, 0, 0))
                self._leaves.append((tree, number, target, float(node["value"])))
            elif not node["is_categorical"]:
                threshold = float(float32_below(node["num_threshold"]))
                self._rows.append((tree, number, feature, "BRANCH_LEQ", threshold, left, right, missing))
            else:
                known = mapper.bin_thresholds_[feature]
                goes_left = _in_bitset(predictor.raw_left_cat_bitsets[int(node["bitset_idx"])], known)
                # Missing and unknown values take the way that is left when the chain ends.
                listed, hit, end = (known[~goes_left], right, left) if missing else (known[goes_left], left, right)
                at = number
                for place, category in enumerate(listed):
                    following = end if place == len(listed) - 1 else spare
                    self._rows.append((tree, at, feature, "BRANCH_EQ", float(category), hit, following, 0))
                    at, spare = spare, spare + (place < len(listed) - 1)
                if not len(listed):
                    self._rows.append((tree, number, feature, "BRANCH_LEQ", -np.inf, end, end, 0))

    def attributes(self) -> dict[str, Any]:
        """As the operator has them."""
        names = ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids")
        columns = list(zip(*self._rows, strict=True))
        trees, numbers, targets, values = zip(*self._leaves, strict=True)
        return {
            **{f"nodes_{name}": list(column) for name, column in zip(names, columns, strict=False)},
            "nodes_missing_value_tracks_true": list(columns[-1]),
            "target_treeids": list(trees),
            "target_nodeids": list(numbers),
            "target_ids": list(targets),
            "target_weights": list(values),
        }


def _in_bitset(bitset: Array, categories: Array) -> Array:
    values = categories.astype(np.int64)
    return np.asarray((bitset[values // 32] >> (values % 32).astype(np.uint32)) & 1 == 1)


CONVERTERS = [
    Converter(estimator="sklearn.ensemble.HistGradientBoostingClassifier", convert=_classifier),
    Converter(estimator="sklearn.ensemble.HistGradientBoostingRegressor", convert=_regressor),
]
