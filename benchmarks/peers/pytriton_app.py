"""PyTriton: each model bound with two inference functions to a Triton. `python -m benchmarks.peers.pytriton_app`."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from benchmarks.peers._served import HOST, INPUT, MAX_BATCH_SIZE, OUTPUT, Array, Served, models, port
from pytriton.decorators import batch  # type: ignore[import-not-found]
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor  # type: ignore[import-not-found]
from pytriton.triton import Triton, TritonConfig  # type: ignore[import-not-found]

# Each is a process.
FUNCTIONS = 2
CLASSES = 10


def function(model: Served) -> Callable[..., Any]:
    """A batch that Triton has joined."""

    def infer(**rows: Array) -> dict[str, Array]:
        return {OUTPUT: model.rows(rows[INPUT])}

    batched: Callable[..., Any] = batch(infer)
    return batched


def main() -> None:
    """Serve until a signal comes."""
    config = TritonConfig(
        http_address=HOST,
        http_port=port("http"),
        grpc_address=HOST,
        grpc_port=port("grpc"),
        allow_metrics=False,
        log_verbose=0,
    )
    with Triton(config=config, workspace=f"{os.environ['BENCH_FOLDER']}/workspace") as triton:
        for name, model in models().items():
            triton.bind(
                model_name=name,
                infer_func=[function(Served(**model)) for _ in range(FUNCTIONS)],
                inputs=[Tensor(name=INPUT, dtype=np.float32, shape=tuple(model["shape"][1:]))],
                outputs=[Tensor(name=OUTPUT, dtype=np.float32, shape=(CLASSES,))],
                config=ModelConfig(
                    max_batch_size=MAX_BATCH_SIZE, batcher=DynamicBatcher(max_queue_delay_microseconds=0)
                ),
                # Its own checks of what the function returns.
                strict=False,
            )
        gc.freeze()
        triton.serve()


if __name__ == "__main__":
    main()
