"""Files that exist: what they are, what they say of themselves, and what is refused unread."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import nn

from tritium.client import InputError, TensorSpec, TritiumError
from tritium.exporters import ConversionError, ExportError, export_file
from tritium.repository import Manifest, Published, Repository, Serving, input_specs, load_golden, output_specs
from tritium.repository import verify_server as verified
from tritium.server import TritonServer

Array = NDArray[Any]
# Every element type that ONNX and Triton both have, and Triton's name of it.
DTYPES = {
    "FLOAT": "FP32",
    "FLOAT16": "FP16",
    "BFLOAT16": "BF16",
    "DOUBLE": "FP64",
    "INT8": "INT8",
    "INT16": "INT16",
    "INT32": "INT32",
    "INT64": "INT64",
    "UINT8": "UINT8",
    "UINT16": "UINT16",
    "UINT32": "UINT32",
    "UINT64": "UINT64",
    "BOOL": "BOOL",
    "STRING": "BYTES",
}
Shape = Sequence[str | int] | None


def write(
    path: Path,
    *,
    operator: str = "Identity",
    dtype: str = "FLOAT",
    inputs: Mapping[str, Shape] | None = None,
    output: Shape = ("rows", 3),
    **attributes: Any,
) -> Path:
    """An ONNX file of one node, whose output is called `y`."""
    inputs = inputs or {"x": ("rows", 3)}
    kind = getattr(TensorProto, dtype)
    graph = helper.make_graph(
        [helper.make_node(operator, list(inputs), ["y"], **attributes)],
        "one",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("y", kind, output)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


def script(module: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        torch.jit.script(module.eval()).save(str(path))
    return path


def shapes(folder: Path, model: str = "model") -> tuple[int, list[str], list[str]]:
    """Batch size, inputs and outputs, as the config has them."""
    config = Repository(folder).config(model)
    return config.max_batch_size, list(map(str, input_specs(config))), list(map(str, output_specs(config)))


def export(path: Path, folder: Path, **options: Any) -> Published:
    published: Published = export_file(path, name="model", repository=folder, **options)
    return published


class TakesStrings(nn.Module):
    def forward(self, words: list[str]) -> torch.Tensor:
        return torch.tensor([[float(len(word))] for word in words])


class GivesADict(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"sum": a + b, "difference": a - b}


class TakesANumber(nn.Module):
    def forward(self, x: torch.Tensor, count: int) -> torch.Tensor:
        return x * count


class GivesTwo(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x * 2, x.sum(dim=1)


def test_every_element_type_is_published_and_served_as_it_is(tmp_path: Path) -> None:
    """ONNX of all types, TorchScript of reduced precision, of strings and with a dict, free axes, scalars."""
    models = tmp_path / "models"
    for dtype, triton in DTYPES.items():
        export_file(write(tmp_path / dtype, dtype=dtype), name=dtype.lower(), repository=models)
        assert shapes(models, dtype.lower()) == (64, [f"x {triton}[-1,3]"], [f"y {triton}[-1,3]"])
    free = write(tmp_path / "free", inputs={"x": ("rows", "length", 3)}, output=("rows", "length", 3))
    export_file(free, name="free", repository=models)
    assert shapes(models, "free") == (64, ["x FP32[-1,-1,3]"], ["y FP32[-1,-1,3]"])
    scalar = write(tmp_path / "scalar", inputs={"x": ()}, output=())
    export_file(scalar, name="scalar", repository=models)
    assert shapes(models, "scalar") == (0, ["x FP32[1]"], ["y FP32[1]"])
    for name, module, inputs in (
        ("half", nn.Linear(3, 2).half(), [TensorSpec("input", "FP16", (-1, 3))]),
        ("brain", nn.Linear(3, 2).bfloat16(), [TensorSpec("input", "BF16", (-1, 3))]),
        ("strings", TakesStrings(), [TensorSpec("words", "BYTES", (-1,))]),
        ("dict", GivesADict(), [TensorSpec("a", "FP32", (-1, -1)), TensorSpec("b", "FP32", (-1, -1))]),
    ):
        export_file(script(module, tmp_path / name), name=name, repository=models, inputs=inputs)
    with TritonServer(models) as server:
        for protocol in ("http", "grpc"):
            with server.client(protocol=protocol) as client:
                verdicts = list(verified(client, Repository(models)))
                assert len(verdicts) == len(DTYPES) + 6
                assert not [str(verdict) for verdict in verdicts if not verdict.ok]


@pytest.mark.parametrize("dtype", ["COMPLEX64", "FLOAT8E4M3FN", "INT4", "UINT4"])
def test_an_element_type_that_triton_lacks_is_refused_by_name(dtype: str, tmp_path: Path) -> None:
    path = write(tmp_path / "model.onnx", dtype=dtype)
    with pytest.raises(ConversionError, match=rf"input 'x' has elements of the ONNX type {dtype}, .* one of FLOAT,"):
        export(path, tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("kind", ["sequence", "map", "optional"])
def test_what_is_no_tensor_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    model = onnx.load(write(tmp_path / "model.onnx"))
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, ["rows", 3])
    made = {
        "sequence": helper.make_sequence_type_proto(tensor),
        "map": helper.make_map_type_proto(TensorProto.INT64, tensor),
        "optional": helper.make_optional_type_proto(tensor),
    }[kind]
    model.graph.output[0].type.CopyFrom(made)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ConversionError, match=rf"output 'y' is of the ONNX type {kind}, and Triton has tensors only"):
        export(tmp_path / "model.onnx", tmp_path / "models")


@pytest.mark.parametrize(
    ("inputs", "output"),
    [
        ({"x": (1, 3)}, (1, 3)),
        ({"x": ("rows", 3)}, (1, 3)),
        ({"x": ("rows", 3), "z": ("columns", 3)}, ("rows", 3)),
        ({"x": ("rows", 3), "z": (1, 3)}, ("rows", 3)),
    ],
    ids=["fixed", "fixed output", "two names", "one fixed input"],
)
def test_a_first_axis_that_is_not_free_everywhere_is_no_batch(
    inputs: Mapping[str, Shape], output: Shape, tmp_path: Path
) -> None:
    path = write(tmp_path / "model.onnx", operator="Sum", inputs=inputs, output=output)
    if output == (1, 3) and inputs["x"] != (1, 3):
        model = onnx.load(path)
        model.graph.node[0].op_type = "ReduceMax"
        model.graph.node[0].input.append("axis")
        model.graph.initializer.append(helper.make_tensor("axis", TensorProto.INT64, [1], [0]))
        onnx.save(model, path)
    export(path, tmp_path / "models")
    assert shapes(tmp_path / "models")[0] == 0
    with pytest.raises(InputError, match=r"'max_batch_size' parameter must be 0 for .*no batch axis .*got 8 instead"):
        export(path, tmp_path / "models", max_batch_size=8)
    assert Repository(tmp_path / "models").versions("model") == [1]


def test_a_first_axis_along_which_rows_meet_is_found_by_running(tmp_path: Path) -> None:
    path = write(tmp_path / "model.onnx", operator="Softmax", axis=0)
    with pytest.raises(ExportError, match=r"is no batch axis: rows answer otherwise together.*--max-batch-size 0"):
        export(path, tmp_path / "models")
    assert not (tmp_path / "models").exists()
    export(path, tmp_path / "models", max_batch_size=0)
    assert shapes(tmp_path / "models") == (0, ["x FP32[-1,3]"], ["y FP32[-1,3]"])


def test_how_it_is_served_is_a_choice_and_the_batch_is_the_largest(tmp_path: Path) -> None:
    serving = Serving(target="gpu", max_batch_size=16, instances=2)
    export(write(tmp_path / "model.onnx"), tmp_path / "models", serving=serving)
    config = Repository(tmp_path / "models").config("model")
    assert (config.max_batch_size, config.instance_group[0].count) == (16, 2)
    assert [item.name for item in config.optimization.execution_accelerators.gpu_execution_accelerator] == [
        "tensorrt",
        "cuda",
    ]


def test_made_up_inputs_are_the_same_every_time_and_the_manifest_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "model.onnx")
    versions = [export(path, tmp_path / "models") for _ in range(2)]
    config = Repository(tmp_path / "models").config("model")
    first, second = (load_golden(version.folder, config) for version in versions)
    np.testing.assert_array_equal(first.inputs["x"], second.inputs["x"])
    manifest = Manifest.load(versions[0].folder)
    assert manifest.data == {"name": "made up inputs", "rows": 8, "seed": 0}
    assert (manifest.source, manifest.opset) == ("model.onnx", 20)


def test_what_may_differ_follows_the_precision(tmp_path: Path) -> None:
    for dtype, atol in (("FLOAT", 1e-5), ("FLOAT16", 2e-3), ("BFLOAT16", 2e-2)):
        path = write(tmp_path / dtype, dtype=dtype)
        published = export_file(path, name=dtype, repository=tmp_path / "models")
        manifest = Manifest.load(published.folder)
        assert manifest.tolerance.atol == atol
        assert manifest.gpu_tolerance.atol == max(atol, 1e-3)


@pytest.mark.parametrize("form", ["arrays", "file"])
def test_real_samples_become_the_golden_cases(form: str, tmp_path: Path) -> None:
    rows = np.random.default_rng(3).normal(size=(40, 3))
    np.savez(tmp_path / "rows.npz", x=rows)
    samples: Any = {"x": rows} if form == "arrays" else tmp_path / "rows.npz"
    published = export(write(tmp_path / "model.onnx"), tmp_path / "models", samples=samples)
    golden = load_golden(published.folder, Repository(tmp_path / "models").config("model"))
    np.testing.assert_array_equal(golden.inputs["x"], rows[:32].astype(np.float32))
    data = Manifest.load(published.folder).data
    assert (data["name"], data["rows"]) == ("samples" if form == "arrays" else "rows.npz", 40)
    assert ("sha256" in data) == (form == "file")


def test_samples_without_a_batch_axis_are_cases_or_one_case(tmp_path: Path) -> None:
    path = write(tmp_path / "model.onnx", inputs={"x": (1, 3)}, output=(1, 3))
    for shape, cases in (((1, 3), 1), ((5, 1, 3), 5)):
        published = export(path, tmp_path / "models", samples={"x": np.ones(shape, np.float32)})
        assert len(load_golden(published.folder, Repository(tmp_path / "models").config("model"))) == cases


@pytest.mark.parametrize(
    ("dtype", "sample"),
    [
        ("BFLOAT16", np.ones((2, 3), np.float32)),
        ("BFLOAT16", np.ones((2, 3), ml_dtypes.bfloat16).view("V2")),
        ("STRING", np.array([["a", "é", ""]] * 2)),
        ("INT64", np.ones((2, 3), np.int32)),
    ],
)
def test_samples_are_cast_where_nothing_but_precision_is_lost(dtype: str, sample: Array, tmp_path: Path) -> None:
    export(write(tmp_path / "model.onnx", dtype=dtype), tmp_path / "models", samples={"x": sample})
    assert shapes(tmp_path / "models")[1] == [f"x {DTYPES[dtype]}[-1,3]"]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ({"z": np.ones((2, 3), np.float32)}, r"must have arrays for \['x'\], got \['z'\] instead"),
        ({"x": np.ones((2, 4), np.float32)}, r"must have the shape \[-1, 3\], .*got \[2, 4\] instead"),
        ({"x": np.ones((2, 3), np.int64)}, r"must be FP32 \(float32\), got int64"),
        ({"x": np.array([[0.0] * 3, [0, 1e300, 0]])}, r"'x' must be FP32 \(float32\), .*no room for 1e\+300 in row 1"),
        ({"x": np.ones((0, 3), np.float32)}, r"at least one, got x: 0"),
        (Path("/no/such/file.npz"), r"cannot be read: .*numpy.savez"),
    ],
)
def test_samples_that_do_not_fit_are_refused_with_what_would(samples: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        export(write(tmp_path / "model.onnx"), tmp_path / "models", samples=samples)
    assert not (tmp_path / "models").exists()


def test_no_number_in_the_answers_to_made_up_inputs_asks_for_samples(tmp_path: Path) -> None:
    path = write(tmp_path / "model.onnx", operator="Log")
    with pytest.raises(ExportError, match=r"made-up inputs with a y that is not finite.*--samples inputs.npz"):
        export(path, tmp_path / "models")
    export(path, tmp_path / "models", samples={"x": np.ones((4, 3), np.float32)})
    with pytest.raises(ExportError, match=r"itself answers held-out row 0 with a y that is not finite"):
        export(path, tmp_path / "models", samples={"x": -np.ones((4, 3), np.float32)})


def test_made_up_inputs_that_do_not_fit_ask_for_samples(tmp_path: Path) -> None:
    path = write(tmp_path / "model.onnx", operator="MatMul", inputs={"x": ("rows", "k"), "z": (5, 3)})
    with pytest.raises(ConversionError, match=r"(?s)does not run .* on made-up inputs.*pass real inputs as `samples`"):
        export(path, tmp_path / "models", max_batch_size=0)


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return script(nn.Linear(3, 2), tmp_path / "linear")


def test_torchscript_is_asked_for_what_it_does_not_say_with_its_arguments(linear: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"takes \(input: Tensor\)\. .*--input input:FP32:-1,4"):
        export(linear, tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"inputs": [TensorSpec("input", "FP32", (-1, 3))]}, (64, ["input FP32[-1,3]"], ["output__0 FP32[-1,2]"])),
        (
            {"inputs": [TensorSpec("rows__0", "FP32", (-1, 3))], "outputs": ["scores"], "max_batch_size": 8},
            (8, ["rows__0 FP32[-1,3]"], ["scores__0 FP32[-1,2]"]),
        ),
        (
            {"inputs": [TensorSpec("input", "FP32", (-1, -1, 3))]},
            (64, ["input FP32[-1,-1,3]"], ["output__0 FP32[-1,-1,2]"]),
        ),
        ({"inputs": [TensorSpec("input", "FP32", (3,))]}, (0, ["input FP32[3]"], ["output__0 FP32[2]"])),
        (
            {"samples": {"input": np.ones((5, 3), np.float32)}},
            (64, ["input FP32[-1,3]"], ["output__0 FP32[-1,2]"]),
        ),
        (
            {"samples": {"input": np.ones((5, 3), np.float32)}, "max_batch_size": 0},
            (0, ["input FP32[3]"], ["output__0 FP32[2]"]),
        ),
    ],
    ids=["by name", "by place", "free axis", "no batch", "samples", "samples, no batch"],
)
def test_torchscript_says_its_outputs_when_it_is_run(
    options: dict[str, Any], expected: Any, linear: Path, tmp_path: Path
) -> None:
    export(linear, tmp_path / "models", **options)
    assert shapes(tmp_path / "models") == expected


def test_results_of_torchscript_are_named_in_their_order_or_by_their_keys(tmp_path: Path) -> None:
    rows = np.ones((3, 2), np.float32)
    export(
        script(GivesTwo(), tmp_path / "two"), tmp_path / "two_models", samples={"x": rows}, outputs=["double", "sum"]
    )
    assert shapes(tmp_path / "two_models")[2] == ["double__0 FP32[-1,2]", "sum__1 FP32[-1,1]"]
    export(script(GivesADict(), tmp_path / "d"), tmp_path / "dict", samples={"a": rows, "b": rows}, outputs=["sum"])
    assert shapes(tmp_path / "dict")[2] == ["sum FP32[-1,2]"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": [TensorSpec("x", "FP32", (-1, 3))]}, r"forward of .* \(input: Tensor\), .* as in x__0; got 'x'"),
        ({"inputs": [TensorSpec("input", "FLOAT", (-1, 3))]}, r"'FLOAT' is not a Triton dtype"),
        (
            {"inputs": [TensorSpec("input", "FP32", (-1, 3))], "outputs": ["a", "b"]},
            r"returns 1 tensors, and .*'a', 'b'",
        ),
        ({"inputs": [TensorSpec("input", "FP32", (-1, 4))]}, r"does not run .* on made-up inputs"),
    ],
)
def test_a_description_that_does_not_fit_torchscript_is_refused(
    options: dict[str, Any], message: str, linear: Path, tmp_path: Path
) -> None:
    with pytest.raises(TritiumError, match=message):
        export(linear, tmp_path / "models", **options)
    assert not (tmp_path / "models").exists()


def test_torchscript_that_takes_more_than_tensors_is_refused_by_argument(tmp_path: Path) -> None:
    path = script(TakesANumber(), tmp_path / "number")
    with pytest.raises(ConversionError, match=r"takes count of type int\. Script a module around it"):
        export(path, tmp_path / "models", samples={"x": np.ones((2, 3), np.float32)})


def test_onnx_says_its_inputs_itself(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is ONNX and says its inputs and outputs itself"):
        export(write(tmp_path / "model.onnx"), tmp_path / "models", inputs=[TensorSpec("x", "FP32", (-1, 3))])


class Harmful:
    """Whoever unpickles it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("form", ["pickle", "old torch", "new torch"])
