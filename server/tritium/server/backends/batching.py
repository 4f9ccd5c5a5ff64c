"""What both Python-based backends share: from Triton's requests to one run of the model and back.

This file and the `model.py` of a backend are copied side by side into a backend folder and run inside Triton's stub
process. They import nothing else of Tritium.

A batch travels so: every request is read without a copy, requests of the same row shapes are gathered once, the model
runs once, the outputs that somebody asked for are fetched, and every request gets its slice. If the run fails, each
request of that batch runs alone, so that only the one at fault gets an error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import triton_python_backend_utils as pb

# Set where the log is verbose: to ask Triton would cost a message for each request.
VERBOSE = os.environ.get("TRITIUM_LOG_VERBOSE") == "1"
# More would be a slip: each model has its own.
MOST_THREADS = 1024


# What Triton's own Python backend reads of the `parameters` of every model that runs in it.
TRITONS_PARAMETERS = ("EXECUTION_ENV_PATH", "FORCE_CPU_ONLY_INPUT_TENSORS", "TRITON_BATCH_STRATEGY_PATH")


class InvalidRequest(ValueError):  # noqa: N818 — clients see the name
    """What a request holds is not what its input can be."""


class Engine(Protocol):
    """A loaded model."""

    def read(self, tensor: Any) -> Any:
        """An input of a request as an array of the framework, without a copy where it can be."""

    def gather(self, arrays: Sequence[Any]) -> Any:
        """Several arrays joined along the batch axis."""

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str]) -> Mapping[str, Any]:
        """Run the model for the named outputs."""

    def write(self, name: str, array: Any) -> Any:
        """An output as a tensor of Triton."""


@dataclass(frozen=True)
class ModelArgs:
    """What Triton tells a model instance at its start, read once.

    Attributes:
        config: the model's configuration, in Triton's JSON form.
        instance: the instance's name.
        folder: the version's folder.
        device_id: the GPU to use, or None for the CPU.
    """

    config: Mapping[str, Any]
    instance: str
    folder: str
    device_id: int | None

    @classmethod
    def read(cls, args: Mapping[str, str]) -> ModelArgs:
        """Read the arguments of `initialize`, and refuse a numpy that this stub cannot work with."""
        if int(np.__version__.split(".")[0]) >= 2:
            raise pb.TritonModelException(
                f"numpy {np.__version__} ({np.__file__}) was imported in the backend process. With numpy 2 this stub "
                "answers with empty outputs. Run `tritium doctor`; `tritium runtime remove` and a new start mend it."
            )
        return cls(
            config=json.loads(args["model_config"]),
            instance=args["model_instance_name"],
            folder=f"{args['model_repository']}/{args['model_version']}",
            device_id=int(args["model_instance_device_id"]) if args["model_instance_kind"] == "GPU" else None,
        )

    @property
    def batched(self) -> bool:
        """Whether the first axis of every tensor is the batch."""
        return int(self.config["max_batch_size"]) > 0

    def parameter(self, key: str, default: str = "") -> str:
        """A value of the config's `parameters`."""
        return str(self.config.get("parameters", {}).get(key, {}).get("string_value", default))

    def warn_of_others(self, known: Collection[str]) -> None:
        """Log what of the config has no effect, beside `parameters` that have one; refuse what answers would lack."""
        for key in ("batch_input", "batch_output"):
            if self.config.get(key):
                raise pb.TritonModelException(f"the config has a {key}, which this backend does not have")
        others = [f"parameter {key!r}" for key in self.config.get("parameters", {}) if key not in known]
        others += ["cc_model_filenames"] if self.config.get("cc_model_filenames") else []
        for other in others:
            pb.Logger.log_warn(f"{self.config['name']}: {other} has no effect in the Python-based backend")

    def threads(self, key: str) -> int:
        """A number of threads among the config's `parameters`; 0, the default, lets the framework choose."""
        text = self.parameter(key, "0")
        if not (text.isascii() and text.isdigit() and int(text) <= MOST_THREADS):
            raise pb.TritonModelException(
                f"parameter {key!r} must be a whole number from 0 to {MOST_THREADS}, got {text!r} instead"
            )
        return int(text)

    def flag(self, key: str, default: bool) -> bool:
        """A true or false of the config's `parameters`."""
        text = self.parameter(key, str(default)).lower()
        if text not in ("true", "1", "false", "0"):
            raise pb.TritonModelException(f"parameter {key!r} must be true, false, 1 or 0, got {text!r} instead")
        return text in ("true", "1")


@dataclass
class _Job:
    """One request, read."""

    request: Any
    inputs: dict[str, Any]
    outputs: Sequence[str]

    @property
    def rows(self) -> int:
        return int(next(iter(self.inputs.values())).shape[0])


