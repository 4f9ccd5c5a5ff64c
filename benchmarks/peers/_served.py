"""What every peer serves, in an environment of its own: the same ONNX files, by ONNX Runtime with one thread.

BENCH_MODELS names the models: a JSON object each of name, ONNX file and shape of one row. BENCH_HTTP_PORT and
BENCH_GRPC_PORT are where to listen on 127.0.0.1. This needs numpy and ONNX Runtime only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

HOST = "127.0.0.1"
INPUT, OUTPUT = "features", "scores"
MAX_BATCH_SIZE = 64

Array = NDArray[Any]


class Served:
    """One model; a row of float32 comes and goes as raw bytes."""

    def __init__(self, name: str, file: str, shape: Sequence[int]) -> None:
        self.name = name
        self.shape = tuple(shape)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._run = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"]).run

    def one(self, row: bytes) -> bytes:
        """The answer to one row."""
        answer: bytes = self.rows(np.frombuffer(row, np.float32).reshape(self.shape)).tobytes()
        return answer

    def batch(self, rows: Sequence[bytes]) -> list[bytes]:
        """The answers to several, in one run."""
        answers = self.rows(np.frombuffer(b"".join(rows), np.float32).reshape(len(rows), *self.shape[1:]))
        return [answer.tobytes() for answer in answers]

    def rows(self, rows: Array) -> Array:
        """The same as arrays."""
        answers: Array = self._run([OUTPUT], {INPUT: rows})[0]
        return answers


def models() -> dict[str, dict[str, Any]]:
    """What `Served` takes, by the model's name."""
    return {model["name"]: model for model in json.loads(os.environ["BENCH_MODELS"])}


def served() -> dict[str, Served]:
    """The models, loaded."""
    return {name: Served(**model) for name, model in models().items()}


def port(protocol: str) -> int:
    """Where to listen, for ``http`` or ``grpc``."""
    return int(os.environ[f"BENCH_{protocol.upper()}_PORT"])
