"""Models that show what the protocol carries: tensors of every dtype and rank, answers in parts, and sequences.

`lay_out` writes all of them. Over the embedded server the identities want the native ONNX Runtime backend: the
Python-based one has no BF16 and refuses strings that are not UTF-8.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onnx import TensorProto, helper

# Every dtype of Triton, and what ONNX calls it.
DTYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}
# Triton fixes how many axes a tensor has, never none.
RANKS = (1, 2, 3, 4)

COUNTDOWN = """
import time

import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            self.count(request)

    def count(self, request):
        n = int(pb.get_input_tensor_by_name(request, "n").as_numpy()[0])
        sender = request.get_response_sender()
        for left in range(abs(n), 0, -1):
            if sender.is_cancelled():
                break
            sender.send(pb.InferenceResponse([pb.Tensor("left", np.array([left], np.int32))]))
            time.sleep(0.001)
        if n < 0:
            sender.send(pb.InferenceResponse(error=pb.TritonError(f"cannot count below {n}")))
        sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
COUNTDOWN_CONFIG = """
backend: "python"
max_batch_size: 0
input { name: "n" data_type: TYPE_INT32 dims: 1 }
output { name: "left" data_type: TYPE_INT32 dims: 1 }
instance_group { count: 1 kind: KIND_CPU }
model_transaction_policy { decoupled: true }
"""

ACCUMULATE = """
import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        self.totals = {}

    def execute(self, requests):
        return [pb.InferenceResponse(self.step(request)) for request in requests]

    def step(self, request):
        start, end, x = (pb.get_input_tensor_by_name(request, name).as_numpy() for name in ("start", "end", "x"))
        if corrid := pb.get_input_tensor_by_name(request, "corrid"):
            whose, sequence = int(corrid.as_numpy().item()), corrid.as_numpy().reshape(1)
        else:
            whose = str(request.correlation_id())
            sequence = np.array([whose.encode()], np.object_)
        total = x + (0 if start.any() else self.totals[whose])
        self.totals[whose] = total
        if end.any():
            del self.totals[whose]
        return [pb.Tensor("total", total), pb.Tensor("sequence", sequence)]
"""
ACCUMULATE_CONFIG = """
backend: "python"
max_batch_size: 0
input {{ name: "x" data_type: TYPE_INT64 dims: 1 }}
output {{ name: "total" data_type: TYPE_INT64 dims: 1 }}
output {{ name: "sequence" data_type: TYPE_{sequence} dims: 1 }}
instance_group {{ count: 1 kind: KIND_CPU }}
sequence_batching {{
    max_sequence_idle_microseconds: 60000000
    oldest {{ max_candidate_sequences: 64 }}
    control_input {{ name: "start" control {{ kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] }} }}
    control_input {{ name: "end" control {{ kind: CONTROL_SEQUENCE_END int32_false_true: [0, 1] }} }}
    control_input {{ name: "ready" control {{ kind: CONTROL_SEQUENCE_READY int32_false_true: [0, 1] }} }}
    {more}
}}
"""
CORRID = 'control_input { name: "corrid" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } }'


def identity_name(dtype: str, rank: int) -> str:
    """What the model is called that gives back a tensor of this dtype with this many axes."""
    return f"identity_{dtype}_{rank}d"


def add_identities(repository: Path, dtypes: Sequence[str] = tuple(DTYPES), ranks: Sequence[int] = RANKS) -> None:
    """For each dtype and rank a model without a batch axis: `x` comes back as `y`, whatever its axes' lengths."""
    for dtype in dtypes:
        for rank in ranks:
            axes = [f"axis{i}" for i in range(rank)]
            graph = helper.make_graph(
                [helper.make_node("Identity", ["x"], ["y"])],
                "graph",
                [helper.make_tensor_value_info("x", DTYPES[dtype], axes)],
                [helper.make_tensor_value_info("y", DTYPES[dtype], axes)],
            )
            model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
            tensor = f"data_type: TYPE_{'STRING' if dtype == 'BYTES' else dtype} dims: {[-1] * rank}"
            config = (
                'backend: "onnxruntime"\nmax_batch_size: 0\n'
                f'input {{ name: "x" {tensor} }}\noutput {{ name: "y" {tensor} }}\n'
                "instance_group { count: 1 kind: KIND_CPU }\n"
            )
            _write(repository / identity_name(dtype, rank), "model.onnx", model.SerializeToString(), config)


def add_countdown(repository: Path) -> None:
    """`countdown`, a decoupled model: `n` INT32[1] gives a `left` INT32[1] for each of n, n-1, …, 1, none for 0.

    A negative n gives as many answers as its magnitude, and then an error. A request that is cancelled ends it early.
    It takes a millisecond for each answer: this Triton can die of a cancellation that meets answers without a pause
    (its issues 7368 and 8034).
    """
    _write(repository / "countdown", "model.py", COUNTDOWN.encode(), COUNTDOWN_CONFIG)


def add_accumulate(repository: Path) -> None:
    """`accumulate` and `accumulate_by_name`: each `x` INT64[1] of a sequence gives the `total` INT64[1] so far.

    `sequence` is whose total it is: a UINT64, or BYTES for `accumulate_by_name`, whose sequences have names. That one
    asks the request for the name: this Triton pads a control of type string so that no Python model can read it.
    """
    for name, sequence, more in (("accumulate", "UINT64", CORRID), ("accumulate_by_name", "STRING", "")):
        config = ACCUMULATE_CONFIG.format(sequence=sequence, more=more)
        _write(repository / name, "model.py", ACCUMULATE.encode(), config)


def lay_out(repository: Path) -> None:
    """All of them."""
    add_identities(repository)
    add_countdown(repository)
    add_accumulate(repository)


def _write(folder: Path, file: str, content: bytes, config: str) -> None:
    (folder / "1").mkdir(parents=True)
    (folder / "1" / file).write_bytes(content)
    (folder / "config.pbtxt").write_text(config, encoding="utf-8")
