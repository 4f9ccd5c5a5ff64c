"""PyTorch to ONNX and TorchScript: what comes out, what is refused, and that a refusal leaves nothing behind."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_iris
from torch import nn

from tritium.client import InputError, MissingExtraError
from tritium.exporters import ConversionError, ExportError, export_torch
from tritium.repository import Manifest, Published, Repository, input_specs, load_golden, open_artifact, output_specs

Array = NDArray[Any]
FORMATS = ("onnx", "torchscript")


@pytest.fixture(scope="module")
def rows() -> Array:
    """The flowers' four measures, shuffled."""
    order = np.random.default_rng(0).permutation(150)
    found: Array = load_iris().data[order].astype(np.float32)
    return found


class OneInOneOut(nn.Module):
    """A classifier with dropout, which must be off once it is exported."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))

    def forward(self, measures: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.layers(measures)
        return scores.softmax(dim=1)


class TwoInTwoOut(nn.Module):
    """Takes and gives two tensors of different widths, so that none can stand for another."""

    def forward(self, sepal: torch.Tensor, petal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return sepal * petal.sum(dim=1, keepdim=True), torch.cat([petal, sepal], dim=1) * 2


class BranchesOnValues(nn.Module):
    """What it does depends on the values in the batch: no graph of it can be written by example."""

    def forward(self, measures: torch.Tensor) -> torch.Tensor:
        return measures + 1 if bool(measures[0, 0] > 5) else measures - 1


def run(published: Published, repository: Path, inputs: Sequence[Array]) -> list[Array]:
    """What the published artifact answers, inputs and outputs in the config's order."""
    config = Repository(repository).config(published.model)
    (artifact,) = published.folder.glob("model.*")
    names = [spec.name for spec in input_specs(config)]
    outputs = [spec.name for spec in output_specs(config)]
    got = open_artifact(artifact, config.backend)(dict(zip(names, inputs, strict=True)), outputs)
    return [got[name] for name in outputs]


def eager(module: nn.Module, inputs: Sequence[Array]) -> list[Array]:
    with torch.inference_mode():
        results = module.eval()(*map(torch.from_numpy, inputs))
    return [result.numpy() for result in ((results,) if isinstance(results, torch.Tensor) else results)]


@pytest.mark.parametrize(
    ("form", "backend", "file", "input_name", "output_name"),
    [
        ("onnx", "onnxruntime", "model.onnx", "measures", "probabilities"),
        ("torchscript", "pytorch", "model.pt", "measures__0", "probabilities__0"),
    ],
)
def test_a_module_is_published_with_a_batch_axis_that_takes_any_number_of_rows(
    rows: Array, tmp_path: Path, form: str, backend: str, file: str, input_name: str, output_name: str
) -> None:
    module = OneInOneOut()
    published = export_torch(
        module, {"measures": rows}, outputs=["probabilities"], name="flowers", repository=tmp_path, formats=form
    )
    assert (published.model, published.version) == ("flowers", 1)
    config = Repository(tmp_path).config("flowers")
    assert config.backend == backend
    assert (published.folder / file).is_file()
    assert [(spec.name, spec.dtype, spec.shape) for spec in input_specs(config)] == [(input_name, "FP32", (-1, 4))]
    assert [(spec.name, spec.dtype, spec.shape) for spec in output_specs(config)] == [(output_name, "FP32", (-1, 3))]
    for count in (1, 2, 7):
        (got,) = run(published, tmp_path, [rows[:count]])
        (expected,) = eager(module, [rows[:count]])
        assert got.shape == (count, 3)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", FORMATS)