class Batcher:
    """Runs an engine over the requests that Triton hands over at once."""

    def __init__(self, engine: Engine, args: ModelArgs) -> None:
        self._engine = engine
        self._batched = args.batched
        self._instance = args.instance
        self._names = [output["name"] for output in args.config["output"]]
        self._reshapes = {
            output["name"]: [int(dim) for dim in output["reshape"].get("shape", [])]
            for output in args.config["output"]
            if "reshape" in output
        }

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response for each request, in their order."""
        responses: list[Any] = [None] * len(requests)
        batches: dict[Any, list[tuple[int, _Job]]] = {}
        for index, request in enumerate(requests):
            try:
                inputs = {tensor.name(): self._engine.read(tensor) for tensor in request.inputs()}
            except Exception as exc:
                responses[index] = self._failure(request, exc)
                continue
            key = tuple((name, array.shape[1:]) for name, array in inputs.items()) if self._batched else index
            batches.setdefault(key, []).append((index, _Job(request, inputs, request.requested_output_names())))
        for batch in batches.values():
            answers = self._answer([job for _, job in batch])
            for (index, _), answer in zip(batch, answers, strict=True):
                responses[index] = answer
        return responses

    def _answer(self, jobs: Sequence[_Job]) -> list[Any]:
        try:
            return self._run(jobs)
        except Exception as exc:
            if len(jobs) == 1:
                return [self._failure(jobs[0].request, exc)]
            return [answer for job in jobs for answer in self._answer([job])]

    def _run(self, jobs: Sequence[_Job]) -> list[Any]:
        asked = {name for job in jobs for name in job.outputs}
        outputs = [name for name in self._names if name in asked]
        if len(jobs) == 1:
            inputs = jobs[0].inputs
        else:
            inputs = {name: self._engine.gather([job.inputs[name] for job in jobs]) for name in jobs[0].inputs}
        results = self._engine.run(inputs, outputs)
        for name in self._reshapes.keys() & results.keys():
            self._check_reshape(name, tuple(results[name].shape))
        if self._batched:
            total = sum(job.rows for job in jobs)
            for name, array in results.items():
                if not array.shape or array.shape[0] != total:
                    raise pb.TritonModelException(
                        f"output {name!r} has shape {tuple(array.shape)} for a batch of {total}: "
                        "the model does not keep the batch axis, so max_batch_size must be 0"
                    )
        if len(jobs) == 1:
            return [self._response(jobs[0], results)]
        answers, start = [], 0
        for job in jobs:
            stop = start + job.rows
            answers.append(self._response(job, {name: array[start:stop] for name, array in results.items()}))
            start = stop
        return answers

    def _check_reshape(self, name: str, shape: tuple[int, ...]) -> None:
        """Triton takes the axes of a reshape from the config, and would read beyond a shape that has fewer."""
        wanted = [-1, *self._reshapes[name]] if self._batched else self._reshapes[name]
        if len(wanted) != len(shape) or any(want not in (-1, have) for want, have in zip(wanted, shape, strict=True)):
            raise pb.TritonModelException(
                f"output {name!r} has shape {list(shape)}, and the config reshapes it from {wanted}"
            )

    def _response(self, job: _Job, results: Mapping[str, Any]) -> Any:
        response = pb.InferenceResponse(
            [self._engine.write(name, results[name]) for name in self._names if name in job.outputs]
        )
        if VERBOSE:
            pb.Logger.log_verbose(f"{_id(job.request)} {self._instance} answered")
        return response

    def _failure(self, request: Any, exc: Exception) -> Any:
        """An error as the answer. The log says so by the request's id, but a client's mistakes must not fill it."""
        at_fault = isinstance(exc, UnicodeDecodeError | InvalidRequest)
        message = f"{type(exc).__name__}: {exc}"
        if VERBOSE or not at_fault:
            log = pb.Logger.log_verbose if at_fault else pb.Logger.log_warn
            log(f"{_id(request)} {self._instance} failed: {message}")
        return pb.InferenceResponse(
            [], pb.TritonError(message, pb.TritonError.INVALID_ARG if at_fault else pb.TritonError.INTERNAL)
        )


def decode(array: Any) -> Any:
    """An object array of bytes as one of `str`, as the frameworks want it."""
    result = np.empty(array.size, dtype=object)
    result[:] = [item.decode() for item in array.ravel()]
    return result.reshape(array.shape)


def _id(request: Any) -> str:
    """As Triton's own lines begin."""
    return f"[request id: {request.request_id() or '<id_unknown>'}]"
