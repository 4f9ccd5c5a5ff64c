"""Twenty minutes of all reference models, in batches of all sizes and rows of all lengths: memory must stay flat.

Triton serves the zoo, and three small models whose rows have open lengths. Threads ask over HTTP and gRPC as fast as
they are answered; every answer is checked. Prints one JSON document on standard output and draws the curves; exit code
1 if the memory of a process grows or an answer is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from benchmarks._memory import (
    ALL,
    KINDS,
    MAX_GROWTH,
    MAX_TREND,
    WARM_UP_SHARE,
    Sample,
    draw,
    judge,
    least_minutes,
    look,
    processes,
    series,
)
from benchmarks._shared import Array, BenchError, print_columns, zoo
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup

from tritium.client import TensorSpec, TritiumError
from tritium.repository import (
    GoldenCases,
    Manifest,
    Repository,
    Serving,
    Tolerance,
    compare,
    config_text,
    is_float,
    load_golden,
    model_config,
    named_outputs,
)
from tritium.server import TritonServer

MAX_ROWS, MAX_LENGTH, MAX_WORDS = 64, 200, 300
# Of the questions to a model that reads texts, so many are texts of another length than any golden case has.
INVENTED_SHARE = 0.5
TIMEOUT_S = 60.0
_WEIGHTS = np.random.default_rng(0).normal(size=(32, 8)).astype(np.float32)


@dataclass(frozen=True)
class Question:
    """What a model is asked.

    Attributes:
        right: the outputs by name; empty if they are not known.
    """

    inputs: Mapping[str, Array]
    right: Mapping[str, Array]
    tolerance: Tolerance

    @property
    def rows(self) -> int:
        """How many."""
        return len(next(iter(self.inputs.values())))

    def fault(self, answer: Mapping[str, Array]) -> str:
        """What is wrong with an answer; empty if nothing is."""
        if self.right:
            return "; ".join(str(item) for item in compare(self.right, answer, self.tolerance) if not item.ok)
        good = all(
            len(array) == self.rows and (not is_float(array) or np.isfinite(array).all()) for array in answer.values()
        )
        return "" if good else "rows are missing, or not finite"


Ask = Callable[[Random], Question]


@dataclass(frozen=True)
class Open:
    """A small model whose rows have open lengths.

    Attributes:
        nodes: its graph, from ``x`` to ``y``.
        dtypes: of ``x`` and ``y``, as ONNX and as Triton call it.
        dims: of ``x`` and ``y``, without the batch axis; -1 is open.
        make: an input of so many rows.
        answer: what is right.
    """

    nodes: Sequence[Any]
    dtypes: tuple[int, str]
    dims: tuple[int, int]
    make: Callable[[Random, int], Array]
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

    def ask(self, rng: Random) -> Question:
        """Rows that were not asked before."""
        x = self.make(rng, rng.randint(1, MAX_ROWS))
        return Question({"x": x}, {"y": self.answer(x)}, Tolerance(atol=0.01, rtol=1e-4))


def _floats(rng: Random, rows: int, length: int) -> Array:
    return np.frombuffer(rng.randbytes(rows * length), np.uint8).reshape(rows, length).astype(np.float32)


def _words(rng: Random, rows: int) -> Array:
    lengths = rng.choices((0, 1, 7, 15, 16, 31, 100, 1000), k=rows * rng.randrange(1, 9))
    return np.array(["w" * length for length in lengths], object).reshape(rows, -1)


FP32, BYTES = (TensorProto.FLOAT, "FP32"), (TensorProto.STRING, "BYTES")
OPEN = {
    # Every length is known, so that the session writes into the response; two instances share it.
    "open_linear": Open(
        [helper.make_node("MatMul", ["x", "weights"], ["y"])],
        FP32,
        (32, 8),
        lambda rng, rows: _floats(rng, rows, 32),
        lambda x: x @ _WEIGHTS,
        instances=2,
    ),
    "open_series": Open(
        [helper.make_node("Relu", ["x"], ["y"])],
        FP32,
        (-1, -1),
        lambda rng, rows: _floats(rng, rows, rng.randrange(1, MAX_LENGTH + 1)) - 128,
        lambda x: np.maximum(x, 0),
    ),
    "open_words": Open([helper.make_node("Identity", ["x"], ["y"])], BYTES, (-1, -1), _words, lambda x: x),
}


@dataclass(frozen=True)
class Golden:
    """A reference model, asked by its golden cases."""

    cases: GoldenCases
    tolerance: Tolerance
    max_rows: int

    @classmethod
    def of(cls, repository: Repository, model: str) -> Golden:
        """The latest version's."""
        folder, config = repository.version_folder(model), repository.config(model)
        return cls(load_golden(folder, config), Manifest.load(folder).tolerance, config.max_batch_size)

    def ask(self, rng: Random) -> Question:
        """Golden cases in any number and order; of texts also such as nobody wrote, because their lengths vary most."""
        chosen = rng.choices(range(len(self.cases)), k=rng.randint(1, self.max_rows))
        inputs = {name: array[chosen] for name, array in self.cases.inputs.items()}
        if self._reads_texts() and rng.random() < INVENTED_SHARE:
            return Question({name: self._invented(rng, array) for name, array in inputs.items()}, {}, self.tolerance)
        return Question(inputs, {name: array[chosen] for name, array in self.cases.outputs.items()}, self.tolerance)

    def _reads_texts(self) -> bool:
        return all(array.dtype == object and " " in str(array.flat[0]) for array in self.cases.inputs.values())

    def _invented(self, rng: Random, texts: Array) -> Array:
        """Of the words of these texts."""
        words = [word for text in texts.flat for word in str(text).split()]
        made = [" ".join(rng.choices(words, k=rng.randint(1, MAX_WORDS))) for _ in range(texts.size)]
        return np.array(made, object).reshape(texts.shape)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-memory", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--threads", type=int, default=4, help="that ask, over HTTP and gRPC by turns")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two looks at the memory")
    parser.add_argument("--onnx-backend", choices=("native", "python"), default="native")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, default=Path("build/memory.png"), help="where to draw the curves")
    options = parser.parse_args()
    if options.every <= 0 or options.threads < 1:
        parser.error("--every must be above 0 and --threads 1 or more")
    if options.minutes < least_minutes(options.every):
        parser.error(f"--minutes must be {least_minutes(options.every):.2g} or more to look every {options.every:g} s")
    try:
        samples, asked, wrong = run(options)
    except (BenchError, TritiumError) as exc:
        parser.exit(2, f"{exc}\n")
    verdicts = {} if wrong else {process: judge(*series(samples, "rss", process)) for process in processes(samples)}
    title = (
        f"{sum(asked.values())} requests in {options.minutes:g} minutes, {options.onnx_backend} ONNX Runtime backend"
    )
    draw(samples, title, options.plot)
    cells = [["", "after warm-up, MB", "at the end, MB", "growth", "trend", "flat"]]
    for process, verdict in verdicts.items():
        sizes = f"{verdict.warm_mb:.1f}", f"{verdict.end_mb:.1f}"
        shares = f"{verdict.growth:+.2%}", f"{verdict.trend:+.2%}"
        cells.append([process, *sizes, *shares, "yes" if verdict.flat else "NO"])
    flat = not wrong and all(verdict.flat for verdict in verdicts.values())
    print_columns(cells)
    print(f"{title}: {'; '.join(wrong) or ('memory stayed flat' if flat else 'memory GREW')}", file=sys.stderr)
    print(f"The curves are in {options.plot}", file=sys.stderr)
    document = {
        "minutes": options.minutes,
        "threads": options.threads,
        "seed": options.seed,
        "onnx_backend": options.onnx_backend,
        "cpus": os.cpu_count(),
        "requests": dict(sorted(asked.items())),
        "wrong": wrong,
        "flat": flat,
        "limits": {"growth": MAX_GROWTH, "trend": MAX_TREND, "warm_up_share": WARM_UP_SHARE},
        "verdicts": {process: asdict(verdict) for process, verdict in verdicts.items()},
        "samples": [
            {"at_s": round(sample.at_s, 1)}
            | {kind: {name: round(mb, 1) for name, mb in sample.mb[kind].items()} for kind in KINDS}
            for sample in samples
        ],
    }
    print(json.dumps(document))
    return 0 if flat else 1


