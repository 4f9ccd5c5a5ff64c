"""One seed for everything: the same numbers again, and nothing of it left behind."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from tritium.client import InputError
from tritium.exporters.training import seeded


def drawn() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(()))


def test_the_same_seed_gives_the_same_numbers_from_python_numpy_and_torch() -> None:
    with seeded(7):
        first = drawn()
    with seeded(7):
        again = drawn()
    with seeded(8):
        other = drawn()
    assert first == again
    assert all(one != two for one, two in zip(first, other, strict=True))


@pytest.mark.parametrize("fails", [False, True], ids=["returns", "raises"])
def test_the_generators_go_on_as_if_nothing_had_been_seeded(fails: bool) -> None:
    with seeded(1):
        expected = [drawn(), drawn()]
    with seeded(1):
        found = [drawn()]
        try:
            with seeded(2):
                drawn()
                if fails:
                    raise KeyError
        except KeyError:
            pass
        found.append(drawn())
    assert found == expected


def test_torch_is_deterministic_inside_only() -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    with seeded(0):
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, True, None])
def test_a_seed_that_numpy_does_not_take_is_refused(seed: object) -> None:
    with pytest.raises(InputError, match=r"'seed' parameter must be a whole number from 0 to 4294967295"), seeded(seed):  # type: ignore[arg-type]
        raise AssertionError("unreachable")
