"""Estimators that no graph can stand for, each with the reason and the way round."""

from __future__ import annotations

from ._registry import Converter

_REASONS = {
    "sklearn.decomposition.LatentDirichletAllocation": (
        "its transform goes on until each document converges; use TruncatedSVD, or KMeans on TF-IDF"
    ),
    "sklearn.decomposition.MiniBatchNMF": (
        "its transform goes on until all rows of a batch have converged together, so that a row's answer depends on "
        "the rows beside it; use TruncatedSVD or PCA"
    ),
    "sklearn.decomposition.NMF": (
        "its transform goes on until all rows of a batch have converged together, so that a row's answer depends on "
        "the rows beside it; use TruncatedSVD or PCA"
    ),
    "sklearn.feature_extraction.image.PatchExtractor": (
        "it answers with other rows than it gets, and a batch must keep its rows; cut the patches before the request"
    ),
    "sklearn.feature_extraction.text.HashingVectorizer": (
        "its hash of words has no operator in ONNX; use CountVectorizer or TfidfVectorizer with max_features"
    ),
}


CONVERTERS = [Converter(estimator=name, refusal=reason) for name, reason in _REASONS.items()]
