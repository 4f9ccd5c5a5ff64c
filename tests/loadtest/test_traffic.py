"""What is sent, and how a right answer is told: ready-made requests from golden cases."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tritium.client import Client, InputError, ModelNotFoundError
from tritium.loadtest import _traffic
from tritium.loadtest._traffic import GoldenTraffic, WrongAnswerError
from tritium.repository import Repository, compare, load_golden
from tritium.server import TritonServer


@pytest.fixture
def asked(server: TritonServer) -> Iterator[Client]:
    with server.client() as client:
        yield client


def sent(traffic: GoldenTraffic, seed: int, count: int) -> list[tuple[str, bytes, int]]:
    cases = itertools.islice(traffic.requests(seed), count)
    return [(case.name, b"".join(array.tobytes() for array in case.inputs.values()), case.rows) for case in cases]


def test_the_models_come_in_turn_and_all_cases_of_each(zoo: Repository, asked: Client) -> None:
    traffic = GoldenTraffic(zoo, asked)
    first, again, other = (sent(traffic, seed, 96) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert [name for name, _, _ in first] == ["digits_cnn", "digits_mlp", "digits_svm"] * 32
    assert {rows for _, _, rows in first} == {1}
    assert all(len({row for name, row, _ in first if name == model}) == 32 for model in zoo.models())
    assert sorted(first) == sorted(other)


def test_with_weights_they_come_at_random_and_as_often_as_asked(zoo: Repository, asked: Client) -> None:
    traffic = GoldenTraffic(zoo, asked, weights={"digits_cnn": 6, "digits_svm": 1})
    counts = Counter(name for name, _, _ in sent(traffic, 1, 4000))
    assert counts["digits_cnn"] == pytest.approx(3000, rel=0.1)
    assert counts["digits_mlp"] == pytest.approx(500, rel=0.25)
    assert counts["digits_svm"] == pytest.approx(500, rel=0.25)


def test_a_weight_for_a_model_that_is_not_sent_to_is_refused(zoo: Repository, asked: Client) -> None:
    with pytest.raises(InputError, match="a weight for digits_cmm, which is not sent to; there are digits_cnn, "):
        GoldenTraffic(zoo, asked, weights={"digits_cmm": 2})


def test_a_model_that_is_not_served_is_named(zoo: Repository, asked: Client) -> None:
    with pytest.raises(ModelNotFoundError):
        GoldenTraffic(zoo, asked, ["digits_cmm"])


@pytest.mark.parametrize(("rows", "size", "count"), [(1, 1, 32), (5, 5, 6), (32, 32, 1), (48, 48, 8), (0, 64, 8)])
def test_requests_hold_the_rows_asked_for(zoo: Repository, asked: Client, rows: int, size: int, count: int) -> None:
    cases = GoldenTraffic(zoo, asked, ["digits_mlp"]).cases("digits_mlp", rows)
    assert zoo.config("digits_mlp").max_batch_size == 64
    assert [len(next(iter(case.inputs.values()))) for case in cases] == [size] * count
    assert {case.rows for case in cases} == {size}
    for case in cases:
        case.check(case.send())


def test_an_answer_is_right_within_the_tolerance_of_its_version_and_no_further(zoo: Repository, asked: Client) -> None:
    (case, *_) = GoldenTraffic(zoo, asked, ["digits_svm"]).cases("digits_svm")
    golden = load_golden(zoo.version_folder("digits_svm"), zoo.config("digits_svm"))
    answer = case.send()
    case.check(answer)

    def changed(**arrays: np.ndarray) -> str:
        right = {name: array[:1] for name, array in golden.outputs.items()}
        try:
            case.check(type(answer)({**right, **arrays}))
        except WrongAnswerError as exc:
            return str(exc)
        return ""

    assert changed(probabilities=golden.outputs["probabilities"][:1] + 9e-5) == ""
    assert changed(probabilities=golden.outputs["probabilities"][:1] + 2e-4).startswith(
        "probabilities: max |Δ| 2.0e-04"
    )
    assert changed(label=golden.outputs["label"][:1] + 1).startswith("label: agreement 0.0%")


def test_an_answer_is_compared_once_and_known_by_its_bytes_after_that(
    zoo: Repository, asked: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    (case, *_) = GoldenTraffic(zoo, asked, ["digits_mlp"]).cases("digits_mlp")
    answer = case.send()
    compared: list[object] = []

    def counted(*arrays: Any) -> Any:
        compared.append(arrays)
        return compare(*arrays)

    monkeypatch.setattr(_traffic, "compare", counted)
    for _ in range(3):
        case.check(answer)
    assert len(compared) == 1
    for _ in range(2):
        with pytest.raises(WrongAnswerError):
            case.check(answer + 1)
    assert len(compared) == 3, "a wrong one is never known to be right"
