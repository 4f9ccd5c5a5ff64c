"""Half an hour of mixed shapes over HTTP and gRPC: every answer is checked, and Triton's memory must stay flat.

Prints one JSON document on standard output; exit code 1 if memory grows or an answer is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup

from tritium.client import TensorSpec, TritiumError
from tritium.repository import Serving, config_text, model_config
from tritium.server import TritonServer

Array = NDArray[Any]
MAX_ROWS, MAX_LENGTH = 64, 200
# Memory may be more in the last third of what comes after the warm-up than in its first, by this share.
MAX_GROWTH = 0.05
# And over the last two thirds its trend may lead up by this share.
MAX_TREND = 0.02
WARM_UP_SHARE = 0.2
_LEAST_SAMPLES = 12
_WEIGHTS = np.random.default_rng(0).normal(size=(32, 8)).astype(np.float32)


@dataclass(frozen=True)
class Subject:
    """A model and its questions.

    Attributes:
        nodes: its graph, from ``x`` to ``y``.
        dtypes: of ``x`` and ``y``, as ONNX and as Triton call it.
        dims: of ``x`` and ``y``, without the batch axis; -1 is open.
        ask: a question of so many rows.
        answer: what is right.
    """

    nodes: Sequence[Any]
    dtypes: tuple[int, str]
    dims: tuple[int, int]
    ask: Callable[[Random, int], Array]
    answer: Callable[[Array], Array]
    instances: int = 1

    def write(self, name: str, repository: Path) -> None:
        """Put it into a model repository."""
        element, dtype = self.dtypes
        values = [
            helper.make_tensor_value_info(which, element, ["batch", which if dim == -1 else dim])
            for which, dim in zip("xy", self.dims, strict=True)
        ]
        weights = [numpy_helper.from_array(_WEIGHTS, "weights")]
        graph = helper.make_graph(list(self.nodes), name, values[:1], values[1:], weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        config = model_config(
            name,
            backend="onnxruntime",
            inputs=[TensorSpec("x", dtype, (-1, self.dims[0]))],
            outputs=[TensorSpec("y", dtype, (-1, self.dims[1]))],
            serving=Serving(max_batch_size=MAX_ROWS, instances=self.instances),
        )
        config.instance_group[0].kind = ModelInstanceGroup.KIND_CPU
        version = repository / name / "1"
        version.mkdir(parents=True)
        (version / "model.onnx").write_bytes(model.SerializeToString())
        (repository / name / "config.pbtxt").write_text(config_text(config), encoding="utf-8")


def _floats(rng: Random, rows: int, length: int) -> Array:
    return np.frombuffer(rng.randbytes(rows * length), np.uint8).reshape(rows, length).astype(np.float32)


def _words(rng: Random, rows: int) -> Array:
    lengths = rng.choices((0, 1, 7, 15, 16, 31, 100, 1000), k=rows * rng.randrange(1, 9))
    return np.array(["w" * length for length in lengths], object).reshape(rows, -1)


FP32, BYTES = (TensorProto.FLOAT, "FP32"), (TensorProto.STRING, "BYTES")
SUBJECTS = {
    # Every length is known, so that the session writes into the response; two instances share it.
    "linear": Subject(
        [helper.make_node("MatMul", ["x", "weights"], ["y"])],
        FP32,
        (32, 8),
        lambda rng, rows: _floats(rng, rows, 32),
        lambda x: x @ _WEIGHTS,
        instances=2,
    ),
    "series": Subject(
        [helper.make_node("Relu", ["x"], ["y"])],
        FP32,
        (-1, -1),
        lambda rng, rows: _floats(rng, rows, rng.randrange(1, MAX_LENGTH + 1)) - 128,
        lambda x: np.maximum(x, 0),
    ),
    "words": Subject([helper.make_node("Identity", ["x"], ["y"])], BYTES, (-1, -1), _words, lambda x: x),
}


@dataclass(frozen=True)
class Verdict:
    """How memory went; 1 MB is 1 000 000 bytes.

    Attributes:
        medians_mb: of the thirds of what comes after the warm-up.
        growth: from the first of them to the last, as a share.
        trend: how far the median slope between any two samples leads in the last two thirds, as a share.
    """

    medians_mb: list[float]
    growth: float
    trend: float
    flat: bool


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=200.0, help="requests per second, both protocols together")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two looks at the memory")
    parser.add_argument("--onnx-backend", choices=("native", "python"), default="native")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.minutes * 60 * (1 - WARM_UP_SHARE) < _LEAST_SAMPLES * options.every:
        parser.error(f"--minutes must leave time for {_LEAST_SAMPLES} looks at the memory after the warm-up")
    if options.rate <= 0 or options.every <= 0:
        parser.error("--rate and --every must be above 0")

    samples, asked, wrong = soak(options)
    verdict = None if wrong else judge(samples)
    document = {
        "minutes": options.minutes,
        "onnx_backend": options.onnx_backend,
        "requests": dict(sorted(asked.items())),
        "wrong": wrong,
        **(asdict(verdict) if verdict else {}),
        "limits": {"growth": MAX_GROWTH, "trend": MAX_TREND, "warm_up_share": WARM_UP_SHARE},
        "rss_mb": [[round(at_s), round(rss_mb, 2)] for at_s, rss_mb in samples],
    }
    print(json.dumps(document))
    said = "memory stayed flat" if verdict and verdict.flat else "memory GREW" if verdict else "; ".join(wrong)
    print(f"{asked.total()} requests: {said}", file=sys.stderr)
    return 0 if verdict and verdict.flat else 1


def soak(options: argparse.Namespace) -> tuple[list[tuple[float, float]], Counter[str], list[str]]:
    """Ask until the time is over; what memory there was when, how often what was asked, and what went wrong."""
    asked: Counter[str] = Counter()
    samples: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(prefix="tritium-soak-") as folder:
        for name, subject in SUBJECTS.items():
            subject.write(name, Path(folder))
        done = threading.Event()
        with (
            TritonServer(folder, onnx_backend=options.onnx_backend) as server,
            ThreadPoolExecutor(2) as pool,
        ):
            tree = psutil.Process(server.pid)
            asking = [pool.submit(_ask, server, protocol, options, done) for protocol in ("http", "grpc")]
            started_s = time.monotonic()
            try:
                while (at_s := time.monotonic() - started_s) < options.minutes * 60 and not _over(asking):
                    processes = [tree, *tree.children(recursive=True)]
                    samples.append((at_s, sum(process.memory_info().rss for process in processes) / 1e6))
                    print(f"\r{at_s / 60:5.1f} min  {samples[-1][1]:7.1f} MB", end="", file=sys.stderr)
                    done.wait(options.every)
            finally:
                done.set()
                print(file=sys.stderr)
            for future in asking:
                asked += future.result()[0]
            wrong = [what for future in asking for what in future.result()[1]]
    return samples, asked, wrong


def judge(samples: Sequence[tuple[float, float]]) -> Verdict:
    """Whether memory stayed flat after the warm-up."""
    whole_s = samples[-1][0]
    after = np.array([sample for sample in samples if sample[0] >= whole_s * WARM_UP_SHARE])
    thirds = np.array_split(after, 3)
    medians = [float(np.median(third[:, 1])) for third in thirds]
    times, sizes = np.concatenate(thirds[1:]).T
    one, other = np.triu_indices(len(times), k=1)
    # The median of the slopes does not follow a single sample that lies far off.
    slope = float(np.median((sizes[other] - sizes[one]) / (times[other] - times[one])))
    trend = slope * float(times[-1] - times[0]) / medians[1]
    growth = medians[2] / medians[0] - 1
    flat = growth < MAX_GROWTH and trend < MAX_TREND
    return Verdict([round(median, 2) for median in medians], round(growth, 5), round(trend, 5), flat)


def _over(asking: Sequence[Future[Any]]) -> bool:
    """Whether somebody has given up: an answer was wrong."""
    return any(future.done() for future in asking)


def _ask(
    server: TritonServer, protocol: str, options: argparse.Namespace, done: threading.Event
) -> tuple[Counter[str], list[str]]:
    """Ask at a steady rate until it is done, or an answer is wrong; how often what was asked, and what was wrong."""
    asked: Counter[str] = Counter()
    rng = Random(f"{options.seed} {protocol}")  # noqa: S311 - questions, not secrets
    each_s = 2 / options.rate
    with server.client(protocol=protocol) as client:
        models = {name: client.model(name) for name in SUBJECTS}
        next_s = time.monotonic()
        while not done.is_set():
            name, rows = rng.choice(list(SUBJECTS)), rng.randrange(1, MAX_ROWS + 1)
            question = SUBJECTS[name].ask(rng, rows)
            asked[f"{name} over {protocol}"] += 1
            try:
                answer, right = models[name](question), SUBJECTS[name].answer(question)
            except TritiumError as exc:
                return asked, [f"{name} over {protocol}: {exc}"]
            same = (
                np.array_equal(answer, right)
                if right.dtype == object
                else np.allclose(answer, right, rtol=1e-4, atol=0.01)
            )
            if answer.shape != right.shape or not same:
                return asked, [f"{name} over {protocol}: a wrong answer to {rows} rows"]
            next_s = max(next_s + each_s, time.monotonic() - 1)
            done.wait(max(0.0, next_s - time.monotonic()))
    return asked, []


if __name__ == "__main__":
    sys.exit(main())
