"""The models that are asked: each goes another way through the backend."""

from __future__ import annotations

import math
from functools import partial
from random import Random

import numpy as np
from onnx import helper, numpy_helper

from .models import DYNAMIC_BATCHING, Arrays, Spec, Subject, UnknownAnswerError, length, random_array, subject

# What a request may make a model write, in elements; or else more than a process can ever address.
AFFORDABLE, IMPOSSIBLE = 1 << 16, 1 << 48
_SEVEN = numpy_helper.from_array(np.array([7], np.int64))
_ODD = (-(2**63), -(2**31), -2, -1, 0, 0, 1, 2, 3, 5, 2**31, 2**40, 2**62, 2**63 - 1)


def subjects() -> dict[str, Subject]:
    """Every model, by name."""
    numbers = [double(), total(), rows(), pick(), shape(), fill(), kinds(), biased(), keep(), fold(), tally()]
    strings = [echo(), join(), trail()]
    return {one.name: one for one in numbers + strings}


def double() -> Subject:
    """Every axis but the batch is known: the session writes into the response."""
    return subject(
        "double",
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [Spec("x", "FP32", (3,))],
        [Spec("y", "FP32", (3,))],
        lambda arrays: {"y": arrays["x"] + arrays["x"]},
        max_rows=8,
        arena=True,
    )


def total() -> Subject:
    """Two inputs whose open axes may not go together; two instances share a session."""
    return subject(
        "total",
        [helper.make_node("Add", ["a", "b"], ["y"])],
        [Spec("a", "FP32", (-1,)), Spec("b", "FP32", (-1,))],
        [Spec("y", "FP32", (-1,))],
        lambda arrays: {"y": arrays["a"] + arrays["b"]},
        max_rows=16,
        config=f"{DYNAMIC_BATCHING} instance_group {{ count: 2 kind: KIND_CPU }}",
    )


def rows() -> Subject:
    """An output that is larger than an empty input."""
    return subject(
        "rows",
        [
            helper.make_node("Shape", ["x"], ["batch"], start=0, end=1),
            helper.make_node("Concat", ["batch", "one"], ["shape"], axis=0),
            helper.make_node("ConstantOfShape", ["shape"], ["y"], value=_SEVEN),
        ],
        [Spec("x", "UINT8", (-1,))],
        [Spec("y", "INT64", (1,))],
        lambda arrays: {"y": np.full((len(arrays["x"]), 1), 7, np.int64)},
        max_rows=8,
        initializers=[numpy_helper.from_array(np.array([1], np.int64), "one")],
    )


def pick() -> Subject:
    """Indices that may be out of range: the batch fails, and each request must be run alone."""

    def ask(rng: Random, rows: int, width: int, *, good: bool) -> Arrays:
        width = max(1, width)
        data = random_array(rng, "FP64", [rows, width])
        some = [rng.choice((-width, width - 1) if good else (-width, width - 1, *_ODD)) for _ in range(2)]
        return {"data": data, "at": np.array([some] * rows, np.int64)}

    return subject(
        "pick",
        [helper.make_node("GatherElements", ["data", "at"], ["y"], axis=1)],
        [Spec("data", "FP64", (-1,)), Spec("at", "INT64", (-1,))],
        [Spec("y", "FP64", (-1,))],
        lambda arrays: {"y": np.take_along_axis(arrays["data"], arrays["at"], axis=1)},
        max_rows=8,
        fill=partial(ask, good=True),
        twist=partial(ask, good=False),
    )


def echo() -> Subject:
    """Strings, batched."""
    return subject(
        "echo",
        [helper.make_node("Identity", ["x"], ["y"])],
        [Spec("x", "BYTES", (-1,))],
        [Spec("y", "BYTES", (-1,))],
        lambda arrays: {"y": arrays["x"]},
        max_rows=8,
    )


def join() -> Subject:
    """Strings without a batch axis, in two inputs."""
    return subject(
        "join",
        [helper.make_node("StringConcat", ["a", "b"], ["y"])],
        [Spec("a", "BYTES", (-1,)), Spec("b", "BYTES", (-1,))],
        [Spec("y", "BYTES", (-1,))],
        lambda arrays: {"y": arrays["a"] + arrays["b"]},
    )


def shape() -> Subject:
    """An output whose number of axes is a matter of the request."""

    def answer(arrays: Arrays) -> Arrays:
        data, dims = arrays["data"], arrays["shape"].tolist()
        if min(dims, default=0) < -1:
            raise ValueError("negative")
        if data.size == 0:
            raise UnknownAnswerError("numpy has not every empty array")
        return {"y": data.reshape([data.shape[axis] if dim == 0 else dim for axis, dim in enumerate(dims)])}

    def good(rng: Random, _rows: int, _width: int) -> Arrays:
        factors = [rng.randrange(1, 5) for _ in range(rng.randrange(6))]
        return {
            "data": random_array(rng, "FP32", [math.prod(factors)]),
            "shape": np.array(factors, np.int64),
        }

    def twisted(rng: Random, _rows: int, width: int) -> Arrays:
        return {
            "data": random_array(rng, "FP32", [width]),
            "shape": np.array(rng.choices(_ODD, k=rng.choice((0, 1, 2, 3, 9, 40))), np.int64),
        }

    return subject(
        "shape",
        [helper.make_node("Reshape", ["data", "shape"], ["y"])],
        [Spec("data", "FP32", (-1,)), Spec("shape", "INT64", (-1,))],
        [Spec("y", "FP32", (-1,), ranked=False)],
        answer,
        fill=good,
        twist=twisted,
    )


