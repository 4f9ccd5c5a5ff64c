"""How modules take their inputs and what they return: what is found out by itself, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from tritium.client import InputError
from tritium.exporters import ExportError, export_torch
from tritium.repository import Published, Repository, Serving, input_specs, load_golden, output_specs

Array = NDArray[Any]
FORMATS = ("onnx", "torchscript")
ROWS: Array = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
OTHER: Array = np.random.default_rng(1).normal(size=(9, 2)).astype(np.float32)


class TakesOneDict(nn.Module):
    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return batch["wide"].sum(dim=1, keepdim=True) - batch["narrow"]


class TakesOneUnannotated(nn.Module):
    def forward(self, batch):  # type: ignore[no-untyped-def]
        return batch["wide"].sum(dim=1, keepdim=True) - batch["narrow"]


class TakesTwo(nn.Module):
    def forward(self, wide: torch.Tensor, narrow: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return (wide.sum(dim=1, keepdim=True) - narrow) * scale


class TakesAny(nn.Module):
    def forward(self, **tensors: torch.Tensor) -> torch.Tensor:
        return tensors["wide"].sum(dim=1, keepdim=True) - tensors["narrow"]


class GivesADict(nn.Module):
    """As models of transformers do: some of it is not there."""

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        return {"doubled": x * 2, "cache": None, "total": x.sum(dim=1, keepdim=True)}


class Both(NamedTuple):
    doubled: torch.Tensor
    total: torch.Tensor


class GivesANamedTuple(nn.Module):
    def forward(self, x: torch.Tensor) -> Both:
        return Both(x * 2, x.sum(dim=1, keepdim=True))


class Gives(nn.Module):
    """Returns whatever a function makes of its input."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: torch.Tensor) -> Any:
        return self.make(x)


class Branches(nn.Module):
    """Scripted, not traced: which way it goes depends on the batch."""

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        sign = 1.0
        if bool(batch["wide"].sum() > 0):
            sign = -1.0
        return {"first": batch["wide"] * sign * sign, "second": batch["narrow"] + 1}


def export(module: nn.Module, held_out: Mapping[str, Array], folder: Path, **options: Any) -> Published:
    published: Published = export_torch(module, held_out, name="model", repository=folder, **options)
    return published


def golden(published: Published, folder: Path) -> tuple[list[Array], list[Array]]:
    """Inputs and outputs of the golden cases, in the config's order."""
    config = Repository(folder).config(published.model)
    cases = load_golden(published.folder, config)
    inputs = [cases.inputs[spec.name] for spec in input_specs(config)]
    return inputs, [cases.outputs[spec.name] for spec in output_specs(config)]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "module", [TakesOneDict(), TakesOneUnannotated(), TakesTwo(), TakesAny()], ids=lambda m: type(m).__name__
)
@pytest.mark.parametrize("order", [("wide", "narrow"), ("narrow", "wide")], ids="-".join)
def test_inputs_reach_forward_by_their_names_in_any_order(
    module: nn.Module, order: Sequence[str], form: str, tmp_path: Path
) -> None:
    arrays = {"wide": ROWS, "narrow": OTHER}
    published = export(module, {key: arrays[key] for key in order}, tmp_path, outputs=["rest"], formats=form)
    inputs, (rest,) = golden(published, tmp_path)
    np.testing.assert_array_equal(inputs[order.index("wide")], ROWS)
    np.testing.assert_allclose(rest, ROWS.sum(axis=1, keepdims=True) - OTHER, atol=1e-5)
    specs = [spec.name for spec in input_specs(Repository(tmp_path).config("model"))]
    assert specs == [f"{key}__{place}" if form == "torchscript" else key for place, key in enumerate(order)]


def test_names_that_are_none_of_the_arguments_are_passed_in_their_order(tmp_path: Path) -> None:
    published = export(TakesTwo(), {"a": ROWS, "b": OTHER}, tmp_path, outputs=["rest"], formats="torchscript")
    _, (rest,) = golden(published, tmp_path)
    np.testing.assert_allclose(rest, ROWS.sum(axis=1, keepdims=True) - OTHER, atol=1e-5)


