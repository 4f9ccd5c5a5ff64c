"""Rules about what a version says of itself: its manifest and its golden cases."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from tritium.client import TritiumError

from .._compare import TOLERANCES
from .._config import input_specs, output_specs
from .._golden import GoldenCases
from .._manifest import GOLDEN_NAME, MANIFEST_NAME, UNNAMED, file_sha256
from ._onnx_file import OnnxFile
from ._rules import Problem, Severity, rule, shown
from ._subjects import VersionFolder, leaves

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE


@rule(VersionFolder, "manifest-missing", WARNING)
def _manifest_missing(version: VersionFolder) -> Iterator[Problem]:
    """A version has golden cases and no manifest to say that they are the published ones."""
    if GOLDEN_NAME in version.files and MANIFEST_NAME not in version.files:
        yield Problem(version.path, f"it has {GOLDEN_NAME} and no {MANIFEST_NAME}", "publish the version again")


@rule(VersionFolder, "manifest-unreadable", ERROR)
def _manifest_unreadable(version: VersionFolder) -> Iterator[Problem]:
    """The manifest is none."""
    _ = version.manifest
    if version.manifest_error:
        yield Problem(version.path / MANIFEST_NAME, version.manifest_error, "publish the version again")


@rule(VersionFolder, "manifest-model", ERROR)
def _manifest_model(version: VersionFolder) -> Iterator[Problem]:
    """The manifest is another model's."""
    if version.manifest is not None and version.manifest.model != version.model.name:
        message = f"it is the manifest of {shown(str(version.manifest.model))}"
        yield Problem(version.path / MANIFEST_NAME, message, f"publish the version as {version.model.name!r}")


@rule(VersionFolder, "manifest-tolerance", ERROR)
def _manifest_tolerance(version: VersionFolder) -> Iterator[Problem]:
    """A tolerance is negative, no number, or so wide that it proves nothing."""
    if version.manifest is None:
        return
    for name in ("tolerance", "gpu_tolerance"):
        for key, value in asdict(getattr(version.manifest, name)).items():
            least, most = TOLERANCES[key]
            if not (math.isfinite(value) and least <= value <= most):
                message = f"its {name} has {key} {value}"
                fix = f"publish the version again with {key} from {least:g} to {most:g}"
                yield Problem(version.path / MANIFEST_NAME, message, fix)


@rule(VersionFolder, "manifest-opset", WARNING)
def _manifest_opset(version: VersionFolder) -> Iterator[Problem]:
    """The manifest has another opset than the model file."""
    manifest, file = version.manifest, version.onnx
    if manifest is not None and isinstance(file, OnnxFile) and manifest.opset is not None:
        opset = file.opsets.get("", file.opsets.get("ai.onnx"))
        if manifest.opset != opset:
            message = f"it says opset {manifest.opset}, and {version.model_file} has {opset}"
            yield Problem(version.path / MANIFEST_NAME, message, "publish the version again")


@rule(VersionFolder, "checksum", ERROR)
def _checksum(version: VersionFolder) -> Iterator[Problem]:
    """A file is not the one that was published."""
    for name, checksum in _named(version).items():
        if name in version.files and file_sha256(version.files[name]) != checksum:
            yield Problem(version.files[name], "its sha256 is not the manifest's", "publish the version again")


@rule(VersionFolder, "file-missing", ERROR)
def _file_missing(version: VersionFolder) -> Iterator[Problem]:
    """The manifest names a file that is not there."""
    for name in _named(version):
        if name not in version.files:
            where = "is not there" if not leaves(name) else "is none of the version's"
            message = f"the manifest names {shown(name)}, which {where}"
            yield Problem(version.path / MANIFEST_NAME, message, "publish the version again")


@rule(VersionFolder, "file-unnamed", ERROR)
def _file_unnamed(version: VersionFolder) -> Iterator[Problem]:
    """A file is not in the manifest: it came after the version was published."""
    if version.manifest is None:
        return
    for name, path in version.files.items():
        # A model file is named, whatever it is called.
        if name not in version.manifest.files and name not in UNNAMED - {version.model_file}:
            yield Problem(path, "the manifest does not name it", "remove it, or publish a version that has it")


@rule(VersionFolder, "golden-missing", WARNING)
def _golden_missing(version: VersionFolder) -> Iterator[Problem]:
    """A version was published without golden cases: nothing can be verified."""
    if version.manifest is not None and GOLDEN_NAME not in version.files:
        yield Problem(version.path, f"it has no {GOLDEN_NAME}", "publish the version again")


@rule(VersionFolder, "golden-unfit", ERROR)
def _golden_unfit(version: VersionFolder) -> Iterator[Problem]:
    """The golden cases cannot be read, are not finite, or do not fit the config."""
    path = version.files.get(GOLDEN_NAME)
    config = version.model.config
    if path is None or not (config.input and config.output):
        return
    try:
        inputs, outputs = input_specs(config), output_specs(config)
        golden = GoldenCases.load(path, inputs, outputs)
        golden.check(inputs, outputs, batched=version.model.batched)
        undeclared = _arrays(path) - {spec.name for spec in (*inputs, *outputs)}
    except (TritiumError, ValueError, OverflowError, MemoryError) as exc:
        message = str(exc).removeprefix(f"{path} ")
        yield Problem(path, message, "make config and cases fit, or publish the version again")
        return
    for name in sorted(undeclared):
        message = f"it has the tensor {shown(name)}, which the config does not declare"
        yield Problem(path, message, "declare it in the config, or publish the version again")


def _arrays(path: Path) -> set[str]:
    """The tensors of golden cases, by the names of the archive's members."""
    with zipfile.ZipFile(path) as archive:
        members = [name.removesuffix(".npy") for name in archive.namelist()]
    return {name.partition("/")[2].removesuffix(".shape") for name in members}


def _named(version: VersionFolder) -> dict[str, str]:
    return dict(version.manifest.files) if version.manifest is not None else {}
