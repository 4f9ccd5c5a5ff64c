"""Clusterers that assign rows to the nearest centre, and groups of features."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._errors import ConversionError
from ._kernels import squared_distances
from ._ops import Array, Ops
from ._registry import Converter


def _nearest(estimator: Any, x: str, ops: Ops) -> str:
    return ops.argmax(ops.Neg(squared_distances(ops, x, estimator.cluster_centers_)))


def _birch(estimator: Any, x: str, ops: Ops) -> list[str]:
    squares = squared_distances(ops, x, estimator.subcluster_centers_)
    label = ops.Gather(np.asarray(estimator.subcluster_labels_, dtype=np.int64), ops.argmax(ops.Neg(squares)))
    return [label, ops.Sqrt(squares)]


def _to_subcentres(estimator: Any, x: str, ops: Ops) -> str:
    return ops.Sqrt(squared_distances(ops, x, estimator.subcluster_centers_))


def _bisecting_k_means(estimator: Any, x: str, ops: Ops) -> list[str]:
    label = _descend(estimator._bisecting_tree, getattr(estimator, "_X_mean", 0.0), x, ops)
    return [label, _to_centres(estimator, x, ops)]


def _descend(node: Any, mean: Array | float, x: str, ops: Ops) -> str:
    """The label of the leaf that rows reach, of shape (rows,)."""
    if node.left is None:
        return ops.Expand(np.array([node.label]), ops.Slice(ops.Shape(x), np.array([0]), np.array([1])))
    centres = np.vstack([node.left.center, node.right.center]) + mean
    right = ops.Cast(ops.argmax(ops.Neg(squared_distances(ops, x, centres))), to=9)
    return ops.Where(right, _descend(node.right, mean, x, ops), _descend(node.left, mean, x, ops))


def _to_centres(estimator: Any, x: str, ops: Ops) -> str:
    return ops.Sqrt(squared_distances(ops, x, estimator.cluster_centers_))


def _feature_agglomeration(estimator: Any, x: str, ops: Ops) -> str:
    if estimator.pooling_func is not np.mean:
        raise ConversionError("A FeatureAgglomeration has a graph if its pooling_func is numpy.mean")
    member = np.equal.outer(estimator.labels_, np.unique(estimator.labels_)).astype(float)
    return ops.MatMul(x, member / member.sum(axis=0))


CONVERTERS = [
    Converter(estimator="sklearn.cluster.AffinityPropagation", convert=_nearest),
    Converter(estimator="sklearn.cluster.Birch", convert=_birch, transform=_to_subcentres),
    Converter(estimator="sklearn.cluster.BisectingKMeans", convert=_bisecting_k_means, transform=_to_centres),
    Converter(estimator="sklearn.cluster.FeatureAgglomeration", convert=_feature_agglomeration),
    Converter(estimator="sklearn.cluster.KMeans", transform=_to_centres),
    Converter(estimator="sklearn.cluster.MeanShift", convert=_nearest),
    Converter(estimator="sklearn.cluster.MiniBatchKMeans", transform=_to_centres),
]