def test_several_inputs_and_outputs_keep_their_names_and_their_order(rows: Array, tmp_path: Path, form: str) -> None:
    held_out = {"sepal": rows[:, :1].copy(), "petal": rows[:, 1:].copy()}
    published = export_torch(
        TwoInTwoOut(), held_out, outputs=["scaled", "doubled"], name="two", repository=tmp_path, formats=form
    )
    config = Repository(tmp_path).config("two")
    numbers = ("__0", "__1") if form == "torchscript" else ("", "")
    assert [spec.name for spec in input_specs(config)] == [f"sepal{numbers[0]}", f"petal{numbers[1]}"]
    assert [spec.name for spec in output_specs(config)] == [f"scaled{numbers[0]}", f"doubled{numbers[1]}"]
    for count in (1, 2, 7):
        batch = [array[:count] for array in held_out.values()]
        for got, expected in zip(run(published, tmp_path, batch), eager(TwoInTwoOut(), batch), strict=True):
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", FORMATS)
def test_whole_numbers_stay_whole_numbers(tmp_path: Path, form: str) -> None:
    """Token ids as a text model takes them."""
    tokens = np.array([[1, 2, 0], [3, 4, 0], [4, 4, 4]], dtype=np.int64)
    published = export_torch(
        nn.Embedding(5, 2), {"tokens": tokens}, outputs=["vectors"], name="words", repository=tmp_path, formats=form
    )
    (spec,) = input_specs(Repository(tmp_path).config("words"))
    assert (spec.dtype, spec.shape) == ("INT64", (-1, 3))
    assert run(published, tmp_path, [tokens])[0].shape == (3, 3, 2)


