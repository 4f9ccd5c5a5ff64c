"""Axes of any length, opsets, external data, several formats at once, and failures of torch in plain words."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from tritium.client import InputError
from tritium.exporters import ConversionError, ParityError, _torch_convert, export_torch, torch_to_onnx
from tritium.repository import (
    Manifest,
    Repository,
    Serving,
    Tolerance,
    input_specs,
    open_artifact,
    output_specs,
    verify_server,
)
from tritium.server import TritonServer

Array = NDArray[Any]
FORMATS = ("onnx", "torchscript")
ROWS: Array = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
TOKENS: Array = np.random.default_rng(1).integers(1, 20, size=(9, 6))
MASK: Array = (np.arange(6) < np.arange(1, 10)[:, np.newaxis]).astype(np.float32)
DYNAMIC = {"tokens": {1: "length"}, "mask": {1: "length"}}


class Tagger(nn.Module):
    """An LSTM over tokens of any length: what it says of each token, and of all of them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.lstm = nn.Embedding(20, 4), nn.LSTM(4, 5, batch_first=True)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        states, _ = self.lstm(self.embedding(tokens))
        return states, (states * mask.unsqueeze(-1)).sum(dim=1)


class Does(nn.Module):
    """A layer, and what a function makes of it."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.make = nn.Linear(4, 4), make

    def forward(self, x: torch.Tensor) -> Any:
        return self.make(self.layer(x))


class AveragesBySix(nn.Module):
    """Tracing keeps the length that it has seen as a number."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        length = tokens.shape[1] if not torch.jit.is_tracing() else 6
        return tokens.sum(dim=1, keepdim=True) / length


class SixOnly(nn.Module):
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.reshape(-1, 2, 3).sum(dim=1)


def test_an_axis_of_any_length_is_free_in_the_config_and_right_at_other_lengths(tmp_path: Path) -> None:
    module = Tagger()
    published = export_torch(
        module,
        {"tokens": TOKENS, "mask": MASK},
        outputs=["states", "sum"],
        name="tagger",
        repository=tmp_path,
        formats=FORMATS,
        dynamic=DYNAMIC,
    )
    assert [one.model for one in published] == ["tagger", "tagger_torchscript"]
    for one in published:
        config = Repository(tmp_path).config(one.model)
        assert [spec.shape for spec in input_specs(config)] == [(-1, -1), (-1, -1)]
        assert [spec.shape for spec in output_specs(config)] == [(-1, -1, 5), (-1, 5)]
        names = [spec.name for spec in (*input_specs(config), *output_specs(config))]
        (artifact,) = one.folder.glob("model.*")
        for length in (1, 3, 17):
            tokens = np.resize(TOKENS, (2, length))
            mask = np.ones((2, length), np.float32)
            got = open_artifact(artifact, config.backend)({names[0]: tokens, names[1]: mask}, names[2:])
            with torch.no_grad():
                expected = module(torch.from_numpy(tokens), torch.from_numpy(mask))
            for name, wanted in zip(names[2:], expected, strict=True):
                np.testing.assert_allclose(got[name], wanted.numpy(), atol=1e-5)


def test_axes_of_any_length_and_both_formats_are_served(tmp_path: Path) -> None:
    module = Tagger()
    export_torch(
        module,
        {"tokens": TOKENS, "mask": MASK},
        outputs=["states", "sum"],
        name="tagger",
        repository=tmp_path,
        formats=FORMATS,
        dynamic=DYNAMIC,
        serving=Serving(warm_up=True),
    )
    with TritonServer(tmp_path) as server, server.client() as client:
        verdicts = list(verify_server(client, Repository(tmp_path)))
        assert [(verdict.model, verdict.ok) for verdict in verdicts] == [("tagger", True), ("tagger_torchscript", True)]
        tokens, mask = np.resize(TOKENS, (2, 11)), np.ones((2, 11), np.float32)
        with torch.no_grad():
            states, total = module(torch.from_numpy(tokens), torch.from_numpy(mask))
        for name in ("tagger", "tagger_torchscript"):
            handle = client.model(name)
            answer = handle(dict(zip([spec.name for spec in handle.metadata.inputs], (tokens, mask), strict=True)))
            for got, wanted in zip(answer.values(), (states, total), strict=True):
                np.testing.assert_allclose(got, wanted.numpy(), atol=1e-5)


def test_the_graph_itself_declares_the_axes_of_its_outputs_as_free() -> None:
    """torch writes the example's length there; Triton compares it with the config."""
    model = torch_to_onnx(Tagger(), {"tokens": TOKENS, "mask": MASK}, ["states", "sum"], dynamic=DYNAMIC)
    (states, _) = model.graph.output
    assert [axis.dim_param or axis.dim_value for axis in states.type.tensor_type.shape.dim] == ["batch", "length", 5]


