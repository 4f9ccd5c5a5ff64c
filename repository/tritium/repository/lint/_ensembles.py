"""Rules about ensembles: what their steps name must be there, and fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tritonclient.grpc.model_config_pb2 import DataType

from .._operations import VersionPolicy
from ._rules import Problem, Severity, rule, shown
from ._subjects import ModelFolder

ERROR = Severity.ERROR


@rule(ModelFolder, "ensemble-settings", ERROR)
def _ensemble_settings(model: ModelFolder) -> Iterator[Problem]:
    """An ensemble has instances, batching or optimisation of its own; its steps have them."""
    if model.config.platform != "ensemble":
        return
    for field in ("instance_group", "optimization", "dynamic_batching", "sequence_batching"):
        value = getattr(model.config, field)
        if model.config.HasField(field) if hasattr(value, "ListFields") else len(value):
            yield Problem(model.config_path, f"an ensemble cannot have {field}", "write it in the steps' own configs")


@rule(ModelFolder, "ensemble-model", ERROR)
def _ensemble_model(model: ModelFolder) -> Iterator[Problem]:
    """A step names a model or a version that is not in the repository, or the ensembles go round in a circle."""
    known = model.repository.models
    for step in model.config.ensemble_scheduling.step:
        named = known.get(step.model_name)
        if named is None and not step.model_namespace:
            message = f"a step runs {shown(step.model_name)}, which is not in the repository"
            yield Problem(model.config_path, message, f"name one of {', '.join(sorted(known))}")
        elif named is not None and named.has_config and step.model_version not in (-1, *_served(named)):
            message = f"a step runs version {step.model_version} of {step.model_name!r}, which is not served"
            yield Problem(model.config_path, message, f"write -1 for the latest, or one of {_served(named)}")
    if model.name in _reached(model):
        message = "it is a step of itself, or of one of its steps"
        yield Problem(model.config_path, message, "take it out of the circle")


@rule(ModelFolder, "ensemble-tensor", ERROR)
def _ensemble_tensor(model: ModelFolder) -> Iterator[Problem]:
    """A step maps a tensor that its model has not, leaves one out, or nothing makes what it takes."""
    config = model.config
    steps = config.ensemble_scheduling.step
    inputs, outputs = ({tensor.name for tensor in tensors} for tensors in (config.input, config.output))
    made = [name for step in steps for name in step.output_map.values()]
    taken = {name for step in steps for name in step.input_map.values()}
    fix = "map each input of a step to an input of the ensemble or to an output of another step"
    for name in sorted({name for name in made if made.count(name) > 1} | (set(made) & inputs)):
        yield Problem(model.config_path, f"the tensor {shown(name)} is made twice", fix)
    for name in sorted(taken - set(made) - inputs):
        yield Problem(model.config_path, f"a step takes {shown(name)}, which nothing makes", fix)
    if steps:
        for name in sorted(inputs - taken):
            yield Problem(model.config_path, f"the input {shown(name)} is used by no step", "leave it out, or use it")
        for name in sorted(outputs - set(made)):
            yield Problem(
                model.config_path, f"the output {shown(name)} is made by no step", "map a step's output to it"
            )
        if _circular(config):
            yield Problem(model.config_path, "its steps wait for each other", "let data flow one way")
    for step, named in _steps(model):
        for kind, mapped, declared in (
            ("input", step.input_map, named.config.input),
            ("output", step.output_map, named.config.output),
        ):
            names = {tensor.name for tensor in declared}
            required = {tensor.name for tensor in declared if kind == "input" and not tensor.optional}
            for name in sorted(set(mapped) - names):
                message = f"a step maps the {kind} {shown(name)}, which {step.model_name!r} has not"
                yield Problem(model.config_path, message, f"it has {', '.join(sorted(names))}")
            for name in sorted(required - set(mapped)):
                message = f"a step does not map the input {shown(name)} of {step.model_name!r}"
                yield Problem(model.config_path, message, fix)


@rule(ModelFolder, "ensemble-shape", ERROR)
def _ensemble_shape(model: ModelFolder) -> Iterator[Problem]:
    """A tensor is of another type or shape in a step than where it comes from, or a batch too big for a step."""
    config = model.config
    known: dict[str, tuple[str, int, list[int]]] = {
        tensor.name: ("the ensemble", tensor.data_type, _whole(tensor, model))
        for tensor in [*config.input, *config.output]
    }
    for step, named in _steps(model):
        if model.batched and config.max_batch_size > named.config.max_batch_size:
            message = f"max_batch_size is {config.max_batch_size}, and {step.model_name!r} takes "
            message += f"{named.config.max_batch_size}"
            yield Problem(model.config_path, message, "no step may take less than the ensemble")
        for mapped, declared in ((step.input_map, named.config.input), (step.output_map, named.config.output)):
            tensors = {tensor.name: tensor for tensor in declared}
            for name, through in mapped.items():
                if name not in tensors:
                    continue
                here = (step.model_name, tensors[name].data_type, _whole(tensors[name], named))
                there = known.setdefault(through, here)
                if there[1] != here[1] or not _agree(there[2], here[2]):
                    message = f"{shown(through)} is {_described(there)} and {_described(here)}"
                    yield Problem(model.config_path, message, "declare it alike")


def _steps(model: ModelFolder) -> Iterator[tuple[Any, ModelFolder]]:
    """The steps whose model is there and has a config."""
    for step in model.config.ensemble_scheduling.step:
        named = model.repository.models.get(step.model_name)
        if named is not None and named.has_config and named.config.input and not step.model_namespace:
            yield step, named


def _served(model: ModelFolder) -> list[int]:
    return VersionPolicy.of(model.config).served([version.number for version in model.versions])


def _reached(model: ModelFolder) -> set[str]:
    """Every model that an ensemble runs, directly or through another."""
    reached: set[str] = set()
    waiting = [model]
    while waiting:
        for step in waiting.pop().config.ensemble_scheduling.step:
            named = model.repository.models.get(step.model_name)
            if named is not None and named.name not in reached:
                reached.add(named.name)
                waiting.append(named)
    return reached


def _circular(config: Any) -> bool:
    """Whether some steps can never begin, because each takes what another is yet to make."""
    ready = {tensor.name for tensor in config.input}
    waiting = list(config.ensemble_scheduling.step)
    made = {name for step in waiting for name in step.output_map.values()}
    while able := [step for step in waiting if not (set(step.input_map.values()) & made) - ready]:
        waiting = [step for step in waiting if step not in able]
        ready |= {name for step in able for name in step.output_map.values()}
    return bool(waiting)


def _whole(tensor: Any, model: ModelFolder) -> list[int]:
    return [*([-1] if model.batched else []), *tensor.dims]


def _agree(one: Sequence[int], other: Sequence[int]) -> bool:
    return len(one) == len(other) and all(-1 in pair or pair[0] == pair[1] for pair in zip(one, other, strict=True))


def _described(tensor: tuple[str, int, list[int]]) -> str:
    where, dtype, dims = tensor
    name = DataType.Name(dtype) if dtype in DataType.values() else dtype
    return f"{name} {dims} in {where}"
