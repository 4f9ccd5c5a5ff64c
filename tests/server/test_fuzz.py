"""A short run of what `make fuzz` does at length; with sanitizers where there is a compiler that has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .fuzz import build, hostile, pairs
from .fuzz.documents import compare, integer, strict
from .fuzz.models import Subject
from .fuzz.request import FuzzError
from .fuzz.serving import Asking, FuzzServer, Loading, reached, repository
from .fuzz.subjects import subjects

REQUESTS, PAIRS, DOCUMENTS = 2000, 30, 5000
needs_sanitizers = pytest.mark.skipif(not build.has_sanitizers(), reason="there is no g++ with sanitizers")


@pytest.fixture(scope="module")
def made() -> list[Subject]:
    return list(subjects().values())


@needs_sanitizers
def test_the_json_reader_agrees_with_python(tmp_path: Path, made: list[Subject]) -> None:
    driver = build.build_driver(tmp_path, build.sources(tmp_path), optimize="-O0")
    accepted, refused = compare(driver, DOCUMENTS, 1, made)
    assert accepted + refused == DOCUMENTS
    assert min(accepted, refused) > DOCUMENTS / 4, "there are good ones and bad ones"


@pytest.mark.skipif("TRITIUM_SLOW_TESTS" not in os.environ, reason="`make fuzz` does it at length")
def test_hostile_requests_and_models_leave_the_server_as_it_was(tmp_path: Path, made: list[Subject]) -> None:
    models, backend = repository(tmp_path, made), None
    if build.has_sanitizers():
        backend = build.build_backend(tmp_path, build.sources(tmp_path), optimize="-O0")
        running = FuzzServer(models, backends=backend.backends, variables=backend.variables)
    else:
        running = FuzzServer(models)
    with running as server:
        asking, loading = Asking(server, made, 1), Loading(server, made, 1)
        asking.ask(range(REQUESTS))
        loading.load(range(PAIRS))
        asking.ask(range(0, REQUESTS // 4, hostile.GOOD_EVERY))
        counts = reached(server, made)
        assert server.alive
    assert not asking.failures + loading.failures
    assert asking.asked["good"] == asking.answered["good"] > 0
    assert counts["requests"] > REQUESTS / 3
    assert counts["errors"] > REQUESTS / 20, "some are refused by the backend itself"
    assert counts["runs"] < counts["requests"] - counts["errors"], "some travel together"
    assert len(loading.loaded) >= PAIRS / pairs.GOOD_EVERY
    assert loading.refused
    assert backend is None or not backend.found()


@pytest.mark.parametrize("plant", build.PLANTS)
def test_every_bug_that_can_be_planted_has_its_place(tmp_path: Path, plant: str) -> None:
    assert build.sources(tmp_path / "with", plant) != build.sources(tmp_path / "without")


@needs_sanitizers
def test_a_planted_bug_is_found(tmp_path: Path, made: list[Subject]) -> None:
    driver = build.build_driver(tmp_path, build.sources(tmp_path, "json"), optimize="-O0")
    with pytest.raises(FuzzError, match="heap-buffer-overflow"):
        compare(driver, DOCUMENTS, 1, made)


def test_a_number_always_gives_the_same_request_and_the_same_pair(made: list[Subject]) -> None:
    for number in range(500):
        one, other = (hostile.make(number, 1, made) for _ in range(2))
        assert (one.kind, one.inputs, one.outputs) == (other.kind, other.inputs, other.outputs)
        assert pairs.make(number, 1, made) == pairs.make(number, 1, made)


@pytest.mark.parametrize(
    "document", [b"{'a': 1}", b'{"a": 1, "a": 2}', b"[NaN]", b'"\\ud800"', b'"\xff"', b"[" * 65 + b"]" * 65, b"1 2"]
)
def test_python_is_made_strict(document: bytes) -> None:
    with pytest.raises(ValueError):
        strict(document)


def test_integers_are_those_that_protobuf_writes() -> None:
    assert integer(strict(b"-9223372036854775808")) == -(2**63)
    assert integer(strict(b'"17"')) == 17
    assert integer(strict(b"9223372036854775808")) is integer(strict(b"1.0")) is integer(strict(b'"x"')) is None
