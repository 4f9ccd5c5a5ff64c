"""What a server says of itself and of its models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ._tensors import TensorSpec


@dataclass(frozen=True)
class ModelStatus:
    """One version of a model, as the server's repository index has it.

    Attributes:
        state: ``READY``, ``LOADING``, ``UNLOADING`` or ``UNAVAILABLE``; empty for a model that was never loaded.
        reason: why it is in that state, if the server says so.
    """

    name: str
    version: str
    state: str
    reason: str

    @classmethod
    def from_json(cls, item: Mapping[str, Any]) -> ModelStatus:
        """One entry of the index."""
        # MLServer's gRPC writes the name of a Python enum before the state.
        state = item.get("state", "").removeprefix("State.")
        return cls(item["name"], item.get("version", ""), state, item.get("reason", ""))


@dataclass(frozen=True)
class ModelMetadata:
    """What the server says of a model.

    Attributes:
        versions: the versions that are being served.
        platform: Triton's platform or backend name.
        inputs: the inputs, in the order in which positional arguments are taken.
        outputs: the outputs, in the model's order.
        max_batch_size: most rows in one request; 0 if the model has no batch axis; None if there is no limit, as with
            V2 servers that know no such number.
    """

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int | None

    @classmethod
    def from_json(cls, metadata: Mapping[str, Any], config: Mapping[str, Any] | None) -> ModelMetadata:
        """Join the answers of the metadata and the config endpoints (gRPC gives numbers as strings there).

        Where the server has no configs, a first axis of any length in every tensor is the batch.
        """

        def specs(key: str) -> tuple[TensorSpec, ...]:
            return tuple(
                TensorSpec(t["name"], t["datatype"], tuple(int(n) for n in t.get("shape", ())))
                for t in metadata.get(key) or ()
            )

        inputs, outputs = specs("inputs"), specs("outputs")
        if config is None:
            batched = bool(inputs) and all(spec.shape[:1] == (-1,) for spec in (*inputs, *outputs))
            max_batch_size = None if batched else 0
        else:
            max_batch_size = int(config.get("max_batch_size", 0))
        return cls(
            name=metadata["name"],
            versions=tuple(metadata.get("versions") or ()),
            platform=metadata.get("platform", ""),
            inputs=inputs,
            outputs=outputs,
            max_batch_size=max_batch_size,
        )

    @property
    def batched(self) -> bool:
        """Whether the first axis of every input and output is the batch."""
        return self.max_batch_size != 0


@dataclass(frozen=True)
class Classification:
    """One of the classes that a model finds likeliest.

    Attributes:
        label: its line in the model's label file; None if there is no such file.
        index: its place in the output.
        score: the output's value there.
    """

    label: str | None
    index: int
    score: float

    @classmethod
    def parse(cls, text: bytes) -> Classification:
        """Read Triton's form, ``score:index`` or ``score:index:label``.

        Raises:
            ValueError: it is not that.
        """
        score, index, *label = text.decode().split(":", 2)
        return cls(label[0] if label else None, int(index), float(score))


def numbers(item: Any) -> Any:
    """The counters as numbers: JSON of protobufs has 64-bit ones as text."""
    if isinstance(item, dict):
        return {key: value if key in ("name", "version") else numbers(value) for key, value in item.items()}
    if isinstance(item, list):
        return [numbers(value) for value in item]
    return int(item) if isinstance(item, str) and item.isdecimal() else item