@pytest.mark.parametrize("form", FORMATS)
def test_a_module_in_training_mode_is_exported_as_it_is_to_be_served(rows: Array, tmp_path: Path, form: str) -> None:
    module = OneInOneOut().train()
    published = export_torch(
        module, {"measures": rows}, outputs=["scores"], name="flowers", repository=tmp_path, formats=form
    )
    assert module.training, "and is left as it was"
    assert all(part.training for part in module.modules())
    first, second = (run(published, tmp_path, [rows])[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("form", FORMATS)
def test_the_golden_cases_are_the_first_rows_and_what_the_module_says_of_them(
    rows: Array, tmp_path: Path, form: str
) -> None:
    module = OneInOneOut()
    published = export_torch(
        module, {"measures": rows}, outputs=["scores"], name="flowers", repository=tmp_path, formats=form
    )
    golden = load_golden(published.folder, Repository(tmp_path).config("flowers"))
    assert len(golden) == 32
    (inputs,), (outputs,) = golden.inputs.values(), golden.outputs.values()
    np.testing.assert_array_equal(inputs, rows[:32])
    np.testing.assert_allclose(outputs, eager(module, [rows[:32]])[0], rtol=0, atol=1e-6)


def test_the_manifest_names_what_made_the_version(rows: Array, tmp_path: Path) -> None:
    made = {
        form: export_torch(
            OneInOneOut(), {"measures": rows}, outputs=["scores"], name=form, repository=tmp_path, formats=form
        )
        for form in FORMATS
    }
    onnx_manifest, script_manifest = (Manifest.load(made[form].folder) for form in FORMATS)
    opsets = {opset.domain: opset.version for opset in onnx.load(made["onnx"].folder / "model.onnx").opset_import}
    assert onnx_manifest.opset == opsets[""]
    assert onnx_manifest.frameworks.keys() == {"python", "numpy", "torch", "onnx", "onnxscript"}
    assert script_manifest.opset is None
    assert script_manifest.frameworks.keys() == {"python", "numpy", "torch"}
    for manifest, output in ((onnx_manifest, "scores"), (script_manifest, "scores__0")):
        assert manifest.rows == 150
        assert manifest.parity[output]["max_abs"] <= 1e-5
        assert manifest.parity[output]["agreement"] == 1


def test_an_onnx_model_is_one_file_that_holds_its_weights(rows: Array, tmp_path: Path) -> None:
    published = export_torch(OneInOneOut(), {"measures": rows}, outputs=["scores"], name="flowers", repository=tmp_path)
    assert {path.name for path in published.folder.iterdir()} == {"model.onnx", "golden.npz", "manifest.json"}
    graph = onnx.load(published.folder / "model.onnx", load_external_data=False).graph
    assert not [tensor.name for tensor in graph.initializer if tensor.external_data]


KINDS = ["setosa", "versicolor", "virginica"]


@pytest.mark.parametrize(("form", "output"), [("onnx", "scores"), ("torchscript", "scores__0")])
def test_the_labels_of_one_output_are_written_to_labels_txt(
    rows: Array, tmp_path: Path, form: str, output: str
) -> None:
    export_torch(
        OneInOneOut(),
        {"measures": rows},
        outputs=["scores"],
        labels={"scores": KINDS},
        name="flowers",
        repository=tmp_path,
        formats=form,
    )
    assert (tmp_path / "flowers/labels.txt").read_text(encoding="utf-8") == "setosa\nversicolor\nvirginica\n"
    config = Repository(tmp_path).config("flowers")
    assert [(tensor.name, tensor.label_filename) for tensor in config.output] == [(output, "labels.txt")]


@pytest.mark.parametrize("form", FORMATS)
def test_each_of_several_labelled_outputs_has_a_file_of_its_own(rows: Array, tmp_path: Path, form: str) -> None:
    export_torch(
        TwoInTwoOut(),
        {"sepal": rows[:, :1].copy(), "petal": rows[:, 1:].copy()},
        outputs=["scaled", "doubled"],
        labels={"scaled": ["only"], "doubled": ["a", "b", "c", "d"]},
        name="two",
        repository=tmp_path,
        formats=form,
    )
    files = [tensor.label_filename for tensor in Repository(tmp_path).config("two").output]
    assert [(tmp_path / "two" / file).read_text(encoding="utf-8").split() for file in files] == [
        ["only"],
        ["a", "b", "c", "d"],
    ]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("labels", "word"), [({"scores": ["one", "two"]}, "3"), ({"score": KINDS}, "'score'")], ids=["too few", "unknown"]
)
def test_labels_that_do_not_fit_the_outputs_are_refused(
    rows: Array, tmp_path: Path, form: str, labels: Mapping[str, Sequence[str]], word: str
) -> None:
    with pytest.raises(InputError, match=f"labels.*{word}"):
        export_torch(
            OneInOneOut(),
            {"measures": rows},
            outputs=["scores"],
            labels=labels,
            name="flowers",
            repository=tmp_path / "models",
            formats=form,
        )
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "outputs", [[], ["scaled"], ["scaled", "doubled", "more"], ["same", "same"]], ids=["none", "1", "3", "one twice"]
)
def test_outputs_that_are_not_those_of_forward_are_refused(
    rows: Array, tmp_path: Path, form: str, outputs: list[str]
) -> None:
    with pytest.raises(InputError, match="'outputs' parameter must name 2"):
        export_torch(
            TwoInTwoOut(),
            {"sepal": rows[:, :1].copy(), "petal": rows[:, 1:].copy()},
            outputs=outputs,
            name="two",
            repository=tmp_path / "models",
            formats=form,
        )
    assert not (tmp_path / "models").exists()


