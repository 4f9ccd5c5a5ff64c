"""LightGBM and XGBoost, through onnxmltools."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np

from .._export import need
from ._ops import Ops
from ._registry import Converter
from ._trees import float32_below

# The newest that onnxmltools writes; `Ops.include` brings it to the model's.
_OPSET = 15


def _lightgbm(estimator: Any, x: str, ops: Ops) -> list[str]:
    need("onnxmltools", "boosting")
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    types = [("x", FloatTensorType([None, estimator.n_features_in_]))]
    zipmap = {"zipmap": False} if hasattr(estimator, "classes_") else {}
    model = convert_lightgbm(estimator, initial_types=types, target_opset=_OPSET, **zipmap)
    _round_down(model, estimator.booster_)
    return _outputs(model, x, ops)


def _xgboost(estimator: Any, x: str, ops: Ops) -> list[str]:
    need("onnxmltools", "boosting")
    from onnxmltools import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    types = [("x", FloatTensorType([None, estimator.n_features_in_]))]
    # It reads features by number.
    estimator = deepcopy(estimator)
    estimator.get_booster().feature_names = None
    return _outputs(convert_xgboost(estimator, initial_types=types, target_opset=_OPSET), x, ops)


def _round_down(model: Any, booster: Any) -> None:
    """Thresholds as the largest float32 that is not above: onnxmltools rounds up too, past values that are equal."""
    exact: dict[tuple[int, float], float] = {}
    waiting = [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]
    while waiting:
        node = waiting.pop()
        waiting += [node[side] for side in ("left_child", "right_child") if side in node]
        if node.get("decision_type") == "<=":
            rounded = float(np.float32(node["threshold"]))
            exact[node["split_feature"], rounded] = float(float32_below(node["threshold"]))
    for node in model.graph.node:
        attributes = {item.name: item for item in node.attribute}
        if "nodes_values" in attributes:
            features, values = attributes["nodes_featureids"].ints, attributes["nodes_values"].floats
            values[:] = [exact.get(pair, pair[1]) for pair in zip(features, values, strict=True)]


def _outputs(model: Any, x: str, ops: Ops) -> list[str]:
    return list(ops.include(model, ops.single(x)).values())


CONVERTERS = [
    Converter(estimator="lightgbm.LGBMClassifier", convert=_lightgbm),
    Converter(estimator="lightgbm.LGBMRegressor", convert=_lightgbm),
    Converter(estimator="xgboost.XGBClassifier", convert=_xgboost),
    Converter(estimator="xgboost.XGBRegressor", convert=_xgboost),
]