def run(options: argparse.Namespace) -> tuple[list[Sample], Counter[str], list[str]]:
    """Ask until the time is over; what memory there was when, how often what was asked, and what went wrong."""
    samples: list[Sample] = []
    done = threading.Event()
    with tempfile.TemporaryDirectory(prefix="tritium-memory-") as name:
        folder = Path(name)
        source = zoo()
        asks: dict[str, Ask] = {}
        for model in source.models():
            shutil.copytree(source.path / model, folder / model)
            asks[model] = Golden.of(source, model).ask
        for model, subject in OPEN.items():
            subject.write(model, folder)
            asks[model] = subject.ask
        with (
            TritonServer(folder, onnx_backend=options.onnx_backend) as server,
            ThreadPoolExecutor(options.threads) as pool,
        ):
            threads = []
            for number in range(options.threads):
                rng = Random(f"{options.seed} {number}")  # noqa: S311 - questions, not secrets
                threads.append(pool.submit(ask, server, ("http", "grpc")[number % 2], asks, rng, done))
            started_s = time.monotonic()
            try:
                while (at_s := time.monotonic() - started_s) < options.minutes * 60 and not done.is_set():
                    samples.append(look(server.pid, at_s))
                    print(f"\r{at_s / 60:5.1f} min  {samples[-1].mb['rss'][ALL]:7.1f} MB", end="", file=sys.stderr)
                    done.wait(options.every)
            finally:
                done.set()
                print(file=sys.stderr)
    ended = [thread.result() for thread in threads]
    return samples, sum((asked for asked, _ in ended), Counter()), [fault for _, fault in ended if fault]


def ask(
    server: TritonServer, protocol: str, asks: Mapping[str, Ask], rng: Random, done: threading.Event
) -> tuple[Counter[str], str]:
    """Ask one question after another until it is done or an answer is wrong; how often what was asked, the fault."""
    asked: Counter[str] = Counter()
    try:
        with server.client(protocol=protocol, timeout_s=TIMEOUT_S) as client:
            models = {name: client.model(name) for name in asks}
            outputs = {name: [spec.name for spec in model.metadata.outputs] for name, model in models.items()}
            while not done.is_set():
                name = rng.choice(list(asks))
                question = asks[name](rng)
                try:
                    answer = named_outputs(models[name](dict(question.inputs)), outputs[name])
                    fault = question.fault(answer)
                except TritiumError as exc:
                    fault = str(exc)
                asked[f"{name} over {protocol}"] += 1
                if fault:
                    return asked, f"{name} over {protocol}, {question.rows} rows: {fault}"
        return asked, ""
    finally:
        done.set()


if __name__ == "__main__":
    sys.exit(main())
