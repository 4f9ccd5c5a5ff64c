"""Which cases are left out, and why: rules, in the order in which they are asked, and no list of names."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

import ml_dtypes
import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from tritium.client import InputError, triton_dtype

from .cases import Array, Case, collect

NO_TENSOR = "An input or output is no tensor, but a sequence, a map or an optional value; Triton carries tensors"
NO_DTYPE = "An input or output has an element type that Triton has not"
OTHER_ANSWERS = "ONNX Runtime itself gives other outputs than onnx expects"
NO_RUN = "ONNX Runtime itself loads it and fails to run it"
NO_LOCALE = "ONNX Runtime itself needs a locale that this machine has not"
# What ONNX Runtime says when it does not load a model, and what that comes to; the first that fits counts.
NO_LOAD = {
    r"model IR version|Opset \d+ is under development": "ONNX Runtime itself is older than the model's opset",
    r"NOT_IMPLEMENTED": "ONNX Runtime itself has no kernel on CPUs for an operator, at this opset or type",
    r"not a registered function|Unrecognized attribute": "ONNX Runtime itself does not know an operator or attribute",
    r"locale": NO_LOCALE,
    r"": "ONNX Runtime itself refuses the model",
}
# These hang on the processor and the system that ONNX Runtime runs on.
OF_THE_MACHINE = (OTHER_ANSWERS, NO_LOCALE)


def reason_against(case: Case) -> str | None:
    """Why no server can be asked for this case; None if it has to pass."""
    values = [*case.model.graph.input, *case.model.graph.output]
    if any(not value.type.HasField("tensor_type") for value in values):
        return NO_TENSOR
    try:
        elements = {value.type.tensor_type.elem_type for value in values}
        for element in elements:
            triton_dtype(helper.tensor_dtype_to_np_dtype(element))
    except InputError:
        return NO_DTYPE
    return _onnxruntime_fails(case)


@cache
def judge() -> Mapping[str, str | None]:
    """For every case by name the reason why it is left out, or None."""
    return {case.name: reason_against(case) for case in collect()}


def asked_of(backend: str, cases: Iterable[Case]) -> list[Case]:
    """Those of the cases that a backend has to pass: the Python-based one, a process a model, a tenth without BF16."""
    if backend == "native":
        return list(cases)
    return [case for case in cases if case.in_tenth and not _has_bf16(case)]


def _has_bf16(case: Case) -> bool:
    return any(array.dtype == ml_dtypes.bfloat16 for array in (*case.inputs.values(), *case.outputs.values()))


def _onnxruntime_fails(case: Case) -> str | None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    # ONNX Runtime's exceptions have no other base in common.
    try:
        session = ort.InferenceSession(case.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as exc:
        return next(reason for pattern, reason in NO_LOAD.items() if re.search(pattern, str(exc)))
    try:
        outputs = _run(session, case.inputs, list(case.outputs))
    except Exception:
        return NO_RUN
    try:
        case.check(outputs)
    except AssertionError:
        return OTHER_ANSWERS
    return None


def _run(session: ort.InferenceSession, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
    types = {tensor.type for tensor in (*session.get_inputs(), *session.get_outputs())}
    if "tensor(bfloat16)" not in types:
        return list(session.run(outputs, inputs))
    # Its Python binding takes and gives BF16 in values of its own only.
    values = {name: _ort_value(array) for name, array in inputs.items()}
    return [_array(value) for value in session.run_with_ort_values(outputs, values)]


def _ort_value(array: Array) -> ort.OrtValue:
    if array.dtype != ml_dtypes.bfloat16:
        return ort.OrtValue.ortvalue_from_numpy(array)
    bits = np.ascontiguousarray(array).view(np.uint16)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, TensorProto.BFLOAT16)


def _array(value: ort.OrtValue) -> Array:
    if value.element_type() != TensorProto.BFLOAT16:
        return np.asarray(value.numpy())
    content = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(content, ml_dtypes.bfloat16).reshape(value.shape())
