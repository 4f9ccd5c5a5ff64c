"""ONNX Runtime without a server, in a process with one thread for each core: `_limits.in_process` starts this.

What is imported here is imported by each of the processes: numpy and ONNX Runtime only.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
from benchmarks.peers._served import Served

BATCH_SIZES = (1, 16, 64)
# Far enough off for all processes to have loaded the model.
PREPARE_S = 2.0


def measure(job: Sequence[dict[str, Any]], duration_s: float) -> dict[str, dict[str, float]]:
    cores = os.cpu_count() or 1
    found: dict[str, dict[str, float]] = {}
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        for model in job:
            found[model["name"]] = {}
            for size in BATCH_SIZES:
                begin_s = time.monotonic() + PREPARE_S
                rates = [pool.submit(_rows_per_s, model, size, begin_s, duration_s) for _ in range(cores)]
                found[model["name"]][str(size)] = sum(rate.result() for rate in rates)
    return found


def _rows_per_s(model: dict[str, Any], size: int, begin_s: float, duration_s: float) -> float:
    served = Served(**model)
    rows = np.zeros((size, *served.shape[1:]), np.float32)
    served.rows(rows)
    time.sleep(max(0.0, begin_s - time.monotonic()))
    runs, begun = 0, time.perf_counter()
    while (taken_s := time.perf_counter() - begun) < duration_s:
        served.rows(rows)
        runs += 1
    return runs * size / taken_s


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]), float(sys.argv[2]))))
