"""A model on a server, as a callable."""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._errors import InputError
from ._tensors import Outputs, TensorSpec, check_shape, coerce, decode_strings, fit_batch
from ._transport import InferRequest

if TYPE_CHECKING:
    from ._client import Client


@dataclass(frozen=True)
class ModelMetadata:
    """What the server says of a model.

    Attributes:
        versions: the versions that are being served.
        platform: Triton's platform or backend name.
        inputs: the inputs, in the order in which positional arguments are taken.
        outputs: the outputs, in the model's order.
        max_batch_size: most rows in one request; 0 if the model has no batch axis.
    """

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int

    @classmethod
    def from_json(cls, metadata: Mapping[str, Any], config: Mapping[str, Any]) -> ModelMetadata:
        """Join the answers of the metadata and the config endpoints (gRPC gives numbers as strings there)."""

        def specs(key: str) -> tuple[TensorSpec, ...]:
            return tuple(
                TensorSpec(t["name"], t["datatype"], tuple(int(n) for n in t.get("shape", ())))
                for t in metadata.get(key, ())
            )

        return cls(
            name=metadata["name"],
            versions=tuple(metadata.get("versions", ())),
            platform=metadata.get("platform", ""),
            inputs=specs("inputs"),
            outputs=specs("outputs"),
            max_batch_size=int(config.get("max_batch_size", 0)),
        )