def test_an_unknown_format_is_refused_with_those_there_are(rows: Array, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'formats'.*'onnx', 'torchscript'.*got 'tflite' instead"):
        export_torch(
            OneInOneOut(),
            {"measures": rows},
            outputs=["scores"],
            name="flowers",
            repository=tmp_path / "models",
            formats="tflite",
        )
    assert not (tmp_path / "models").exists()


def test_a_module_that_branches_on_values_is_refused_with_a_way_out(rows: Array, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="does not take this BranchesOnValues") as caught:
        export_torch(
            BranchesOnValues(), {"measures": rows}, outputs=["moved"], name="branch", repository=tmp_path / "models"
        )
    assert "torch.where or torch.cond" in str(caught.value)
    assert "formats='torchscript' and script=True" in str(caught.value)
    assert "`return measures + 1 if bool(measures[0, 0] > 5) else measures - 1`" in str(caught.value)
    assert caught.value.__cause__ is not None
    assert not (tmp_path / "models").exists()


class AddsInPlace(nn.Module):
    def forward(self, measures: torch.Tensor) -> torch.Tensor:
        measures.add_(1)
        return measures


class ScalesInPlace(nn.Module):
    def forward(self, measures: torch.Tensor) -> torch.Tensor:
        measures.mul_(2.0)
        return measures.sum(dim=1, keepdim=True)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("module", "expected"),
    [(AddsInPlace(), lambda rows: rows + 1), (ScalesInPlace(), lambda rows: 2 * rows.sum(axis=1, keepdims=True))],
)
def test_a_module_that_changes_its_inputs_in_place_gets_fresh_ones_each_time(
    rows: Array, module: nn.Module, expected: Any, form: str, tmp_path: Path
) -> None:
    given = rows.copy()
    published = export_torch(module, {"measures": given}, outputs=["y"], name="one", repository=tmp_path, formats=form)
    np.testing.assert_array_equal(given, rows)
    golden = load_golden(published.folder, Repository(tmp_path).config("one"))
    (inputs,), (outputs,) = golden.inputs.values(), golden.outputs.values()
    np.testing.assert_array_equal(inputs, rows[:32])
    np.testing.assert_allclose(outputs, expected(rows[:32]), atol=1e-5)


def test_a_module_that_returns_the_same_buffer_each_time_keeps_its_answers_apart(tmp_path: Path) -> None:
    class Refills(nn.Module):
        kept: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("kept", torch.zeros(1))

        def forward(self, measures: torch.Tensor) -> torch.Tensor:
            self.kept += measures.sum()
            return self.kept

    with pytest.raises(ExportError, match="differs between two runs"):
        export_torch(
            Refills(),
            {"measures": np.ones((4, 1), np.float32)},
            outputs=["y"],
            name="one",
            repository=tmp_path / "models",
            formats="torchscript",
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": "torchscript", "opset": 18}, r"'opset' parameter of export_torch is ONNX's"),
        ({"formats": "onnx", "script": True}, r"'script' parameter of export_torch is TorchScript's"),
    ],
)
def test_options_of_a_format_that_is_not_asked_for_are_refused(
    rows: Array, options: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        export_torch(
            OneInOneOut(), {"measures": rows}, outputs=["y"], name="one", repository=tmp_path / "models", **options
        )
    assert not (tmp_path / "models").exists()


class Overflows(nn.Module):
    """Has no number to say of long petals."""

    def forward(self, measures: torch.Tensor) -> torch.Tensor:
        return (6 - measures).log()


@pytest.mark.parametrize("form", FORMATS)
def test_a_module_that_answers_with_no_number_is_refused_with_the_row(rows: Array, tmp_path: Path, form: str) -> None:
    first = int(np.argwhere((rows >= 6).any(axis=1))[0, 0])
    with pytest.raises(
        ExportError, match=rf"'flowers' itself answers held-out row {first} with a logs\S* .*not finite"
    ):
        export_torch(
            Overflows(),
            {"measures": rows},
            outputs=["logs"],
            name="flowers",
            repository=tmp_path / "models",
            formats=form,
        )
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    "held_out",
    [
        lambda rows: {"measures": rows.astype(np.float64)},
        lambda rows: {"measures": rows[:, :3]},
        lambda rows: {"measures": rows, "more": rows},
    ],
    ids=["dtype", "width", "number of inputs"],
)
def test_rows_that_forward_does_not_take_are_refused(rows: Array, tmp_path: Path, held_out: Any) -> None:
    with pytest.raises(InputError, match="held_out"):
        export_torch(OneInOneOut(), held_out(rows), outputs=["scores"], name="flowers", repository=tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_missing_torch_is_named_with_the_command_that_brings_it(
    rows: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = OneInOneOut()
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"'torch'.*pip install 'tritium\[exporters\]'"):
        export_torch(module, {"measures": rows}, outputs=["scores"], name="flowers", repository=tmp_path / "models")
