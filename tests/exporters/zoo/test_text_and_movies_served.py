"""The models of text and of movies behind both ONNX Runtime backends: their golden cases, and text that is hard."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tritium.client import InferenceFailedError, RequestRejectedError
from tritium.repository import Repository, verify_server
from tritium.server import TritonServer

from .conftest import Reference

TEXT = ("review_score", "sentiment_lstm", "sentiment_rnn", "sentiment_transformer")
NAMES = (*TEXT, "movie_recommender", "movie_topk")


@pytest.fixture(scope="module")
def repository(reference: Callable[[str], Reference], tmp_path_factory: pytest.TempPathFactory) -> Repository:
    folder = tmp_path_factory.mktemp("text_and_movies")
    for name in NAMES:
        model = reference(name)
        shutil.copytree(model.folder, folder / name / model.folder.name)
        for file in model.folder.parent.glob("*.*"):
            if file.is_file():
                shutil.copy2(file, folder / name)
    return Repository(folder)


@pytest.fixture(scope="module", params=["native", "python"])
def served(request: pytest.FixtureRequest, repository: Repository) -> Iterator[TritonServer]:
    with TritonServer(repository.path, onnx_backend=request.param) as running:
        assert running.onnx_backend == request.param
        yield running


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_every_golden_case_is_answered_as_the_framework_did(
    served: TritonServer, repository: Repository, protocol: str
) -> None:
    with served.client(protocol=protocol) as client:
        verdicts = list(verify_server(client, repository))
    assert [verdict.model for verdict in verdicts] == sorted(NAMES)
    assert not [str(verdict) for verdict in verdicts if not verdict.ok or not verdict.cases]


@pytest.mark.parametrize("name", TEXT)
def test_bytes_that_are_no_text_fail_alone_and_the_server_goes_on(served: TritonServer, name: str) -> None:
    with served.client() as client:
        model = client.model(name)
        expected = model(np.array(["A fine film."], dtype=object))
        for broken in (b"\xff\xfe", b"\xc3\x28 a", b"a \xe9"):
            with pytest.raises((InferenceFailedError, RequestRejectedError), match=r"(?i)utf-?8"):
                model(np.array([broken], dtype=object))
        again = model(np.array(["A fine film."], dtype=object))
    np.testing.assert_array_equal(again, expected)


@pytest.mark.parametrize("name", TEXT)
def test_any_text_is_answered(served: TritonServer, name: str) -> None:
    with served.client() as client:
        texts = ["", "\0", "日本語 😀", "word " * 10_000, "x" * 100_000]
        answers = client.model(name)(np.array(texts, dtype=object).reshape(-1, 1))
    assert len(answers) == len(texts)
    assert np.isfinite(answers).all()