class Model:
    """A handle on one model: ``client.model("digits_cnn")``.

    Names, dtypes and shapes come from the server, are asked for at the first use and kept.
    """

    def __init__(self, client: Client, name: str, version: str = "") -> None:
        self._client = client
        self.name = name
        self.version = version
        self._known: tuple[ModelMetadata, dict[str, Any]] | None = None

    def __repr__(self) -> str:
        """As in ``Model('digits_cnn', version='3', url='http://127.0.0.1:8000')``."""
        version = f", version={self.version!r}" if self.version else ""
        return f"Model({self.name!r}{version}, url={self._client.url!r})"

    @property
    def metadata(self) -> ModelMetadata:
        """Inputs, outputs and versions, as the server declares them.

        Raises:
            ModelNotFoundError: there is no such model; the message names the closest one.
        """
        return self._declared(self._client._timeout_s)[0]

    @property
    def config(self) -> dict[str, Any]:
        """The model's configuration in use, in Triton's JSON form."""
        return self._declared(self._client._timeout_s)[1]

    def _declared(self, timeout_s: float) -> tuple[ModelMetadata, dict[str, Any]]:
        """Metadata and config, which are asked for once."""
        if self._known is None:
            ends_s = time.monotonic() + timeout_s
            config = dict(self._client._ask("get_model_config", self.name, self.version, timeout_s=timeout_s))
            left_s = self._client._left(ends_s, timeout_s)
            metadata = self._client._ask("get_model_metadata", self.name, self.version, timeout_s=left_s)
            self._known = ModelMetadata.from_json(metadata, config), config
        return self._known

    def statistics(self) -> dict[str, Any]:
        """Triton's counters of the served versions: requests, batch sizes formed, nanoseconds in queue and compute."""
        return dict(_numbers(self._client._ask("get_inference_statistics", self.name, self.version)))

    def __call__(
        self,
        *inputs: Any,
        outputs: str | Iterable[str] = (),
        timeout_s: float | None = None,
        request_id: str = "",
        **named: Any,
    ) -> Any:
        """Run the model.

        Args:
            inputs: the inputs in the model's order, or one mapping from names to inputs. Arrays, lists or scalars, of
                the declared shape; where the model has a batch axis it may be left out, and is then absent from the
                outputs too.
            outputs: the name of the output wanted, or several; all by default.
            timeout_s: seconds until the answer must be there, what is asked about the model at its first use included;
                the client's own by default.
            request_id: shown in the server's log and trace.
            named: the inputs by name.

        Returns:
            One output as an ndarray, several as :class:`Outputs`. Strings are ``str`` where they are valid UTF-8.
            The arrays are views on what was received, and read-only.

        Raises:
            InputError: an input is missing or unknown, or its dtype or shape does not fit; nothing was sent.
            TransportError: no answer arrived.
            ServerError: the server refused the request, or the model failed.
        """
        wanted = [outputs] if isinstance(outputs, str) else list(outputs)
        limit_s = self._client._limit(timeout_s)
        ends_s = time.monotonic() + limit_s
        self._declared(limit_s)
        request, added = self._request(self._by_name(inputs, named), wanted, request_id)
        arrays = self._client._infer(request, ends_s, limit_s)
        result = {name: decode_strings(array[0] if added else array) for name, array in arrays.items()}
        if len(result) == 1:
            return next(iter(result.values()))
        return Outputs({name: result[name] for name in wanted or [spec.name for spec in self.metadata.outputs]})

    def _by_name(self, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
        specs = self.metadata.inputs
        first = inputs[0] if len(inputs) == 1 else None
        if isinstance(first, Mapping):
            both = first.keys() & named.keys()
            if both:
                raise InputError(f"Input {min(both)!r} of {self.name!r} is given twice, in the mapping and by name")
            inputs, named = (), {**first, **named}
        if len(inputs) > len(specs):
            raise InputError(f"{self.name!r} has {len(specs)} inputs ({_listed(specs)}), got {len(inputs)}")
        positional = {spec.name: value for spec, value in zip(specs, inputs, strict=False)}
        twice = positional.keys() & named.keys()
        if twice:
            raise InputError(f"Input {min(twice)!r} of {self.name!r} is given twice, by position and by name")
        values = {**positional, **named}
        names = [spec.name for spec in specs]
        for name in values:
            if name not in names:
                raise InputError(f"{self.name!r} has no input {name!r}; it has {_listed(specs)}{_closest(name, names)}")
        optional = {item["name"] for item in self.config.get("input", ()) if item.get("optional")}
        missing = [name for name in names if name not in values and name not in optional]
        if missing:
            raise InputError(f"Input {missing[0]!r} of {self.name!r} is missing; the model takes {_listed(specs)}")
        return values

    def _request(self, values: Mapping[str, Any], outputs: Sequence[str], request_id: str) -> tuple[InferRequest, bool]:
        metadata = self.metadata
        batched = metadata.max_batch_size > 0
        specs = {spec.name: spec for spec in metadata.inputs if spec.name in values}
        arrays = {name: coerce(values[name], spec) for name, spec in specs.items()}
        given = {name: array.shape for name, array in arrays.items()}
        added = False
        if batched:
            arrays, added = fit_batch(arrays, list(specs.values()))
        for name, array in arrays.items():
            check_shape(array, specs[name], batched=batched, given=given[name])
            if batched and array.shape[0] > metadata.max_batch_size:
                raise InputError(
                    f"{self.name!r} takes at most {metadata.max_batch_size} rows a request, got {array.shape[0]}; "
                    "split the input"
                )
        known = [spec.name for spec in metadata.outputs]
        for name in outputs:
            if name not in known:
                raise InputError(
                    f"{self.name!r} has no output {name!r}; it has {_listed(metadata.outputs)}{_closest(name, known)}"
                )
        tensors = [(name, specs[name].dtype, array) for name, array in arrays.items()]
        return InferRequest(self.name, self.version, tensors, outputs, request_id), added


def _numbers(item: Any) -> Any:
    """The counters as numbers: JSON of protobufs has 64-bit ones as text."""
    if isinstance(item, dict):
        return {key: value if key in ("name", "version") else _numbers(value) for key, value in item.items()}
    if isinstance(item, list):
        return [_numbers(value) for value in item]
    return int(item) if isinstance(item, str) and item.isdecimal() else item


def _listed(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(map(str, specs))


def _closest(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f". Did you mean {close[0]!r}?" if close else ""
