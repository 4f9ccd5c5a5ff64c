"""How many threads torch trains with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Train with one thread, and go back to as many as there were.

    Networks as small as these win nothing by more, and where others keep the machine busy, threads that wait for each
    other at every step take ten times as long. The number of threads also decides over the last bits of the weights.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
