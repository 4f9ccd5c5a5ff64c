"""Configs, figures and trials to tell the tuner, as if they had been measured."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from tritonclient.grpc.model_config_pb2 import ModelConfig

from tritium.client import TensorSpec
from tritium.loadtest import Figures, Knobs, Trial
from tritium.repository import Serving, model_config

ROW = [TensorSpec("x", "FP32", (-1, 4))]
T = TypeVar("T")
CURRENT = Knobs(instances=1, threads=1, max_batch=64, delay_us=0)


def config(**serving: Any) -> ModelConfig:
    return model_config("m", backend="onnxruntime", inputs=ROW, outputs=[tensor("y")], serving=Serving(**serving))


def tensor(name: str) -> TensorSpec:
    return TensorSpec(name, "FP32", (-1, 4))


def figures(rate: float, p99_ms: float = 1.0, **more: int) -> Figures:
    right = round(rate)
    return Figures(duration_s=1.0, requests=right + sum(more.values()), right=right, p99_ms=p99_ms, **more)


def trial(gains: Sequence[float], *, p99_ms: float = 1.0, number: int = 1, **more: Any) -> Trial:
    return Trial(
        number=number,
        knobs=more.pop("knobs", replace(CURRENT, instances=2)),
        blocks=tuple(figures(10_000 * gain, p99_ms) for gain in gains),
        beside=(figures(10_000),) * len(gains),
        **more,
    )


def shuffled(items: Sequence[T]) -> list[T]:
    return random.Random(0).sample(items, len(items))