def test_a_length_that_tracing_froze_is_found_and_never_published(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"mean__0: .*with a length of 1 instead of 6: 8 of 8 differ"):
        export_torch(
            AveragesBySix(),
            {"tokens": TOKENS.astype(np.float32)},
            outputs=["mean"],
            name="mean",
            repository=tmp_path / "models",
            formats="torchscript",
            dynamic={"tokens": {1: "length"}},
        )
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("dynamic", "message"),
    [
        ({"words": {1: "length"}}, r"names of inputs \(tokens, mask\).*got 'words'"),
        ({"tokens": ["length"]}, r"as in {'tokens': {1: 'length'}}"),
        ({"tokens": {0: "rows"}}, r"from 1 to 1 \(the rows, axis 0, are free anyway\), got 0"),
        ({"tokens": {2: "length"}}, r"from 1 to 1 .*got 2"),
        ({"tokens": {1: "batch"}}, r"a name other than 'batch'"),
        ({"tokens": {1: 6}}, r"a name other than 'batch', .*got 6"),
    ],
)
def test_axes_that_are_none_are_refused_with_those_there_are(dynamic: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        export_torch(
            Tagger(),
            {"tokens": TOKENS, "mask": MASK},
            outputs=["states", "sum"],
            name="tagger",
            repository=tmp_path / "models",
            dynamic=dynamic,
        )
    assert not (tmp_path / "models").exists()


def test_different_lengths_by_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Axis 1 of 'mask' is called 'length'.*the same .* got 3 and 6 instead"):
        torch_to_onnx(Tagger(), {"tokens": TOKENS, "mask": MASK[:, :3]}, ["states", "sum"], dynamic=DYNAMIC)


def test_a_module_that_takes_one_length_only_is_refused_with_its_own_reason(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"SixOnly takes no other length than the 6 .* it has 16 entries for 8 rows"):
        torch_to_onnx(SixOnly(), {"tokens": TOKENS}, ["y"], dynamic={"tokens": {1: "length"}})


@pytest.mark.parametrize("opset", [18, 20, 21])
def test_the_opset_is_the_one_that_was_asked_for(opset: int, tmp_path: Path) -> None:
    published = export_torch(Does(torch.tanh), {"x": ROWS}, outputs=["y"], name="one", repository=tmp_path, opset=opset)
    assert Manifest.load(published.folder).opset == opset
    model = onnx.load(published.folder / "model.onnx")
    assert {item.domain: item.version for item in model.opset_import}[""] == opset


@pytest.mark.parametrize("opset", [7, 99])
def test_an_opset_that_torch_does_not_write_is_refused(opset: int, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=rf"cannot be {opset} for this Does: torch.onnx.export made opset 18"):
        export_torch(
            Does(torch.tanh), {"x": ROWS}, outputs=["y"], name="one", repository=tmp_path / "models", opset=opset
        )
    assert not (tmp_path / "models").exists()


def test_weights_that_protobuf_has_no_room_for_lie_beside_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_torch_convert, "EXTERNAL_DATA_BYTES", 1000)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 64), nn.Linear(64, 8))
    published = export_torch(module, {"x": ROWS}, outputs=["y"], name="large", repository=tmp_path / "models")
    names = {path.name for path in published.folder.iterdir()}
    assert names == {"model.onnx", "model.onnx.data", "golden.npz", "manifest.json"}
    assert Manifest.load(published.folder).files.keys() == names - {"manifest.json"}
    model = onnx.load(published.folder / "model.onnx", load_external_data=False)
    places = [
        entry.value for item in model.graph.initializer for entry in item.external_data if entry.key == "location"
    ]
    assert set(places) == {"model.onnx.data"}
    moved = published.folder.rename(tmp_path / "elsewhere")
    got = open_artifact(moved / "model.onnx", "onnxruntime")({"x": ROWS}, ["y"])["y"]
    with torch.no_grad():
        np.testing.assert_allclose(got, module(torch.from_numpy(ROWS)).numpy(), atol=1e-5)


def test_a_companion_file_must_not_be_called_as_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_torch_convert, "EXTERNAL_DATA_BYTES", 1)
    module = nn.Linear(4, 4000)  # of less than this torch keeps all in the model file
    vocabulary = tmp_path / "words.txt"
    vocabulary.write_text("a\nb\n")
    options: dict[str, Any] = {"outputs": ["y"], "name": "large", "repository": tmp_path / "models"}
    with pytest.raises(InputError, match=r"must not have 'model.onnx.data'"):
        export_torch(module, {"x": ROWS}, files={"model.onnx.data": vocabulary}, **options)
    published = export_torch(module, {"x": ROWS}, files={"words.txt": vocabulary}, **options)
    assert (published.folder / "words.txt").read_text() == "a\nb\n"


def test_nothing_is_published_if_one_of_several_formats_fails(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="bessel"):
        export_torch(
            Does(torch.special.bessel_j0),
            {"x": ROWS},
            outputs=["y"],
            name="one",
            repository=tmp_path / "models",
            formats=("torchscript", "onnx"),
        )
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("formats", [(), ("onnx", "onnx"), ("onnx", "tensorrt")])
def test_formats_that_are_none_are_refused(formats: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"one of \['onnx', 'torchscript'\], or several of them"):
        export_torch(nn.Linear(4, 1), {"x": ROWS}, outputs=["y"], name="one", repository=tmp_path, formats=formats)


