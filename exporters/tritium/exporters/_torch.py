"""PyTorch: modules as ONNX and as TorchScript."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from tritium.client import InputError
from tritium.repository import (
    ArtifactError,
    Candidate,
    GoldenCases,
    Published,
    Repository,
    Serving,
    Tolerance,
    measure,
    open_artifact,
    opened,
    publish,
)

from ._errors import ConversionError, ParityError
from ._export import Array, Converted, Provenance, need, prepare
from ._onnx import OPSET
from ._precision import default_tolerance, finite_rows
from ._torch_call import Call, answers, as_served, find_call, tensor
from ._torch_convert import BATCH, Axes, save_onnx, to_onnx_program, to_torchscript

if TYPE_CHECKING:
    import torch
    from onnx import ModelProto

_BACKENDS = {"onnx": "onnxruntime", "torchscript": "pytorch"}
# Rows on which other lengths of an axis are tried.
_ROWS = 8


@overload
def export_torch(  # type: ignore[overload-overlap]  # a string is a sequence too, and comes first
    module: torch.nn.Module,
    held_out: Mapping[str, Array],
    *,
    name: str,
    repository: str | Path | Repository,
    outputs: Sequence[str] | None = ...,
    formats: str = ...,
    dynamic: Axes | None = ...,
    script: bool = ...,
    opset: int | None = ...,
    labels: Mapping[str, Sequence[str]] | None = ...,
    files: Mapping[str, Path] | None = ...,
    serving: Serving = ...,
    tolerance: Tolerance | None = ...,
    provenance: Provenance = ...,
) -> Published: ...


@overload
def export_torch(
    module: torch.nn.Module,
    held_out: Mapping[str, Array],
    *,
    name: str,
    repository: str | Path | Repository,
    outputs: Sequence[str] | None = ...,
    formats: Sequence[str],
    dynamic: Axes | None = ...,
    script: bool = ...,
    opset: int | None = ...,
    labels: Mapping[str, Sequence[str]] | None = ...,
    files: Mapping[str, Path] | None = ...,
    serving: Serving = ...,
    tolerance: Tolerance | None = ...,
    provenance: Provenance = ...,
) -> tuple[Published, ...]: ...


def export_torch(
    module: torch.nn.Module,
    held_out: Mapping[str, Array],
    *,
    name: str,
    repository: str | Path | Repository,
    outputs: Sequence[str] | None = None,
    formats: str | Sequence[str] = "onnx",
    dynamic: Axes | None = None,
    script: bool = False,
    opset: int | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
    files: Mapping[str, Path] | None = None,
    serving: Serving = Serving(),
    tolerance: Tolerance | None = None,
    provenance: Provenance = Provenance(),
) -> Published | tuple[Published, ...]:
    """Publish a PyTorch module as an ONNX or a TorchScript model with a dynamic batch axis.

    Args:
        module: on the CPU. It is converted in eval mode, and left in the mode that it was in.
        held_out: two or more real rows that it was not trained on, by input name, each with the rows as first axis:
            the converted model is compared with the module on all of them, and the first 32 become golden cases.
            Names of arguments of ``forward`` are passed by name, other names in the order given; a forward that takes
            one dict of tensors gets them all in it. BF16 is ``ml_dtypes.bfloat16``. A module of float16 or bfloat16
            weights takes rows of that dtype; if it gets float32 ones and does not take them, they are cast inside the
            model, and its answers back.
        name: the model's name.
        repository: where to publish; made if it is not there.
        outputs: what the tensors that ``forward`` returns are called. A forward that returns a dict or a named tuple
            says so itself; of a dict, this chooses. Triton numbers those of TorchScript, so there ``probabilities``
            becomes ``probabilities__0``, and likewise the inputs.
        formats: ``onnx`` or ``torchscript``; or several, all of which are verified before the first is published. The
            first gets the name, another one the name with its format, as in ``tiny_torchscript``.
        dynamic: for each input and each of its axes that may have any length, beside that of the rows, a name for
            that length, as in ``{"tokens": {1: "length"}, "mask": {1: "length"}}``; what always has the same length
            has one name. The converted model is also compared at other lengths: those rows cut shorter, and repeated
            to twice their length, wherever the module itself takes that.
        script: compile TorchScript from the module's source instead of tracing it, which is refused for what branches
            on values: a trace would keep what it did with the first rows.
        opset: of ONNX, and for it alone; 20 if it is not given. The manifest keeps it.
        labels: for each output that has them, the names of its classes.
        files: what belongs beside the model file in the version's folder, by name, such as a vocabulary.
        serving: how it is to be served. With ``max_batch_size=0`` the module is called with one row at a time,
            without the first axis.
        tolerance: what floats may differ. By default 1e-5, absolute and relative; where an output or the weights are
            float16 2e-3 and 5e-3, bfloat16 2e-2 and 4e-2, because runtimes round between operators where torch may
            not.
        provenance: for the manifest.

    Returns:
        What was published: one if `formats` is a string, else one for each format.

    Raises:
        InputError: the rows, names, formats or axes cannot be used, or ``forward`` does not take or return them.
        ExportError: the module answers with what is not finite, or differs from one run to the next.
        ConversionError: torch's exporter or the runtime does not take the module, or tracing would freeze a value; the
            message says which operator or line.
        ParityError: the converted model does not answer as the module does.
        PublishError: the version failed its verification, or the repository cannot be written.
    """
    wanted = [formats] if isinstance(formats, str) else list(formats)
    if not wanted or set(wanted) - set(_BACKENDS) or len(set(wanted)) != len(wanted):
        raise InputError(
            f"The 'formats' parameter of export_torch must be one of {list(_BACKENDS)}, or several of them, "
            f"got {formats!r} instead"
        )
    if opset is not None and "onnx" not in wanted:
        raise InputError(f"The 'opset' parameter of export_torch is ONNX's; with formats={formats!r}, leave it out")
    if script and "torchscript" not in wanted:
        raise InputError(
            f"The 'script' parameter of export_torch is TorchScript's; with formats={formats!r}, leave it out, or add "
            "'torchscript'"
        )
    need("torch")
    with tempfile.TemporaryDirectory(prefix="tritium-export-") as folder:
        candidates = []
        with as_served(_checked(module)):
            plan = _plan(module, held_out, outputs, dynamic or {}, batched=serving.max_batch_size > 0)
            for form in wanted:
                artifact = Path(folder) / form / "model.onnx"
                artifact.parent.mkdir()
                candidates.append(
                    _candidate(
                        plan,
                        plan.to_onnx(artifact, OPSET if opset is None else opset)
                        if form == "onnx"
                        else plan.to_torchscript(artifact, script),
                        name=name if form == wanted[0] else f"{name}_{form}",
                        labels=labels or {},
                        files=files or {},
                        serving=serving,
                        tolerance=tolerance or plan.tolerance(),
                        provenance=provenance,
                    )
                )
        published = tuple(publish(opened(repository, create=True), candidate) for candidate in candidates)
    return published[0] if isinstance(formats, str) else published


def torch_to_onnx(
    module: torch.nn.Module,
    inputs: Mapping[str, Array],
    outputs: Sequence[str] | None = None,
    *,
    dynamic: Axes | None = None,
    opset: int = OPSET,
) -> ModelProto:
    """Convert a module to ONNX with a dynamic batch axis, by torch's exporter on top of `torch.export`.

    Args:
        module: as for `export_torch`.
        inputs: two or more rows by input name, likewise.
        outputs: the names of what it returns, likewise.
        dynamic: the axes that may have any length, likewise.
        opset: of ONNX.

    Returns:
        The ONNX model, not yet compared with the module.

    Raises:
        InputError: the rows, names or axes cannot be used, or ``forward`` does not take or return them.
        ExportError: the module differs from one run to the next.
        ConversionError: torch's exporter does not take the module.
    """
    need("torch")
    with as_served(_checked(module)):
        model: ModelProto = _plan(module, inputs, outputs, dynamic or {}, batched=True).program(opset).model_proto
    return model


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """A module with all that its conversion is made from and compared with.

    Attributes:
        call: how it is called.
        cases: all held-out rows, and what the module says of them.
        others: some of them at other lengths of their dynamic axes, by what was changed.
        axes: the dynamic axes of the inputs and of the outputs, as the held-out arrays count them.
        batched: whether the model keeps their first axis.
    """

    module: torch.nn.Module
    call: Call
    cases: GoldenCases
    others: Mapping[str, GoldenCases]
    axes: Axes
    batched: bool

    def program(self, opset: int) -> torch.onnx.ONNXProgram:
        first = {0: BATCH} if self.batched else {}
        shift = 0 if self.batched else 1
        axes = {
            key: first | {axis - shift: length for axis, length in self.axes.get(key, {}).items()}
            for key in [*self.cases.inputs, *self.cases.outputs]
        }
        return to_onnx_program(self.module, self.call, self._example(), axes=axes, opset=opset)

    def to_onnx(self, path: Path, opset: int) -> Converted:
        need("onnx")
        need("onnxscript")
        beside = save_onnx(self.program(opset), path)
        packages = ("numpy", "torch", "onnx", "onnxscript")
        return Converted(backend="onnxruntime", artifact=path, files=beside, opset=opset, packages=packages)

    def to_torchscript(self, path: Path, script: bool) -> Converted:
        to_torchscript(self.module, self.call, self._example(), path, script=script)
        return Converted(backend="pytorch", artifact=path, packages=("numpy", "torch"))

    def tolerance(self) -> Tolerance:
        """The widest of what its weights and answers ask for."""
        weights = {str(weight.dtype).removeprefix("torch.") for weight in self.module.state_dict().values()}
        dtypes = weights | {array.dtype.name for array in self.cases.outputs.values()}
        return default_tolerance(dtypes)

    def _example(self) -> dict[str, Array]:
        return {key: array[:2] if self.batched else array[0] for key, array in self.cases.inputs.items()}


def _checked(module: torch.nn.Module) -> torch.nn.Module:
    import torch

    if not isinstance(module, torch.nn.Module):
        raise InputError(
            f"The 'module' parameter must be a torch.nn.Module, got {type(module).__name__} instead; a state dict is "
            "loaded into its module by module.load_state_dict"
        )
    elsewhere = {str(item.device) for item in [*module.parameters(), *module.buffers()]} - {"cpu"}
    if "meta" in elsewhere:
        raise InputError("The module is on torch's device 'meta' and has no weights; load them before it is exported")
    if elsewhere:
        raise InputError(f"The module is on {min(elsewhere)}; call module.cpu() before it is exported")
    return module


def _plan(
    module: torch.nn.Module,
    held_out: Mapping[str, Array],
    outputs: Sequence[str] | None,
    dynamic: Axes,
    *,
    batched: bool,
) -> _Plan:
    arrays = _check_rows(held_out)
    lengths = _check_axes(dynamic, arrays)
    call = find_call(module, {key: array[:2] if batched else array[0] for key, array in arrays.items()}, outputs)
    if both := sorted(arrays.keys() & {result.name for result in call.results}):
        raise InputError(f"The 'outputs' parameter must have other names than the inputs, got {both[0]!r} for both")
    expected = answers(module, call, arrays, batched=batched)
    axes = {key: dict(by_axis) for key, by_axis in dynamic.items()}
    others = {}
    for name, length in lengths.items():
        found = _at_other_lengths(module, call, arrays, dynamic, name, length, batched=batched)
        for other, cases in found.items():
            others[f"with a {name} of {other} instead of {length}"] = cases
            for key, array in cases.outputs.items():
                for axis, (here, there) in enumerate(zip(array.shape[1:], expected[key].shape[1:], strict=False), 1):
                    if here != there:
                        axes.setdefault(key, {})[axis] = name
    return _Plan(
        module=module, call=call, cases=GoldenCases(arrays, expected), others=others, axes=axes, batched=batched
    )


def _check_rows(held_out: Mapping[str, Array]) -> dict[str, Array]:
    if not isinstance(held_out, Mapping) or not held_out or not all(isinstance(key, str) for key in held_out):
        raise InputError("The 'held_out' parameter must map input names to arrays, as in {'features': x}")
    arrays = {key: np.ascontiguousarray(array) for key, array in held_out.items()}
    for key, array in arrays.items():
        try:
            tensor(array[:1])
        except TypeError as exc:
            raise InputError(
                f"The held-out input {key!r} must be an array of numbers, got {array.dtype} instead"
            ) from exc
    counts = {key: len(array) for key, array in arrays.items()}
    if len(set(counts.values())) != 1 or min(counts.values()) < 2:
        raise InputError(
            "The 'held_out' parameter must have two or more rows, as many in each input: one row alone would freeze "
            f"the batch axis. Got {counts} instead"
        )
    return arrays


def _check_axes(dynamic: Axes, arrays: Mapping[str, Array]) -> dict[str, int]:
    """The names of the dynamic axes with their lengths in the held-out rows."""
    lengths: dict[str, int] = {}
    form = "as in {'tokens': {1: 'length'}}"
    for key, by_axis in dynamic.items():
        if key not in arrays or not isinstance(by_axis, Mapping):
            raise InputError(
                f"The 'dynamic' parameter must map names of inputs ({', '.join(arrays)}) to their axes, {form}, "
                f"got {key!r}: {by_axis!r} instead"
            )
        for axis, name in by_axis.items():
            if not isinstance(axis, int) or not 1 <= axis < arrays[key].ndim:
                raise InputError(
                    f"An axis of {key!r} in the 'dynamic' parameter must be from 1 to {arrays[key].ndim - 1} (the "
                    f"rows, axis 0, are free anyway), got {axis!r} instead"
                )
            if not isinstance(name, str) or not name.isidentifier() or name == BATCH:
                raise InputError(
                    f"Axis {axis} of {key!r} in the 'dynamic' parameter must have a name other than {BATCH!r}, "
                    f"{form}, got {name!r} instead"
                )
            length = arrays[key].shape[axis]
            if lengths.setdefault(name, length) != length or length < 2:
                raise InputError(
                    f"Axis {axis} of {key!r} is called {name!r} in the 'dynamic' parameter: it must have a length of 2 "
                    "or more in the held-out rows, the same wherever it is called so, got "
                    f"{' and '.join(map(str, sorted({length, lengths[name]})))} instead"
                )
    return lengths


def _at_other_lengths(
    module: torch.nn.Module,
    call: Call,
    arrays: Mapping[str, Array],
    dynamic: Axes,
    name: str,
    length: int,
    *,
    batched: bool,
) -> dict[int, GoldenCases]:
    """What a module says of rows that are cut shorter, or repeated, along the axes of a name, by their length."""
    found = {}
    error: Exception | None = None
    for other in sorted({1, max(1, length // 2), length - 1, 2 * length} - {length}):
        cut = {key: array[:_ROWS] for key, array in arrays.items()}
        for key, by_axis in dynamic.items():
            for axis in (axis for axis, found_name in by_axis.items() if found_name == name):
                cut[key] = np.take(cut[key], np.arange(other) % length, axis)
        try:
            expected = answers(module, call, cut, batched=batched)
            finite = np.logical_and.reduce([finite_rows(array) for array in expected.values()])
            found[other] = GoldenCases(
                {key: array[finite] for key, array in cut.items()},
                {key: array[finite] for key, array in expected.items()},
            )
        except Exception as exc:  # a module need not take every length
            error = exc
    found = {other: cases for other, cases in found.items() if len(cases)}
    if not found:
        raise InputError(
            f"{type(module).__name__} takes no other {name} than the {length} of the held-out rows: {error}. Take it "
            "out of the 'dynamic' parameter, or mend forward"
        ) from error
    return found


def _candidate(
    plan: _Plan,
    converted: Converted,
    *,
    name: str,
    labels: Mapping[str, Sequence[str]],
    files: Mapping[str, Path],
    serving: Serving,
    tolerance: Tolerance,
    provenance: Provenance,
) -> Candidate:
    """Compare a converted module with the module, at every length."""
    if taken := sorted(files.keys() & converted.files.keys()):
        raise InputError(f"The 'files' parameter must not have {taken[0]!r}, which holds the weights of the model")
    places = [*enumerate(plan.cases.inputs), *enumerate(plan.cases.outputs)]
    numbered = converted.backend == "pytorch"
    names = {key: f"{key}__{place}" if numbered else key for place, key in places}

    def named(mapping: Mapping[str, Array]) -> dict[str, Array]:
        return {names[key]: array for key, array in mapping.items()}

    try:
        candidate = prepare(
            replace(converted, files={**converted.files, **files}),
            name=name,
            inputs=named(plan.cases.inputs),
            expected=named(plan.cases.outputs),
            labels={names.get(key, key): lines for key, lines in labels.items()},
            serving=serving,
            tolerance=tolerance,
            provenance=provenance,
            axes={names[key]: by_axis for key, by_axis in plan.axes.items()},
        )
        if plan.others:
            run = open_artifact(converted.artifact, converted.backend)
            for which, cases in plan.others.items():
                few = GoldenCases(named(cases.inputs), named(cases.outputs))
                differences = measure(run, few, min(serving.max_batch_size, 2), tolerance)
                if any(not difference.ok for difference in differences):
                    raise ParityError(
                        name,
                        [replace(found, detail=f"{which}: {found.detail}") for found in differences if not found.ok],
                    )
    except ArtifactError as exc:
        raise _not_running(name, exc, plan) from exc
    return candidate


def _not_running(name: str, exc: ArtifactError, plan: _Plan) -> ConversionError:
    missing = re.search(r"NOT_IMPLEMENTED.*implementation for (\w+)", str(exc))
    if not missing:
        return ConversionError(
            f"The converted {name!r} does not run on held-out data: {exc}\nNothing was published. If forward keeps a "
            "length of its example (it was shown two rows) as a number, take that from the tensor: x.shape[0] (and not "
            "len(x)), or -1 in a reshape"
        )
    precision = {str(weight.dtype).removeprefix("torch.") for weight in plan.module.state_dict().values()}
    return ConversionError(
        f"ONNX Runtime has no {missing[1]} for {' and '.join(sorted(precision))} on a CPU, so that {name!r} can be "
        "neither compared nor served here. Nothing was published. Export it as TorchScript, with "
        "formats='torchscript', or in another precision: module.half(), module.float()"
    )
