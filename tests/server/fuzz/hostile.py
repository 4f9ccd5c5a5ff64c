"""Requests by number: every twentieth is good, the others are hostile, each in its own way.

A number always gives the same request, so that what a run has found can be asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from .lies import GRPC_LIES, HTTP_LIES, SHARED_LIES
from .models import Subject, UnknownAnswerError, length
from .request import Request
from .subjects import AFFORDABLE, IMPOSSIBLE
from .tensors import DTYPES, Tensor

GOOD_EVERY = 20
# So many in a row go to the same model and are of the same length, so that good and bad travel in one batch.
_BURST = 32
# By these ONNX Runtime's kernels count and index, and they look twice: whoever changes them meanwhile in shared memory
# makes it write beyond its buffers. Used in place, they are not torn.
_DECISIVE = ("BOOL", "INT32", "INT64")
_ODD_AXES = (-(2**63), -(2**31), -1, 0, 1, 2, 2**16, 2**31, 2**32, 2**61, 2**62, 2**63 - 1)
_ODD_NAMES = ("", " ", "X", "x\0", "größe", "x" * 10_000, "../x", "before", "after", "y")
_ODD_PARAMETERS: Mapping[str, Sequence[Any]] = {
    "timeout": (-1, 0, 1, 2**63 - 1, "soon", True),
    "priority": (-1, 1, 2**64 - 1, "high"),
    "sequence_id": (-1, 1, 2**64 - 1, "me", ""),
    "sequence_start": (True, 1, "yes"),
    "triton_enable_empty_final_response": (True, "yes"),
    "binary_data_output": ("yes", 7),
    "anything": ("x" * 5000, -1, True),
}


def make(number: int, seed: int, subjects: Sequence[Subject]) -> Request:
    """The request of that number. What it may make a model write is bounded."""
    burst = Random(f"{seed} {number // _BURST}")
    subject, width = burst.choice(subjects), length(burst)
    for attempt in range(100):
        rng = Random(f"{seed} {number} {attempt}")
        request = (hostile if number % GOOD_EVERY else good)(number, rng, subject, width)
        if _affordable(request):
            return request
    raise AssertionError(f"request {number} cannot be made")


def good(number: int, rng: Random, subject: Subject, width: int) -> Request:
    """A request that must be answered."""
    request = _request(number, rng, subject, "good", subject.tensors(subject.fill(rng, _rows(rng, subject), width)))
    request.good = True
    request.shared = rng.random() < 0.2
    if subject.config.HasField("sequence_batching"):
        request.parameters = {"sequence_id": 1000 + number, "sequence_start": True, "sequence_end": True}
    request.expected = subject.expected(request.inputs, request.outputs)
    assert request.expected is not None, f"{request} is no good one"
    return request


def hostile(number: int, rng: Random, subject: Subject, width: int) -> Request:
    """A request with something wrong in it, or with values that the model may not take."""
    request = _request(number, rng, subject, "twisted", subject.tensors(subject.twist(rng, _rows(rng, subject), width)))
    request.shared = rng.random() < 0.1
    if subject.config.HasField("sequence_batching"):
        # Few sequences, so that there is always room for a good one.
        request.parameters = {"sequence_id": rng.randrange(1, 5)}
        request.parameters |= {f"sequence_{end}": True for end in ("start", "end") if rng.random() < 0.5}
    if any(tensor.dtype == "BYTES" for tensor in request.inputs) and rng.random() < 0.4:
        request.kind = "odd string"
    elif rng.random() < 0.5:
        request.kind = rng.choice(list(_KINDS))
    if request.kind != "twisted":
        _KINDS[request.kind](rng, request)
    if request.lie is not None and request.lie.fails:
        return request
    request.free |= request.lie is not None
    try:
        request.expected = subject.expected(request.inputs, request.outputs)
    except UnknownAnswerError:
        request.free = True
    # What a sequence has come to is for the server alone to know.
    request.free |= request.torn or (subject.config.HasField("sequence_batching") and request.expected is not None)
    return request


def _request(number: int, rng: Random, subject: Subject, kind: str, inputs: list[Tensor]) -> Request:
    names = [spec.name for spec in subject.outputs]
    outputs = rng.sample(names, rng.randrange(len(names) + 1))
    return Request(number, subject, kind, rng.choice(("http", "grpc")), inputs, outputs)


def _rows(rng: Random, subject: Subject) -> int:
    one_only = subject.config.HasField("sequence_batching")
    return 1 if one_only else rng.choice((1, 1, 2, rng.randrange(1, max(2, subject.max_rows + 1))))


def _affordable(request: Request) -> bool:
    if request.subject.cost is None:
        return True
    if request.torn or (request.lie is not None and not request.lie.fails):
        return False  # nobody knows what it will ask for
    try:
        cost = request.subject.cost(request.subject.arrays(request.inputs))
    except ValueError:
        return True
    return not AFFORDABLE < cost < IMPOSSIBLE


def _odd_size(rng: Random, request: Request) -> None:
    tensor = rng.choice(request.inputs)
    cut = rng.randrange(len(tensor.data) + 1)
    tensor.data = rng.choice((tensor.data[:cut], tensor.data[:-1], tensor.data + rng.randbytes(rng.choice((1, 4, 64)))))


def _odd_content(rng: Random, request: Request) -> None:
    tensor = rng.choice(request.inputs)
    tensor.data = rng.randbytes(len(tensor.data))


def _odd_axis(rng: Random, request: Request) -> None:
    tensor = rng.choice(request.inputs)
    axis = rng.randrange(len(tensor.shape))
    tensor.shape[axis] = rng.choice((*_ODD_AXES, tensor.shape[axis] + 1, tensor.shape[axis] - 1))


def _odd_rank(rng: Random, request: Request) -> None:
    tensor = rng.choice(request.inputs)
    tensor.shape = rng.choice(([], [1, *tensor.shape], [*tensor.shape, 1], tensor.shape[1:], [1] * 40 + tensor.shape))


def _huge_and_empty(rng: Random, request: Request) -> None:
    for tensor in request.inputs:
        tensor.shape = rng.choices((0, 1, 2**31, 2**62, 2**63 - 1), k=len(tensor.shape))
        tensor.shape[rng.randrange(len(tensor.shape))] = 0
        tensor.data = b""


def _no_rows(rng: Random, request: Request) -> None:
    # Triton takes the batch axis of such a request away.
    keep = rng.random() < 0.5
    for tensor in request.inputs:
        tensor.shape[0] = 0
        tensor.data = tensor.data if keep else b""


def _open_zero(rng: Random, request: Request) -> None:
    tensor = rng.choice(request.inputs)
    tensor.shape[-1] = 0
    tensor.data = b""


def _odd_dtype(rng: Random, request: Request) -> None:
    rng.choice(request.inputs).dtype = rng.choice((*DTYPES, "", "FP8", "fp32"))


def _odd_name(rng: Random, request: Request) -> None:
    rng.choice(request.inputs).name = rng.choice((*_ODD_NAMES, request.inputs[0].name))


def _missing(rng: Random, request: Request) -> None:
    request.inputs.remove(rng.choice(request.inputs))


def _twice(rng: Random, request: Request) -> None:
    request.inputs.append(rng.choice(request.inputs))


def _swapped(rng: Random, request: Request) -> None:
    one, other = rng.choice(request.inputs), rng.choice(request.inputs)
    one.data, other.data = other.data, one.data
    if rng.random() < 0.5:
        one.shape, other.shape = other.shape, one.shape


def _sizes_that_lie(rng: Random, request: Request) -> None:
    # The bytes are as many as should be, but the border between two inputs lies elsewhere.
    one, other = request.inputs[0], request.inputs[-1]
    if one is not other:
        both = one.data + other.data
        cut = rng.randrange(len(both) + 1)
        one.data, other.data = both[:cut], both[cut:]


def _odd_output(rng: Random, request: Request) -> None:
    request.outputs = [*request.outputs, rng.choice((*_ODD_NAMES, request.subject.outputs[0].name))]
    # It would not be known which place an output that is asked for twice goes to.
    request.shared = False


def _odd_string(rng: Random, request: Request) -> None:
    # Triton itself counts the strings, and does not mind if the last one is too long.
    tensor = rng.choice([tensor for tensor in request.inputs if tensor.dtype == "BYTES"] or request.inputs)
    data = bytearray(tensor.data)
    starts, at = [], 0
    while at + 4 <= len(data):
        starts.append(at)
        at += 4 + int.from_bytes(data[at : at + 4], "little")
    if starts:
        start = starts[-1] if rng.random() < 0.7 else rng.choice(starts)
        said = int.from_bytes(data[start : start + 4], "little")
        odd = rng.choice((0xFFFFFFFF, 0x80000000, 0x7FFFFFFF, 0xFFFFFFFC, len(data), said + 1, max(0, said - 1), 0))
        data[start : start + 4] = (odd % 2**32).to_bytes(4, "little")
    if rng.random() < 0.3:
        del data[-rng.choice((1, 2, 5)) :]
    tensor.data = bytes(data)


def _odd_parameters(rng: Random, request: Request) -> None:
    for name in rng.sample(list(_ODD_PARAMETERS), 2):
        request.parameters[name] = rng.choice(_ODD_PARAMETERS[name])
    # Some of them change how the answer is written.
    request.free = True


def _torn(rng: Random, request: Request) -> None:
    request.shared = True
    request.torn = not any(tensor.dtype in _DECISIVE for tensor in request.inputs)


def _lie(rng: Random, request: Request) -> None:
    request.lie = rng.choice(HTTP_LIES if request.protocol == "http" else GRPC_LIES)
    request.shared = False


def _shared_lie(rng: Random, request: Request) -> None:
    request.lie = rng.choice(SHARED_LIES)
    request.shared = True


_KINDS: Mapping[str, Callable[[Random, Request], None]] = {
    "odd size": _odd_size,
    "odd content": _odd_content,
    "odd axis": _odd_axis,
    "odd rank": _odd_rank,
    "huge and empty": _huge_and_empty,
    "no rows": _no_rows,
    "open axis 0": _open_zero,
    "odd dtype": _odd_dtype,
    "odd name": _odd_name,
    "missing": _missing,
    "twice": _twice,
    "swapped": _swapped,
    "sizes that lie": _sizes_that_lie,
    "odd output": _odd_output,
    "odd string": _odd_string,
    "odd parameters": _odd_parameters,
    "torn": _torn,
    "lie": _lie,
    "shared lie": _shared_lie,
}
