"""Sequences of requests, with the state that Triton keeps between them; and what takes flags that a server has not.

Sequences run on the native backend only: the Python-based one knows no control inputs and no state.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from tritium.client import ServerError
from tritium.server import TritonServer

from .conftest import (
    Answer,
    Serve,
    Tensor,
    WriteModel,
    at_once,
    config,
    doubler,
    native_only,
    onnx_bytes,
    post,
    serving,
    wait_until,
)

CONTROLS = """
    control_input { name: "start" control { kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] } }
    control_input { name: "end" control { kind: CONTROL_SEQUENCE_END bool_false_true: [false, true] } }
    control_input { name: "ready" control { kind: CONTROL_SEQUENCE_READY fp32_false_true: [0, 1] } }
    control_input { name: "corrid" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } }
"""
STATE = """
    state {
        input_name: "before" output_name: "after" data_type: TYPE_FP32 dims: 2
        initial_state { name: "zero" data_type: TYPE_FP32 dims: 2 zero_data: true }
    }
"""
IDLE = "max_sequence_idle_microseconds: 60000000"


def accumulator(*, controls: bool = True) -> bytes:
    """after = before + x, and y the same; each control is given back as it came."""
    types = {
        "x": TensorProto.FLOAT,
        "before": TensorProto.FLOAT,
        "after": TensorProto.FLOAT,
        "y": TensorProto.FLOAT,
        "start": TensorProto.INT32,
        "end": TensorProto.BOOL,
        "ready": TensorProto.FLOAT,
        "corrid": TensorProto.UINT64,
    }
    names = ("start", "end", "ready", "corrid") if controls else ()
    types |= {f"{name}_out": types[name] for name in names}
    nodes = [helper.make_node("Add", ["before", "x"], ["after"]), helper.make_node("Identity", ["after"], ["y"])]
    nodes += [helper.make_node("Identity", [name], [f"{name}_out"]) for name in names]

    def tensor(name: str) -> Tensor:
        wide = name in ("x", "before", "after", "y")
        return (name, types[name], ("batch", 2 if wide else 1))

    inputs, outputs = ("x", "before", *names), ("after", "y", *(f"{name}_out" for name in names))
    return onnx_bytes(nodes, [tensor(name) for name in inputs], [tensor(name) for name in outputs])


ECHOES = ";start_out INT32 1;end_out BOOL 1;ready_out FP32 1;corrid_out UINT64 1"


def step(
    server: TritonServer, model: str, corrid: int | str, x: Any, *, start: bool = False, end: bool = False
) -> Answer:
    """One request of a sequence."""
    data = np.array([x], np.float32)
    parameters = {"sequence_id": corrid, "sequence_start": start, "sequence_end": end}
    return post(server, model, [("x", "FP32", [1, 2], data.tobytes())], parameters=parameters)


def floats(answer: Answer, name: str = "y") -> list[float]:
    assert not answer.error
    found: list[float] = np.frombuffer(answer.outputs[name], np.float32).tolist()
    return found


@native_only
@pytest.mark.parametrize("strategy", ["direct { }", "oldest { max_candidate_sequences: 4 }"])
def test_a_sequence_has_its_state_and_its_controls(onnx_server: TritonServer, serve: Serve, strategy: str) -> None:
    batching = f"sequence_batching {{ {IDLE} {strategy} {CONTROLS} {STATE} }}"
    name = serve(accumulator(), config("x FP32 2", "y FP32 2" + ECHOES, more=batching))
    totals: dict[int, Any] = {}
    # Two sequences, one step of each in turn, and then a third that begins anew under the first's number.
    steps = [(7, "s"), (9, "s"), (7, ""), (9, ""), (7, "e"), (9, ""), (7, "s"), (9, "e"), (7, "e")]
    for turn, (corrid, flag) in enumerate(steps, 1):
        answer = step(onnx_server, name, corrid, [turn, -turn], start=flag == "s", end=flag == "e")
        totals[corrid] = [turn, -turn] if flag == "s" else [totals[corrid][0] + turn, totals[corrid][1] - turn]
        assert floats(answer) == totals[corrid]
        assert np.frombuffer(answer.outputs["start_out"], np.int32).tolist() == [flag == "s"]
        assert np.frombuffer(answer.outputs["end_out"], np.bool_).tolist() == [flag == "e"]
        assert floats(answer, "ready_out") == [1]
        assert np.frombuffer(answer.outputs["corrid_out"], np.uint64).tolist() == [corrid]
        assert "after" not in answer.outputs  # kept by Triton, not declared as an output


@native_only
@pytest.mark.parametrize("strategy", ["direct { }", "oldest { max_candidate_sequences: 8 }"])
def test_sequences_that_come_at_once_do_not_mix(onnx_server: TritonServer, serve: Serve, strategy: str) -> None:
    batching = f"sequence_batching {{ {IDLE} {strategy} {CONTROLS} {STATE} }}"
    name = serve(accumulator(), config("x FP32 2", "y FP32 2" + ECHOES, more=batching))

    def run(corrid: int) -> list[float]:
        for turn in range(19):
            step(onnx_server, name, corrid, [corrid, turn], start=turn == 0)
        return floats(step(onnx_server, name, corrid, [corrid, 0], end=True))

    corrids = range(1, 9)
    assert at_once([partial(run, corrid) for corrid in corrids]) == [[20.0 * corrid, 171.0] for corrid in corrids]


@native_only
def test_a_state_may_be_an_output_too(onnx_server: TritonServer, serve: Serve) -> None:
    batching = f"sequence_batching {{ {IDLE} {STATE} }}"
    name = serve(accumulator(controls=False), config("x FP32 2", "after FP32 2;y FP32 2", more=batching))
    for turn in (1, 2, 3):
        answer = step(onnx_server, name, 5, [1, 2], start=turn == 1, end=turn == 3)
        assert floats(answer, "after") == floats(answer) == [turn, 2 * turn]


@native_only
def test_a_state_is_kept_where_only_other_outputs_are_asked_for(onnx_server: TritonServer, serve: Serve) -> None:
    batching = f"sequence_batching {{ {IDLE} {STATE} }}"
    name = serve(accumulator(controls=False), config("x FP32 2", "after FP32 2;y FP32 2", more=batching))
    for turn in (1, 2, 3):
        tensor = ("x", "FP32", [1, 2], np.ones(2, np.float32).tobytes())
        parameters = {"sequence_id": 3, "sequence_start": turn == 1, "sequence_end": turn == 3}
        answer = post(onnx_server, name, [tensor], outputs=["y"], parameters=parameters)
        assert answer.outputs.keys() == {"y"}
        assert floats(answer) == [turn, turn]


@native_only
def test_a_state_outside_a_batch_may_grow_and_be_of_strings(onnx_server: TritonServer, serve: Serve) -> None:
    model = onnx_bytes(
        [
            helper.make_node("Concat", ["before", "x"], ["after"], axis=0),
            helper.make_node("Concat", ["words_before", "word"], ["words_after"], axis=0),
        ],
        [
            ("x", TensorProto.FLOAT, (1,)),
            ("before", TensorProto.FLOAT, ("n",)),
            ("word", TensorProto.STRING, (1,)),
            ("words_before", TensorProto.STRING, ("m",)),
        ],
        [("after", TensorProto.FLOAT, ("k",)), ("words_after", TensorProto.STRING, ("l",))],
    )
    batching = f"""
        sequence_batching {{ {IDLE}
            state {{
                input_name: "before" output_name: "after" data_type: TYPE_FP32 dims: -1
                initial_state {{ name: "zero" data_type: TYPE_FP32 dims: 1 zero_data: true }}
            }}
            state {{
                input_name: "words_before" output_name: "words_after" data_type: TYPE_STRING dims: -1
                initial_state {{ name: "none" data_type: TYPE_STRING dims: 1 zero_data: true }}
            }}
        }}
    """
    text = config("x FP32 1;word STRING 1", "after FP32 -1;words_after STRING -1", batch=0, more=batching)
    name = serve(model, text)
    words = b""
    for turn, word in enumerate([b"\3\0\0\0abc", b"\0\0\0\0", b"\2\0\0\0\xc3\x9f"], 1):
        words += word
        tensors = [("x", "FP32", [1], np.float32(turn).tobytes()), ("word", "BYTES", [1], word)]
        parameters = {"sequence_id": 1, "sequence_start": turn == 1, "sequence_end": turn == 3}
        answer = post(onnx_server, name, tensors, parameters=parameters)
        assert floats(answer, "after") == list(range(turn + 1))
        assert answer.outputs["words_after"] == b"\0\0\0\0" + words


@native_only
def test_a_request_that_fails_leaves_its_sequence_as_it_was(onnx_server: TritonServer, serve: Serve) -> None:
    model = onnx_bytes(
        [
            helper.make_node("Gather", ["before", "column"], ["picked"], axis=1),
            helper.make_node("Add", ["before", "x"], ["after"]),
        ],
        [
            ("x", TensorProto.FLOAT, ("batch", 2)),
            ("before", TensorProto.FLOAT, ("batch", 2)),
            ("column", TensorProto.INT64, ("batch", 1)),
        ],
        [("after", TensorProto.FLOAT, ("batch", 2)), ("picked", TensorProto.FLOAT, ("batch", "n", 1))],
    )
    batching = f"sequence_batching {{ {IDLE} {STATE} }}"
    text = config("x FP32 2;column INT64 1", "after FP32 2;picked FP32 -1,1", batch=1, more=batching)
    name = serve(model, text)

    def ask(column: int, **flags: bool) -> Answer:
        tensors = [
            ("x", "FP32", [1, 2], np.ones(2, np.float32).tobytes()),
            ("column", "INT64", [1, 1], np.int64(column).tobytes()),
        ]
        return post(onnx_server, name, tensors, parameters={"sequence_id": 2, **flags})

    assert floats(ask(0, sequence_start=True), "after") == [1, 1]
    assert "99" in ask(99).error
    assert floats(ask(1, sequence_end=True), "after") == [2, 2]


@native_only
def test_a_sequence_may_be_known_by_a_text(onnx_server: TritonServer, serve: Serve) -> None:
    model = onnx_bytes(
        [helper.make_node("Identity", ["corrid"], ["who"]), helper.make_node("Neg", ["x"], ["y"])],
        [("x", TensorProto.FLOAT, ("batch", 2)), ("corrid", TensorProto.STRING, ("batch", 1))],
        [("who", TensorProto.STRING, ("batch", 1)), ("y", TensorProto.FLOAT, ("batch", 2))],
    )
    control = "control_input { name: 'corrid' control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_STRING } }"
    batching = f"sequence_batching {{ {IDLE} {control} }}"
    name = serve(model, config("x FP32 2", "who STRING 1;y FP32 2", more=batching))
    for turn, corrid in enumerate(["Jörg", "a longer one", "Jörg", "a longer one"]):
        answer = step(onnx_server, name, corrid, [1, 2], start=turn < 2, end=turn > 1)
        assert answer.outputs.get("who", b"")[4:].decode() == corrid, answer.error


@native_only
def test_a_request_outside_a_sequence_is_refused(onnx_server: TritonServer, serve: Serve) -> None:
    batching = f"sequence_batching {{ {IDLE} {STATE} }}"
    name = serve(accumulator(controls=False), config("x FP32 2", "y FP32 2", more=batching))
    tensor = ("x", "FP32", [1, 2], np.ones(2, np.float32).tobytes())
    assert "must specify a non-zero or non-empty correlation ID" in post(onnx_server, name, [tensor]).error
    assert re.search("sequence_start|START", step(onnx_server, name, 4, [1, 1]).error)


def state(before: str, after: str, dtype: str = "FP32") -> str:
    return f"state {{ input_name: '{before}' output_name: '{after}' data_type: TYPE_{dtype} dims: 2 }}"


def start(name: str, values: str) -> str:
    return f"control_input {{ name: '{name}' control {{ kind: CONTROL_SEQUENCE_START {values} }} }}"


REFUSED = {
    state("none", "after"): "state input 'none' is not in the model",
    state("before", "none"): "state output 'none' is not in the model",
    state("before", "after", "INT32"): "'before' is TYPE_FP32.*TYPE_INT32 in the config",
    state("x", "after"): "'x' .*twice",
    state("before", "after") + start("none", "int32_false_true: [0, 1]"): "sequence control 'none' is not in the model",
    state("before", "after") + start("x", "fp32_false_true: [0, 1]"): "'x' must be one value for each row",
}


@native_only
@pytest.mark.parametrize("what", REFUSED)
def test_a_state_or_control_that_is_not_the_models_is_refused_at_load(serve: Serve, what: str) -> None:
    with pytest.raises(ServerError, match=REFUSED[what]):
        serve(accumulator(controls=False), config("x FP32 2", "y FP32 2", more=f"sequence_batching {{ {what} }}"))


@native_only
def test_a_control_of_another_dtype_than_the_models_is_refused_at_load(serve: Serve) -> None:
    controls = CONTROLS.replace("fp32_false_true", "int32_false_true")
    with pytest.raises(ServerError, match=r"'ready' is TYPE_FP32.*TYPE_INT32 in the config"):
        text = config("x FP32 2", "y FP32 2" + ECHOES, more=f"sequence_batching {{ {controls} {STATE} }}")
        serve(accumulator(), text)


class Flagged(TritonServer):
    """With flags of Triton's that a server does not offer yet."""

    def _command(self, *args: Any) -> list[str]:
        return [*super()._command(*args), "--cache-config=local,size=1048576", "--rate-limit=execution_count"]


