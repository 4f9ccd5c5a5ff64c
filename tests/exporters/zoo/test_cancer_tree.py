"""The tree on breast cancer: its depth, its accuracy, and what it makes of a measure that is missing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tritium.exporters.zoo._tabular import cancer

from .conftest import Reference


@pytest.fixture
def tree(reference: Callable[[str], Reference]) -> Reference:
    return reference("cancer_tree")


def test_it_reaches_its_accuracy_on_the_held_out_tumours(tree: Reference) -> None:
    data = cancer()
    label = tree(features=data.held_out)["label"].ravel()
    reached = float((label == data.held_out_targets).mean())
    assert reached == tree.manifest.metrics["accuracy"] >= 0.9
    assert tree.manifest.baselines["accuracy"] == pytest.approx(0.63, abs=0.01)


def test_the_depth_is_the_best_in_cross_validation_and_the_tree_has_it(tree: Reference) -> None:
    import onnx

    by_depth = tree.manifest.training["accuracy_by_depth"]
    best = max(by_depth, key=by_depth.get)  # of equals the first, which is the smallest
    assert tree.manifest.training["depth"] == int(best)
    (node,) = (node for node in onnx.load(tree.artifact).graph.node if node.op_type.startswith("TreeEnsemble"))
    attributes = {attribute.name: attribute for attribute in node.attribute}
    depth = {0: 0}
    for parent, (yes, no, mode) in enumerate(
        zip(
            attributes["nodes_truenodeids"].ints,
            attributes["nodes_falsenodeids"].ints,
            attributes["nodes_modes"].strings,
            strict=True,
        )
    ):
        if mode != b"LEAF":
            depth |= dict.fromkeys((yes, no), depth[parent] + 1)
    assert max(depth.values()) == int(best)


def test_a_missing_measure_is_taken_for_its_mean(tree: Reference) -> None:
    data = cancer()
    mean = data.train.mean(axis=0, dtype=np.float64).astype(np.float32)
    for column in range(0, 30, 5):
        missing, filled = data.held_out.copy(), data.held_out.copy()
        missing[:, column], filled[:, column] = np.nan, mean[column]
        np.testing.assert_allclose(
            tree(features=missing)["probabilities"], tree(features=filled)["probabilities"], atol=1e-6
        )


def test_the_classes_are_named_in_their_order(tree: Reference) -> None:
    assert (tree.folder.parent / "labels.txt").read_text(encoding="utf-8").split() == ["malignant", "benign"]
    data = cancer()
    outputs = tree(features=data.held_out)
    np.testing.assert_array_equal(outputs["label"].ravel(), outputs["probabilities"].argmax(axis=1))
    assert data.held_out_targets.sum() > len(data.held_out_targets) / 2  # 1 is the frequent class: benign
