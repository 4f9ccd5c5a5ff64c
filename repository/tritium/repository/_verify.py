"""Verification by golden cases: of a version's folder before it is published, and of a server that runs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tritium.client import Client, Model, Outputs, TritiumError, numpy_dtype

from ._artifact import Array, Artifact, Run, open_artifact
from ._compare import Difference, Tolerance, compare, rows_alike
from ._config import artifact_name, input_specs, output_specs
from ._errors import GateError, GoldenError
from ._golden import GoldenCases
from ._manifest import GOLDEN_NAME, MANIFEST_NAME, Manifest
from ._repository import Repository

# Sizes at which exports were seen to go wrong, beside the largest: one row is squeezed or frozen, two are what
# exporters trace with, seven is no power of two.
_BATCH_SIZES = (1, 2, 7)
_FEW = 32
# A config may allow more, but no such batch is made only to look.
_LARGEST_BATCH = 4096


@dataclass(frozen=True)
class Verdict:
    """What verification says of one version.

    Attributes:
        cases: golden cases sent.
        differences: how far each output is from the golden one, over all cases.
        error: why no comparison was possible; empty if it was.
    """

    model: str
    version: str
    cases: int
    differences: Sequence[Difference] = ()
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether every output of every case is right."""
        return not self.error and all(difference.ok for difference in self.differences)

    def __str__(self) -> str:
        """As in ``digits_cnn 1: ok, 32 cases, probabilities: max |Δ| 2.4e-07``."""
        if self.error:
            return f"{self.model} {self.version}: NOT VERIFIED, {self.error}"
        found = ", ".join([f"{self.cases} cases", *map(str, self.differences)])
        return f"{self.model} {self.version}: {'ok' if self.ok else 'WRONG'}, {found}"


def check_version(folder: Path, config: ModelConfig) -> list[Difference]:
    """The gate: a version's folder does what its manifest, its golden cases and its config say, at every batch size.

    Raises:
        ManifestError: a file is not the one that the manifest names.
        GoldenError: the golden cases are not finite, or do not fit the config.
        ArtifactError: the model file does not load or run.
        GateError: an output is not the golden one, or not as the config declares it.
    """
    manifest = Manifest.load(folder)
    manifest.check_files(folder)
    manifest.tolerance.check()
    golden = load_golden(folder, config)
    golden.check(input_specs(config), output_specs(config), batched=config.max_batch_size > 0)
    artifact = open_artifact(folder / artifact_name(config), config.backend)
    _check_input_shapes(artifact, config)
    differences = measure(_as_configured(artifact, config), golden, config.max_batch_size, manifest.tolerance)
    wrong = [difference for difference in differences if not difference.ok]
    if wrong:
        raise GateError(
            f"its outputs on {len(golden)} golden cases are not the framework's: "
            + "; ".join(map(str, wrong))
            + ". The export is wrong, or the tolerance in the manifest is tighter than float32 allows",
            model=config.name,
        )
    return differences


def measure(run: Run, cases: GoldenCases, max_batch_size: int, tolerance: Tolerance) -> list[Difference]:
    """Run a model on cases and compare its outputs with theirs, in batches of several sizes.

    All cases go in the largest batches; the first that are right there also in batches of 1, 2 and 7, because what an
    export froze or mixed up along the batch axis can show in some sizes only. Where there are fewer cases than a batch
    takes, they are repeated. A model without a batch axis gets each case alone.

    Args:
        run: from inputs by name, and names of outputs, to outputs by name.
        cases: with as many axes as `run` takes and gives, and one more, the first, that counts the cases where
            `max_batch_size` is 0.
        max_batch_size: the model's; 0 if it has no batch axis.
        tolerance: what may differ.

    Returns:
        For each output what was measured over all cases; where only a smaller batch is wrong, what that says.

    Raises:
        ArtifactError: it does not run.
    """
    largest = min(max_batch_size, _LARGEST_BATCH)
    found, got = _measure_at(run, cases, largest, tolerance)
    few = _first_alike(cases, got, tolerance)
    for size in (size for size in _BATCH_SIZES if size < largest):
        for place, difference in enumerate(_measure_at(run, few, size, tolerance)[0]):
            if found[place].ok and not difference.ok:
                found[place] = replace(difference, detail=f"in batches of {size}: {difference.detail}")
    return found


