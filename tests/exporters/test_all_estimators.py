"""Every estimator of scikit-learn becomes a verified model, or is refused with the reason; no third outcome."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sklearn.utils import all_estimators

from .estimators import names, outcome

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "sklearn.md"
_ONLY_ITS_OWN_ROWS = "only labels the rows that it was fitted on"
_ONLY_EMBEDS = "only embeds the rows that it was fitted on"
_NO_OUTPUTS = "has neither predict nor transform"
_NO_TENSOR = "which no tensor holds"
_CONVERGES = "goes on until"
REFUSED = {
    "AgglomerativeClustering": _ONLY_ITS_OWN_ROWS,
    "ClassicalMDS": _ONLY_EMBEDS,
    "DBSCAN": _ONLY_ITS_OWN_ROWS,
    "DictVectorizer": _NO_TENSOR,
    "EmpiricalCovariance": _NO_OUTPUTS,
    "FeatureHasher": _NO_TENSOR,
    "GraphicalLasso": _NO_OUTPUTS,
    "GraphicalLassoCV": _NO_OUTPUTS,
    "HDBSCAN": _ONLY_ITS_OWN_ROWS,
    "HashingVectorizer": "hash of words has no operator",
    "KernelDensity": _NO_OUTPUTS,
    "LatentDirichletAllocation": _CONVERGES,
    "LedoitWolf": _NO_OUTPUTS,
    "MDS": _ONLY_EMBEDS,
    "MinCovDet": _NO_OUTPUTS,
    "MiniBatchNMF": _CONVERGES,
    "MultiLabelBinarizer": _NO_TENSOR,
    "NMF": _CONVERGES,
    "NearestNeighbors": _NO_OUTPUTS,
    "OAS": _NO_OUTPUTS,
    "OPTICS": _ONLY_ITS_OWN_ROWS,
    "PatchExtractor": "other rows than it gets",
    "ShrunkCovariance": _NO_OUTPUTS,
    "SpectralBiclustering": _NO_OUTPUTS,
    "SpectralClustering": _ONLY_ITS_OWN_ROWS,
    "SpectralCoclustering": _NO_OUTPUTS,
    "SpectralEmbedding": _ONLY_EMBEDS,
    "TSNE": _ONLY_EMBEDS,
}
# What says what to do ends in one of these.
_ADVICE = re.compile(r"\b(use|export|fit|cut|Use|Export|Fit) ")


@pytest.mark.parametrize("name", sorted(set(names()) - set(REFUSED)))
def test_an_estimator_becomes_a_model_that_answers_as_it_does(name: str, tmp_path: Path) -> None:
    found = outcome(name, tmp_path)
    assert not found.refusal
    assert found.measured
    assert (tmp_path / name / "1" / "model.onnx").is_file()


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_an_estimator_that_cannot_be_served_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    found = outcome(name, tmp_path / "models")
    assert REFUSED[name] in found.refusal
    assert _ADVICE.search(found.refusal)
    assert not (tmp_path / "models").exists()


def test_at_least_180_are_verified_and_among_them_nearly_all_that_predict() -> None:
    assert len(set(names()) - set(REFUSED)) >= 180
    for kind in ("classifier", "regressor"):
        assert not set(REFUSED) & {name for name, _ in all_estimators(type_filter=kind)}


def test_the_document_has_each_estimator_where_it_belongs() -> None:
    """The figures in it differ a little from machine to machine; the rest does not."""
    verified, refused = DOCUMENT.read_text(encoding="utf-8").split("## Verified")[1].split("## Refused")
    rows = [re.findall(r"^\| (\w+) \|", part, re.MULTILINE)[1:] for part in (verified, refused)]
    assert rows == [sorted(set(names()) - set(REFUSED)), sorted(REFUSED)]
    for name, reason in REFUSED.items():
        assert re.search(rf"^\| {name} \| .*{re.escape(reason)}", refused, re.MULTILINE)