def fill() -> Subject:
    """An output whose size is a matter of the request."""

    def ask(rng: Random, _rows: int, _width: int, *, good: bool) -> Arrays:
        choices = range(1, 6) if good else _ODD
        return {"shape": np.array(rng.choices(choices, k=rng.randrange(6)), np.int64)}

    def answer(arrays: Arrays) -> Arrays:
        dims = arrays["shape"].tolist()
        if min(dims, default=0) < 0 or math.prod(dims) > AFFORDABLE:
            raise ValueError("no process has this memory")
        if max(dims, default=0) > AFFORDABLE:
            raise UnknownAnswerError("numpy has not every empty array")
        return {"y": np.full(dims, 7, np.int64)}

    return subject(
        "fill",
        [helper.make_node("ConstantOfShape", ["shape"], ["y"], value=numpy_helper.from_array(np.array([7], np.int64)))],
        [Spec("shape", "INT64", (-1,))],
        [Spec("y", "INT64", (-1,), ranked=False)],
        answer,
        fill=partial(ask, good=True),
        twist=partial(ask, good=False),
        cost=lambda arrays: math.prod(max(0, dim) for dim in arrays["shape"].tolist()),
    )


def kinds() -> Subject:
    """Every size of element, a scalar for each row, and some of the outputs only."""
    specs = [
        Spec("flag", "BOOL", (-1,)),
        Spec("small", "UINT8", (3,)),
        Spec("short", "INT16", (-1,)),
        Spec("half", "FP16", (2,)),
        Spec("brain", "BF16", (-1,)),
        Spec("wide", "UINT64", ()),
    ]
    outputs = [Spec(f"{spec.name}_out", spec.dtype, spec.dims) for spec in specs]
    return subject(
        "kinds",
        [helper.make_node("Identity", [spec.name], [f"{spec.name}_out"]) for spec in specs],
        specs,
        outputs,
        lambda arrays: {f"{name}_out": array for name, array in arrays.items()},
        max_rows=4,
    )


def biased() -> Subject:
    """An input that may be left out."""
    return subject(
        "biased",
        [helper.make_node("Add", ["x", "bias"], ["y"])],
        [Spec("x", "INT32", (3,)), Spec("bias", "INT32", (3,), optional=True)],
        [Spec("y", "INT32", (3,))],
        lambda arrays: {"y": arrays["x"] + arrays.get("bias", np.array([1, 2, 3], np.int32))},
        initializers=[numpy_helper.from_array(np.array([1, 2, 3], np.int32), "bias")],
    )


def keep() -> Subject:
    """A file that says two elements come out, while it is a matter of the request."""

    def ask(rng: Random, _rows: int, width: int, *, good: bool) -> Arrays:
        return {
            "data": random_array(rng, "INT32", [width]),
            "keep": random_array(rng, "BOOL", [width if good else length(rng)]),
        }

    return subject(
        "keep",
        [helper.make_node("Compress", ["data", "keep"], ["y"], axis=0)],
        [Spec("data", "INT32", (-1,)), Spec("keep", "BOOL", (-1,))],
        [Spec("y", "INT32", (2,))],
        lambda arrays: {"y": np.compress(arrays["keep"][: len(arrays["data"])], arrays["data"])},
        fill=partial(ask, good=True),
        twist=partial(ask, good=False),
    )


def fold() -> Subject:
    """A model that keeps its batch axis only if there is one column."""

    def answer(arrays: Arrays) -> Arrays:
        if arrays["x"].shape[1] != 1:
            raise ValueError("the batch axis is lost")
        return {"y": arrays["x"]}

    return subject(
        "fold",
        [helper.make_node("Reshape", ["x", "column"], ["y"])],
        [Spec("x", "FP32", (-1,))],
        [Spec("y", "FP32", (1,))],
        answer,
        max_rows=8,
        initializers=[numpy_helper.from_array(np.array([-1, 1], np.int64), "column")],
        fill=lambda rng, rows, _width: {"x": random_array(rng, "FP32", [rows, 1])},
    )


def tally() -> Subject:
    """A sequence's running sum, kept by Triton; numpy knows only sequences of one request."""
    return _sequence("tally", "INT32", "Add")


def trail() -> Subject:
    """All that a sequence has said, kept by Triton."""
    return _sequence("trail", "BYTES", "StringConcat")


def _sequence(name: str, dtype: str, operator: str) -> Subject:
    config_dtype = "TYPE_STRING" if dtype == "BYTES" else f"TYPE_{dtype}"
    return subject(
        name,
        [helper.make_node(operator, ["before", "x"], ["after"]), helper.make_node("Identity", ["after"], ["y"])],
        [Spec("x", dtype, (1,))],
        [Spec("y", dtype, (1,))],
        lambda arrays: {"y": arrays["x"]},
        max_rows=4,
        config=f"""sequence_batching {{
            oldest {{ max_candidate_sequences: 16 }}
            max_sequence_idle_microseconds: 1000000
            state {{
                input_name: "before" output_name: "after" data_type: {config_dtype} dims: 1
                initial_state {{ data_type: {config_dtype} dims: 1 zero_data: true name: "nothing" }}
            }}
        }}""",
        hidden=[(Spec("before", dtype, (1,)), Spec("after", dtype, (1,)))],
    )