def load_golden(folder: Path, config: ModelConfig) -> GoldenCases:
    """A version's golden cases, if they are those that were published.

    Raises:
        GoldenError: they are missing, or cannot be read.
        ManifestError: they were changed since, or there is no manifest to say so.
    """
    golden = GoldenCases.load(folder / GOLDEN_NAME, input_specs(config), output_specs(config))
    Manifest.load(folder).check_file(folder, GOLDEN_NAME)
    return golden


def verify_server(client: Client, repository: Repository, models: Sequence[str] = ()) -> Iterator[Verdict]:
    """Send the golden cases of every served version to a server and compare its answers.

    Args:
        client: the server, over either protocol.
        repository: where the golden cases are; it must hold the versions that are being served.
        models: the models to verify; by default all of the repository that have golden cases. A model that somebody
            put there by hand has none.

    Yields:
        A verdict for each version that is being served, and one for a model that is not served at all.
    """
    for name in models or [name for name in repository.models() if has_golden(repository, name)]:
        try:
            versions = client.model(name).metadata.versions
        except TritiumError as exc:
            yield Verdict(name, "-", 0, error=str(exc))
            continue
        if not versions:
            yield Verdict(name, "-", 0, error="the server serves no version of it")
        for version in versions:
            try:
                yield _verify_version(client.model(name, version), repository)
            except TritiumError as exc:
                yield Verdict(name, version, 0, error=str(exc))


def has_golden(repository: Repository, model: str) -> bool:
    """Whether a model's latest version has anything to be verified by."""
    folder = repository.version_folder(model)
    return any((folder / name).is_file() for name in (MANIFEST_NAME, GOLDEN_NAME))


def has_manifest(repository: Repository, model: str) -> bool:
    """Whether a model's latest version was published, and so has golden cases."""
    return (repository.version_folder(model) / MANIFEST_NAME).is_file()


def golden_batches(golden: GoldenCases, config: ModelConfig, rows: int | None = None) -> Iterator[GoldenCases]:
    """The cases as a model takes them: in batches, and each alone without a batch axis where it has none.

    Args:
        golden: the cases.
        config: the model's config.
        rows: most cases in a batch; as many as the model takes by default.
    """
    if config.max_batch_size > 0:
        yield from golden.batches(rows or config.max_batch_size)
        return
    for case in golden.batches(1):
        yield GoldenCases(
            {name: array[0] for name, array in case.inputs.items()},
            {name: array[0] for name, array in case.outputs.items()},
        )


def named_outputs(answer: Any, names: Sequence[str]) -> dict[str, Array]:
    """What a model handle returned, by the names of the model's outputs."""
    return dict(answer) if isinstance(answer, Outputs) else {names[0]: answer}


def _verify_version(model: Model, repository: Repository) -> Verdict:
    folder = repository.version_folder(model.name, model.version)
    config = repository.config(model.name)
    tolerance = Manifest.load(folder).tolerance_on(model.config)
    golden = load_golden(folder, config)
    if not len(golden):
        raise GoldenError(f"{folder / GOLDEN_NAME} holds no golden cases: it has 0 of them")
    batches = list(golden_batches(golden, config))
    names = list(golden.outputs)
    answers = [named_outputs(model(dict(batch.inputs)), names) for batch in batches]
    join = np.concatenate if config.max_batch_size else np.stack
    try:
        got = {name: join([answer[name] for answer in answers]) for name in names}
    except ValueError as exc:
        raise GoldenError(f"its answers to {len(batches)} batches of golden cases do not fit together: {exc}") from exc
    return Verdict(model.name, model.version, len(golden), compare(golden.outputs, got, tolerance))


def _reshaped(arrays: Mapping[str, Array], tensors: Sequence[Any], config: ModelConfig) -> dict[str, Array]:
    """Tensors as a client sees them, in the shapes of the model file; a config's `reshape` says where they differ."""
    shapes = {
        tensor.name: ([-1] if config.max_batch_size else []) + list(tensor.reshape.shape)
        for tensor in tensors
        if tensor.HasField("reshape")
    }
    return {name: array.reshape(shapes[name]) if name in shapes else array for name, array in arrays.items()}