class DictOfModules(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table: dict[int, str] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * len(self.table.copy())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (torch.special.bessel_j0, r"there is no ONNX operator for prims\.bessel_j0\. .*formats='torchscript'"),
        (lambda x: torch.linalg.svdvals(x.unsqueeze(1)), r"there is no ONNX operator for aten\._linalg_svd\."),
        (lambda x: x + 1 if x[0, 0] > 0 else x - 1, r"branches on the values of its inputs, in `.*x\[0, 0\] > 0"),
        (
            lambda x: x * float(Path("/no/such/file").read_text()) if torch.compiler.is_exporting() else x,
            "No such file",
        ),
    ],
    ids=["no operator", "no operator of torch", "branch", "anything else"],
)
def test_a_failure_of_torch_says_what_of_the_module_and_what_to_try(
    make: Any, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConversionError, match=rf"torch.onnx.export does not take this Does: (?s:.*){message}"):
        export_torch(Does(make), {"x": ROWS}, outputs=["y"], name="one", repository=tmp_path / "models")
    assert not (tmp_path / "models").exists()
    assert not "".join(capfd.readouterr()), "torch's own pages of advice are not printed beside ours"


@pytest.mark.parametrize("formats", FORMATS)
def test_a_number_of_rows_that_forward_keeps_is_found_by_other_numbers(formats: str, tmp_path: Path) -> None:
    def frozen(x: torch.Tensor) -> torch.Tensor:
        exporting = torch.compiler.is_exporting() or torch.jit.is_tracing()
        return x.reshape(2, 4) if exporting else x

    with pytest.raises(ConversionError, match=r"(?s)'one' does not run on held-out data: .*-1 in a reshape"):
        export_torch(
            Does(frozen), {"x": ROWS}, outputs=["y"], name="one", repository=tmp_path / "models", formats=formats
        )
    assert not (tmp_path / "models").exists()


def test_torchscript_is_no_way_to_onnx_and_the_error_says_so(tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning):
        scripted = torch.jit.script(nn.Linear(4, 1))
    with pytest.raises(ConversionError, match=r"takes no TorchScript\. Export the module that it was made of"):
        export_torch(scripted, {"x": ROWS}, outputs=["y"], name="one", repository=tmp_path / "models")


def test_what_torchscript_cannot_compile_is_refused_with_both_ways_out(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"(?s)torch.jit.script does not take this DictOfModules.*script=False"):
        export_torch(
            DictOfModules(),
            {"x": ROWS},
            outputs=["y"],
            name="one",
            repository=tmp_path / "models",
            formats="torchscript",
            script=True,
        )


def test_a_kernel_that_the_runtime_lacks_is_named_with_other_ways(tmp_path: Path) -> None:
    module = nn.Linear(4, 3).bfloat16()
    with pytest.raises(
        ConversionError, match=r"has no Gemm for bfloat16 on a CPU.*formats='torchscript', or in another"
    ):
        export_torch(
            module, {"x": ROWS.astype(ml_dtypes.bfloat16)}, outputs=["y"], name="one", repository=tmp_path / "models"
        )
    assert not (tmp_path / "models").exists()


def test_on_a_gpu_no_less_may_differ_than_on_a_cpu(tmp_path: Path) -> None:
    published = export_torch(nn.Linear(4, 3).half(), {"x": ROWS}, outputs=["y"], name="one", repository=tmp_path)
    manifest = Manifest.load(published.folder)
    assert manifest.tolerance == Tolerance(atol=2e-3, rtol=5e-3)
    assert manifest.gpu_tolerance == Tolerance(atol=2e-3, rtol=5e-3)
    fine = export_torch(nn.Linear(4, 3), {"x": ROWS}, outputs=["y"], name="two", repository=tmp_path)
    manifest = Manifest.load(fine.folder)
    assert manifest.tolerance == Tolerance(atol=1e-5, rtol=1e-5)
    assert manifest.gpu_tolerance == Tolerance(atol=1e-3, rtol=1e-5)


def test_every_part_of_a_module_is_left_in_the_mode_that_it_was_in(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    module.train()
    module[1].eval()  # as one does to a layer that is not to learn any more
    before = {name: value.clone() for name, value in module.state_dict().items()}
    export_torch(module, {"x": ROWS}, outputs=["y"], name="one", repository=tmp_path, serving=Serving(max_batch_size=4))
    assert [part.training for part in module] == [True, False, True, True]
    assert same(module.state_dict(), before)


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_package_is_named_with_the_command_that_brings_it(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Exception, match=rf"'{package}'.*pip install 'tritium\[exporters\]'"):
        export_torch(nn.Linear(4, 1), {"x": ROWS}, outputs=["y"], name="one", repository=tmp_path / "models")


def test_a_converted_graph_runs_without_tritium() -> None:
    module = Does(torch.tanh)
    session = onnxruntime.InferenceSession(torch_to_onnx(module, {"x": ROWS}, ["y"]).SerializeToString())
    with torch.no_grad():
        np.testing.assert_allclose(session.run(None, {"x": ROWS})[0], module(torch.from_numpy(ROWS)), atol=1e-5)
