"""Faults of ensembles, model files and versions, and what is to be found of each."""

from __future__ import annotations

import shutil

import numpy as np
from onnx import TensorProto, helper

from .planting import (
    both,
    config,
    fault,
    file,
    golden,
    gone,
    graph,
    instead,
    manifest,
    more,
    outside,
    plus_one_onnx,
    renamed,
    set_type,
    unsigned,
)

ENSEMBLES = [
    fault("ensemble with instances", more("instance_group { count: 1 }", "pair"), "ensemble-settings"),
    fault("ensemble by its backend", more('backend: "ensemble"', "pair"), "ensemble-platform"),
    fault(
        "step of an unknown model",
        instead('model_name: "plus_one"', 'model_name: "plus_two"', "pair"),
        "ensemble-model",
    ),
    fault(
        "step of a version that is not served",
        both(
            instead("model_version: -1", "model_version: 1", "pair"),
            lambda repository: shutil.copytree(repository / "plus_one/1", repository / "plus_one/2"),
        ),
        "ensemble-model",
    ),
    fault("step of an unknown version", instead("model_version: -1", "model_version: 9", "pair"), "ensemble-model"),
    fault("step of itself", instead('model_name: "plus_one"', 'model_name: "pair"', "pair"), "ensemble-model"),
    fault("tensor that the step has not", instead('key: "x"', 'key: "q"', "pair"), "ensemble-tensor"),
    fault(
        "tensor that nothing makes",
        instead('value: "between" }\n  }\n  step', 'value: "beside" }\n  }\n  step', "pair"),
        "ensemble-tensor",
    ),
    fault(
        "output that nothing makes",
        more('output { name: "z" data_type: TYPE_FP32 dims: 2 }', "pair"),
        "ensemble-tensor",
    ),
    fault(
        "input that nothing takes", more('input { name: "z" data_type: TYPE_FP32 dims: 2 }', "pair"), "ensemble-tensor"
    ),
    fault(
        "steps that wait for each other",
        instead('key: "x" value: "x"', 'key: "x" value: "y"', "pair"),
        "ensemble-tensor",
    ),
    fault("other dims than the step's", instead("dims: 2", "dims: 3", "pair"), "ensemble-shape"),
    fault("other type than the step's", instead("TYPE_FP32", "TYPE_INT32", "pair"), "ensemble-shape"),
    fault("more rows than the step takes", more("max_batch_size: 100", "pair"), "ensemble-shape"),
]
MODEL_FILES = [
    fault("no model file", renamed("bare/1/model.onnx", "bare/1/net.onnx"), "model-file-missing"),
    fault("no ONNX file", file("bare/1/model.onnx", b"\x00\x01nonsense"), "artifact-broken"),
    fault("empty file", file("bare/1/model.onnx"), "artifact-broken"),
    fault(
        "TorchScript for ONNX Runtime",
        lambda repository: shutil.copy(repository / "script/1/model.pt", repository / "bare/1/model.onnx"),
        "artifact-broken",
    ),
    fault("library beside a model", file("bare/1/fast.so", b"\x7fELF"), "file-unknown"),
    fault("ONNX for PyTorch", file("script/1/model.pt", plus_one_onnx()), "artifact-broken"),
    fault(
        "TorchScript cut off",
        lambda repository: (repository / "script/1/model.pt").write_bytes(
            (repository / "script/1/model.pt").read_bytes()[:500]
        ),
        "artifact-broken",
    ),
    fault("input of another name", more('input { name: "z" data_type: TYPE_FP32 dims: 2 }'), "tensor-unknown"),
    fault(
        "input that is not declared",
        graph(lambda model: model.graph.input.append(helper.make_tensor_value_info("z", 1, ["batch", 2]))),
        "tensor-undeclared",
    ),
    fault(
        "output of another name",
        config(lambda found: setattr(found.output[0], "name", "z")),
        "output-undeclared",
        "tensor-unknown",
    ),
    fault(
        "input of another type", config(lambda found: setattr(found.input[0], "data_type", 12)), "tensor-dtype-differs"
    ),
    fault(
        "output of another type",
        config(lambda found: setattr(found.output[0], "data_type", 12)),
        "tensor-dtype-differs",
    ),
    fault(
        "type that Triton has not",
        both(graph(set_type("input", TensorProto.COMPLEX64))),
        "onnx-refused",
        "tensor-dtype-differs",
    ),
    fault("another length", config(lambda found: found.output[0].dims.__setitem__(0, 3)), "tensor-shape-differs"),
    fault("an axis more", config(lambda found: found.output[0].dims.append(1)), "tensor-shape-differs"),
    fault(
        "more open than the file", config(lambda found: found.input[0].dims.__setitem__(0, -1)), "tensor-shape-differs"
    ),
    fault("batch without saying so", more("max_batch_size: 0"), "tensor-shape-differs"),
    fault("batch of one", file("bare/1/model.onnx", plus_one_onnx(x=[1, 2], y=[1, 2])), "batch-axis-fixed"),
    fault("opset of the future", graph(lambda model: setattr(model.opset_import[0], "version", 99)), "onnx-too-new"),
    fault("ONNX of the future", graph(lambda model: setattr(model, "ir_version", 99)), "onnx-too-new"),
    fault(
        "operator of somebody else",
        both(
            graph(lambda model: setattr(model.graph.node[0], "domain", "somebody")),
            graph(lambda model: model.opset_import.append(helper.make_opsetid("somebody", 1))),
        ),
        "custom-operator",
    ),
    fault(
        "operator that is none", graph(lambda model: setattr(model.graph.node[0], "op_type", "Addd")), "onnx-refused"
    ),
    fault("weights that are not there", graph(outside("weights.bin")), "external-data-missing"),
    fault(
        "input that forward has not",
        more('input { name: "z" data_type: TYPE_FP32 dims: 2 }', "script"),
        "tensor-unknown",
    ),
    fault(
        "output without a place",
        config(lambda found: setattr(found.output[0], "name", "y"), "script"),
        "tensor-unknown",
    ),
    fault(
        "output beyond what forward returns",
        config(lambda found: setattr(found.output[0], "name", "y__1"), "script"),
        "tensor-unknown",
    ),
    fault(
        "argument that is not declared",
        config(lambda found: setattr(found.input[0], "name", "x__7"), "script"),
        "tensor-unknown",
        "tensor-undeclared",
    ),
]
VERSIONS = [
    fault("manifest that is none", file("plus_one/1/manifest.json", "{}"), "manifest-unreadable"),
    fault("no manifest", gone("plus_one/1/manifest.json"), "manifest-missing"),
    fault("manifest of another model", manifest(lambda content: content.update(model="other")), "manifest-model"),
    fault("negative tolerance", manifest(lambda content: content["tolerance"].update(atol=-1.0)), "manifest-tolerance"),
    fault(
        "tolerance that is no number",
        manifest(lambda content: content["tolerance"].update(rtol=float("nan"))),
        "manifest-tolerance",
    ),
    fault(
        "tolerance of everything",
        manifest(lambda content: content["gpu_tolerance"].update(atol=1e9)),
        "manifest-tolerance",
    ),
    fault(
        "agreement of nothing",
        manifest(lambda content: content["tolerance"].update(agreement=0.0)),
        "manifest-tolerance",
    ),
    fault("another opset", manifest(lambda content: content.update(opset=7)), "manifest-opset"),
    fault("changed model file", file("plus_one/1/model.onnx", plus_one_onnx() + b"\x00" * 0 + b"\x08\x09"), "checksum"),
    fault("file more", file("plus_one/1/notes.txt", "hello"), "file-unnamed"),
    fault(
        "file less", both(file("plus_one/1/notes.txt", "hello"), unsigned, gone("plus_one/1/notes.txt")), "file-missing"
    ),
    fault("golden cases that are none", both(file("plus_one/1/golden.npz", "nonsense"), unsigned), "golden-unfit"),
    fault(
        "golden cases that are not finite", golden("outputs/y", lambda array: array * np.float32("nan")), "golden-unfit"
    ),
    fault("golden cases of another shape", golden("inputs/x", lambda array: array[:, :1]), "golden-unfit"),
    fault("golden cases of another type", golden("inputs/x", lambda array: array.astype(np.float64)), "golden-unfit"),
    fault("golden cases of other numbers of rows", golden("inputs/x", lambda array: array[:1]), "golden-unfit"),
    fault("no golden cases", both(gone("plus_one/1/golden.npz"), unsigned), "golden-missing"),
]