@pytest.fixture(scope="module", params=["native", "python"])
def flagged(folder: Path, write_model: WriteModel, request: pytest.FixtureRequest) -> Iterator[TritonServer]:
    name = f"flagged_{request.param}"
    write_model(name, doubler(), config("x FP32 2", "y FP32 2"))
    with Flagged(folder, models=[name], onnx_backend=request.param) as running:
        yield running


def test_the_response_cache_answers_what_was_asked_before(flagged: TritonServer) -> None:
    text = config("x FP32 2;words STRING 2", "y FP32 2;same STRING 2", more="response_cache { enable: true }")
    model = onnx_bytes(
        [helper.make_node("Add", ["x", "x"], ["y"]), helper.make_node("Identity", ["words"], ["same"])],
        [("x", TensorProto.FLOAT, ("batch", 2)), ("words", TensorProto.STRING, ("batch", 2))],
        [("y", TensorProto.FLOAT, ("batch", 2)), ("same", TensorProto.STRING, ("batch", 2))],
    )
    with serving(flagged) as serve, flagged.client() as client:
        handle = client.model(serve(model, text))
        for _ in range(3):
            got = handle(x=[[1.0, 2.0]], words=[["a", ""]])
            assert got["y"].tolist() == [[2.0, 4.0]]
            assert got["same"].tolist() == [["a", ""]]
        assert handle(x=[[1.0, 3.0]], words=[["a", ""]])["y"].tolist() == [[2.0, 6.0]]

        # Triton counts a request just after it has answered it.
        def counted() -> tuple[int, int]:
            stats = handle.statistics()["model_stats"][0]
            return stats["execution_count"], stats["inference_stats"]["cache_hit"]["count"]

        wait_until(lambda: counted() == (2, 2))


def test_a_model_answers_under_the_rate_limiter(flagged: TritonServer) -> None:
    limiter = 'count: 2 kind: KIND_CPU rate_limiter { resources { name: "core" count: 1 } priority: 1 }'
    text = config("x FP32 2", "y FP32 2", more="dynamic_batching { }").replace("count: 1 kind: KIND_CPU", limiter)
    with serving(flagged) as serve, flagged.client() as client:
        model = client.model(serve(doubler(), text))
        _ = model.metadata
        answers = at_once([partial(model, np.full((1, 2), i, np.float32)) for i in range(16)])
    assert [answer.tolist() for answer in answers] == [[[2.0 * i] * 2] for i in range(16)]
