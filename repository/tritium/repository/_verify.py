"""Verification by golden cases: of a version's folder before it is published, and of a server that runs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tritium.client import Client, Model, Outputs, TritiumError, numpy_dtype

from ._artifact import Array, Artifact, Run, open_artifact
from ._compare import Difference, Tolerance, compare
from ._config import artifact_name, input_specs, output_specs
from ._errors import GateError, GoldenError
from ._golden import GoldenCases
from ._manifest import GOLDEN_NAME, MANIFEST_NAME, Manifest
from ._repository import Repository


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
    """The gate: a version's folder does what its manifest, its golden cases and its config say.

    The artifact runs once over all cases and once over the first alone, so that a batch axis that was frozen at
    export cannot pass.

    Raises:
        ManifestError: a file is not the one that the manifest names.
        GoldenError: the golden cases are not finite, or do not fit the config.
        ArtifactError: the model file does not load or run.
        GateError: an output is not the golden one, or not as the config declares it.
    """
    manifest = Manifest.load(folder)
    manifest.check_files(folder)
    batched = config.max_batch_size > 0
    golden = load_golden(folder, config)
    golden.check(input_specs(config), output_specs(config), batched=batched)
    run = open_artifact(folder / artifact_name(config), config.backend)
    _check_input_shapes(run, config)
    first = next(golden.batches(1))
    _differences(run, first, config, manifest.tolerance)
    if batched and len(golden) == 1:
        twice = GoldenCases(
            {name: np.repeat(array, 2, axis=0) for name, array in golden.inputs.items()},
            {name: np.repeat(array, 2, axis=0) for name, array in golden.outputs.items()},
        )
        _differences(run, twice, config, manifest.tolerance)
    return _differences(run, golden, config, manifest.tolerance)


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
        models: the models to verify; by default all of the repository that have a manifest. A model that somebody put
            there by hand has no golden cases.

    Yields:
        A verdict for each version that is being served, and one for a model that is not served at all.
    """
    for name in models or [name for name in repository.models() if has_manifest(repository, name)]:
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
    worst: dict[str, Difference] = {}
    for batch in golden_batches(golden, config):
        answer = named_outputs(model(dict(batch.inputs)), list(batch.outputs))
        for difference in compare(batch.outputs, answer, tolerance):
            known = worst.get(difference.output)
            if known is None or (known.ok and (not difference.ok or _further(difference, known))):
                worst[difference.output] = difference
    return Verdict(model.name, model.version, len(golden), list(worst.values()))


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


def _further(one: Difference, other: Difference) -> bool:
    return one.value > other.value if one.measure == "max |Δ|" else one.value < other.value


def _differences(run: Run, golden: GoldenCases, config: ModelConfig, tolerance: Tolerance) -> list[Difference]:
    names = [spec.name for spec in output_specs(config)]
    differences: list[Difference] = []
    for batch in [golden] if config.max_batch_size > 0 else golden_batches(golden, config):
        got = run(_reshaped(batch.inputs, config.input, config), names)
        expected = _reshaped(batch.outputs, config.output, config)
        for spec in output_specs(config):
            wanted = numpy_dtype(spec.dtype)
            if got[spec.name].dtype != wanted and spec.dtype != "BYTES":
                raise GateError(
                    f"the output {spec.name!r} is {got[spec.name].dtype} in the model file and {spec.dtype} ({wanted}) "
                    "in the config",
                    model=config.name,
                )
        differences = compare(expected, got, tolerance)
        wrong = [difference for difference in differences if not difference.ok]
        if wrong:
            raise GateError(
                f"its outputs on {len(golden)} golden cases are not the framework's: "
                + "; ".join(map(str, wrong))
                + ". The export is wrong, or the tolerance in the manifest is tighter than float32 allows",
                model=config.name,
            )
    return differences