def _check_input_shapes(artifact: Artifact, config: ModelConfig) -> None:
    """An axis that is fixed in the model file must not be free in the config: Triton would not load it."""
    for tensor in config.input:
        dims = list(tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims)
        declared = [-1, *dims] if config.max_batch_size else dims
        shape = artifact.input_shapes.get(tensor.name, [])
        if len(shape) == len(declared) and any(
            have != -1 and want == -1 for want, have in zip(declared, shape, strict=True)
        ):
            raise GateError(
                f"the input {tensor.name!r} has shape {list(shape)} in the model file and {declared} in the config"
                + (
                    " (its first axis is the batch, because max_batch_size is above 0)" if config.max_batch_size else ""
                ),
                model=config.name,
            )


def _as_configured(run: Run, config: ModelConfig) -> Run:
    """A model file as the clients of its config see it: in their shapes, and with the dtypes that it declares."""

    def configured(inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        got = run(_reshaped(inputs, config.input, config), outputs)
        for spec in output_specs(config):
            wanted = numpy_dtype(spec.dtype)
            if got[spec.name].dtype != wanted and spec.dtype != "BYTES":
                raise GateError(
                    f"the output {spec.name!r} is {got[spec.name].dtype} in the model file and {spec.dtype} ({wanted}) "
                    "in the config",
                    model=config.name,
                )
        return _unreshaped(got, config)

    return configured


def _unreshaped(arrays: Mapping[str, Array], config: ModelConfig) -> dict[str, Array]:
    """Outputs in the shapes of the config, where its `reshape` says that the model file has others."""
    result = dict(arrays)
    for tensor in config.output:
        array = result.get(tensor.name)
        if array is None or not tensor.HasField("reshape"):
            continue
        batch = list(array.shape[:1]) if config.max_batch_size else []
        declared = [*batch, *tensor.reshape.shape]
        # A shape that is not the declared one stays as it is, for the comparison to show.
        fits = len(declared) == array.ndim and all(w in (-1, h) for w, h in zip(declared, array.shape, strict=True))
        if fits and -1 not in tensor.dims:
            result[tensor.name] = array.reshape([*batch, *tensor.dims])
    return result


def _measure_at(
    run: Run, cases: GoldenCases, size: int, tolerance: Tolerance
) -> tuple[list[Difference], dict[str, Array]]:
    """Over all cases, in batches of a size; 0 for each alone without a batch axis. And what was got, by output."""
    names = list(cases.outputs)
    parts: dict[str, list[Array]] = {name: [] for name in names}
    odd: dict[str, Difference] = {}
    for start in range(0, len(cases), size or 1):
        # Every batch is full, so that each size is really run: the last one goes on with the first cases.
        # A case alone stays an array, also where it has no axis left.
        places: Any = np.arange(start, start + size) % len(cases) if size else (start, ...)
        got = run({name: array[places] for name, array in cases.inputs.items()}, names)
        for name in names:
            expected = cases.outputs[name][places]
            if name not in got or got[name].shape != expected.shape:
                odd.setdefault(name, compare({name: expected}, got)[0])
            else:
                parts[name].append(got[name][: len(cases) - start] if size else got[name][np.newaxis])
    whole = {name: np.concatenate(arrays) for name, arrays in parts.items() if name not in odd}
    found = [odd[name] if name in odd else compare({name: cases.outputs[name]}, whole, tolerance)[0] for name in names]
    return found, whole


def _first_alike(cases: GoldenCases, got: Mapping[str, Array], tolerance: Tolerance) -> GoldenCases:
    """The first cases that are right: those that may be wrong have been counted, and would weigh more among few."""
    expected = {name: cases.outputs[name] for name in got}
    right = np.flatnonzero(rows_alike(expected, got, tolerance)) if got else np.empty(0, np.int64)
    places = (right if right.size else np.arange(len(cases)))[:_FEW]
    return GoldenCases(
        {name: array[places] for name, array in cases.inputs.items()},
        {name: array[places] for name, array in cases.outputs.items()},
    )
