"""One seed for every source of randomness."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from tritium.client import InputError

_MOST = 2**32 - 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python, numpy and torch, and let torch use deterministic algorithms only; restore all of it at the end.

    Whatever draws random numbers goes inside, the module's initial weights above all. A rerun on the same machine, with
    the same versions and number of threads, then gives the same weights to the last bit. Where torch has no
    deterministic algorithm for an operation, it warns.

    Args:
        seed: from 0 to 2³² − 1, which is what numpy takes.

    Raises:
        InputError: the seed is out of that range.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed <= _MOST:
        raise InputError(f"The 'seed' parameter must be a whole number from 0 to {_MOST}, got {seed!r} instead")
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    deterministic, only_warns = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            random.seed(int(seed))
            np.random.seed(int(seed))
            torch.manual_seed(int(seed))
            torch.use_deterministic_algorithms(True, warn_only=True)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            torch.use_deterministic_algorithms(deterministic, warn_only=only_warns)