def test_a_pickle_is_refused_unread_with_what_to_do(form: str, tmp_path: Path) -> None:
    path, trace = tmp_path / "model.pt", tmp_path / "was here"
    if form == "pickle":
        path.write_bytes(pickle.dumps(Harmful(trace)))
    else:
        torch.save(Harmful(trace), path, _use_new_zipfile_serialization=form == "new torch")
    with pytest.raises(InputError, match=r"pickle.*not even looked at.*torch.jit.script\(module\).save"):
        export(path, tmp_path / "models")
    assert not trace.exists()
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither ONNX nor TorchScript"),
        (b"hello", "neither ONNX nor TorchScript"),
        (b"\x89HDF\r\n\x1a\n", "HDF5, as Keras writes it"),
        (b"\x1f\x8b\x08", "compressed by gzip"),
        (None, "only a folder"),
    ],
)
def test_other_files_are_refused_by_what_they_are(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        export(path, tmp_path / "models")


def test_a_program_of_torch_export_is_refused_with_the_way_on(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(nn.Linear(3, 2), (torch.ones(2, 3),)), tmp_path / "model.pt2")
    with pytest.raises(InputError, match=r"a program of torch.export.*torch.export.load\(path\).module\(\)"):
        export(tmp_path / "model.pt2", tmp_path / "models")


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """A model that keeps its weights in `weights.bin` beside it, one of them inside a node."""
    folder = tmp_path / "external"
    folder.mkdir()
    weight, constant = (
        helper.make_tensor(name, TensorProto.FLOAT, [3], np.full(3, 2, np.float32).tobytes(), raw=True) for name in "wc"
    )
    nodes = [
        helper.make_node("Constant", [], ["c"], value=constant),
        helper.make_node("Mul", ["x", "w"], ["z"]),
        helper.make_node("Add", ["z", "c"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 3]) for name in "xy")
    model = helper.make_model(
        helper.make_graph(nodes, "affine", [x], [y], [weight]),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=9,
    )
    onnx.save_model(model, folder / "affine.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    return folder / "affine.onnx"


def test_weights_beside_the_file_come_along(external: Path, tmp_path: Path) -> None:
    published = export(external, tmp_path / "models", samples={"x": np.ones((3, 3), np.float32)})
    assert (published.folder / "weights.bin").read_bytes() == (external.parent / "weights.bin").read_bytes()
    assert "weights.bin" in Manifest.load(published.folder).files
    golden = load_golden(published.folder, Repository(tmp_path / "models").config("model"))
    np.testing.assert_array_equal(golden.outputs["y"], np.full((3, 3), 4, np.float32))


@pytest.mark.parametrize("where", ["initializer", "node"])
@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("../secret", "without a path"),
        ("/etc/hostname", "without a path"),
        ("sub/weights.bin", "without a path"),
        ("", "without a path"),
        ("link.bin", "is a link"),
        ("gone.bin", "is not in"),
    ],
)
def test_weights_that_leave_the_folder_are_refused_unread(
    where: str, location: str, message: str, external: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(bytes(64))
    (external.parent / "link.bin").symlink_to(tmp_path / "secret")
    model = onnx.load(external, load_external_data=False)
    holder = helper.make_tensor("v", TensorProto.FLOAT, [3], bytes(12), raw=True)
    holder.ClearField("raw_data")
    holder.data_location = TensorProto.EXTERNAL
    holder.external_data.add(key="location", value=location)
    if where == "initializer":
        model.graph.initializer.append(holder)
    else:
        model.graph.node.insert(0, helper.make_node("Constant", [], ["v"], value=holder))
    external.write_bytes(model.SerializeToString())
    with pytest.raises(ConversionError, match=rf"has weights in '.*{message}.*save_as_external_data=True"):
        export(external, tmp_path / "models")
    assert not (tmp_path / "models").exists()