def test_names_of_arguments_in_another_place_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"TakesTwo names its arguments \(wide, narrow, scale\).*got b, wide instead"):
        export(TakesTwo(), {"b": OTHER, "wide": ROWS}, tmp_path / "models", outputs=["rest"])
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("form", FORMATS)
def test_a_dict_names_its_outputs_and_outputs_chooses_among_them(form: str, tmp_path: Path) -> None:
    published = export(GivesADict(), {"x": ROWS}, tmp_path, outputs=["total", "doubled"], formats=form)
    _, (total, doubled) = golden(published, tmp_path)
    np.testing.assert_allclose(total, ROWS.sum(axis=1, keepdims=True), atol=1e-5)
    np.testing.assert_array_equal(doubled, ROWS * 2)


@pytest.mark.parametrize("module", [GivesANamedTuple(), Gives(lambda x: {"doubled": x * 2, "total": x.sum(1, True)})])
def test_outputs_are_not_asked_for_where_forward_names_them(module: nn.Module, tmp_path: Path) -> None:
    export(module, {"x": ROWS}, tmp_path)
    assert [spec.name for spec in output_specs(Repository(tmp_path).config("model"))] == ["doubled", "total"]


@pytest.mark.parametrize(
    ("make", "outputs", "message"),
    [
        (lambda x: None, ["y"], r"a tensor, or a tuple, list or dict of tensors, got NoneType instead"),
        (lambda x: (), ["y"], r"got an empty one instead"),
        (lambda x: (x, (x, x)), ["y", "z"], r"what it returns at 1 is of type tuple\. Wrap it"),
        (lambda x: {"y": x, "z": None}, None, r"what it returns at 'z' is of type NoneType"),
        (lambda x: {"y": x}, ["w"], r"any of \['y'\], got \['w'\] instead"),
        (lambda x: (x, x), None, r"must name 2 tensors, .* shape \(2, 4\), \(2, 4\)\), got None instead"),
        (lambda x: x, "y", r"a list of names, as in \['y'\], got a string"),
        (lambda x: x, ["x"], r"other names than the inputs, got 'x' for both"),
        (lambda x: x + 1j, ["y"], r"'y'.*complex64.*cannot be served"),
        (lambda x: x.sum(), ["y"], r"shape \(\) for 9 rows\) cannot be served"),
        (lambda x: x[:1], ["y"], r"'y' .* cannot be served: it has 1 entries for 9 rows"),
    ],
)
def test_what_cannot_be_an_output_is_refused_with_what_can(
    make: Any, outputs: Sequence[str] | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        export(Gives(make), {"x": ROWS}, tmp_path / "models", outputs=outputs, formats="torchscript")
    assert not (tmp_path / "models").exists() or not Repository(tmp_path / "models").models()


@pytest.mark.parametrize("form", FORMATS)
def test_a_module_that_differs_from_run_to_run_is_refused_with_the_reason(form: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"differs between two runs on the same rows: its 'y' by up to .* dropout"):
        export(Gives(nn.functional.dropout), {"x": ROWS}, tmp_path / "models", outputs=["y"], formats=form)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("form", ["script", "scripted"])
def test_a_module_that_branches_on_values_is_scripted_with_dicts_in_and_out(form: str, tmp_path: Path) -> None:
    module: nn.Module = Branches()
    if form == "scripted":
        with pytest.warns(DeprecationWarning):
            module = torch.jit.script(module)
    held_out = {"wide": ROWS, "narrow": OTHER}
    published = export(module, held_out, tmp_path, formats="torchscript", script=form == "script")
    _, (first, second) = golden(published, tmp_path)
    np.testing.assert_array_equal(first, ROWS)
    np.testing.assert_array_equal(second, OTHER + 1)


@pytest.mark.parametrize("form", FORMATS)
def test_whole_numbers_and_booleans_keep_their_dtypes(form: str, tmp_path: Path) -> None:
    held_out = {"ids": np.arange(9, dtype=np.int32).reshape(9, 1), "mask": np.arange(9).reshape(9, 1) % 2 == 0}
    module = Picks()
    export(module, held_out, tmp_path, outputs=["kept", "none"], formats=form)
    config = Repository(tmp_path).config("model")
    assert [spec.dtype for spec in (*input_specs(config), *output_specs(config))] == ["INT32", "BOOL", "INT32", "BOOL"]


class Picks(nn.Module):
    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.where(mask, ids, 0 * ids), ~mask


class Reduced(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(dim=1)).to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.layers(x)
        return scores


HALF = [
    ("onnx", torch.float16, np.float16, "FP16"),
    ("torchscript", torch.float16, np.float16, "FP16"),
    ("torchscript", torch.bfloat16, ml_dtypes.bfloat16, "BF16"),
]


@pytest.mark.parametrize(("form", "weights", "rows", "dtype"), HALF)
def test_reduced_precision_goes_in_and_comes_out_as_it_is(
    form: str, weights: torch.dtype, rows: Any, dtype: str, tmp_path: Path
) -> None:
    export(Reduced(weights), {"x": ROWS.astype(rows)}, tmp_path, outputs=["y"], formats=form)
    config = Repository(tmp_path).config("model")
    assert [spec.dtype for spec in (*input_specs(config), *output_specs(config))] == [dtype, dtype]


@pytest.mark.parametrize(("form", "weights", "rows", "dtype"), HALF)
@pytest.mark.parametrize("script", [False, True])
def test_float32_rows_of_reduced_weights_are_cast_inside_the_model(
    form: str, weights: torch.dtype, rows: Any, dtype: str, script: bool, tmp_path: Path
) -> None:
    script = script and form == "torchscript"
    export(Reduced(weights), {"x": ROWS}, tmp_path, outputs=["y"], formats=form, script=script)
    config = Repository(tmp_path).config("model")
    assert [spec.dtype for spec in (*input_specs(config), *output_specs(config))] == ["FP32", "FP32"]


def test_rows_of_the_wrong_dtype_are_refused_with_that_of_the_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x float64\(2, 4\); its weights are torch.float32"):
        export(Reduced(torch.float32), {"x": ROWS.astype(np.float64)}, tmp_path / "models", outputs=["y"])
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("form", FORMATS)
def test_a_model_without_a_batch_axis_is_asked_for_one_row_at_a_time(form: str, tmp_path: Path) -> None:
    module = Gives(lambda x: (x.reshape(2, 2) * 2, x.sum(0, True)))
    export(module, {"x": ROWS}, tmp_path, outputs=["y", "z"], formats=form, serving=Serving(max_batch_size=0))
    config = Repository(tmp_path).config("model")
    assert config.max_batch_size == 0
    assert [spec.shape for spec in (*input_specs(config), *output_specs(config))] == [(4,), (2, 2), (1,)]


def test_an_output_without_any_axis_is_refused_where_there_is_no_batch(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"it has no axis; y.unsqueeze\(0\) gives it one"):
        export(
            Gives(lambda x: x.sum()),
            {"x": ROWS},
            tmp_path / "models",
            outputs=["y"],
            serving=Serving(max_batch_size=0),
        )
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        ({}, "must map input names to arrays"),
        (ROWS, "must map input names to arrays"),
        ({"x": ROWS[:1]}, r"two or more rows.*Got \{'x': 1\}"),
        ({"x": ROWS, "y": OTHER[:3]}, r"two or more rows, as many in each"),
        ({"x": ROWS.astype(str)}, r"'x' must be an array of numbers, got <U"),
    ],
)
def test_rows_that_are_none_are_refused(held_out: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        export(Reduced(torch.float32), held_out, tmp_path / "models", outputs=["y"])
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Reduced(torch.float32).state_dict(), "must be a torch.nn.Module, got OrderedDict instead"),
        (Reduced(torch.float32).to("meta"), "device 'meta' and has no weights"),
    ],
)
def test_a_module_without_weights_is_refused(module: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        export(module, {"x": ROWS}, tmp_path / "models", outputs=["y"])
    assert not (tmp_path / "models").exists()
