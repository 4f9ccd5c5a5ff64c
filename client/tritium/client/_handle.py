"""What `Model` and `AsyncModel` share: everything but the asking and the waiting."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ._base import BaseClient
from ._contract import Arguments, Contract
from ._errors import InputError, ModelNotFoundError, RequestRejectedError, TritiumError
from ._request import NO_PARAMETERS, InferRequest, Parameter
from ._tensors import Array
from ._trace import checked_request_id, new_request_id

# How a model that is not as it was shows itself: it refuses what it took, or what it would take is refused here.
CHANGED = (InputError, RequestRejectedError, ModelNotFoundError)
_LARGEST_ID = 2**63 - 1
_SURROGATES = re.compile("[\ud800-\udfff]")


class BaseModel:
    """A model's name and version on a client.

    Attributes:
        name: the model's name.
        version: the version that is asked for; empty if the server chooses.
    """

    def __init__(self, client: BaseClient[Any], name: str, version: str = "") -> None:
        self._client: BaseClient[Any] = client
        self.name = name
        self.version = version
        self._key = name, version

    def __repr__(self) -> str:
        """As in ``Model('digits_cnn', version='3', url='http://127.0.0.1:8000')``."""
        version = f", version={self.version!r}" if self.version else ""
        return f"{type(self).__name__}({self.name!r}{version}, url={self._client.url!r})"

    @property
    def _known(self) -> Contract | None:
        return self._client._contracts.get(self._key)

    def _about(self, exc: TritiumError) -> TritiumError:
        """An error with whom it is about, where that is not known yet."""
        exc.model, exc.url = exc.model or self.name, exc.url or self._client.url
        return exc

    def _request_id(self, request_id: str) -> str:
        """A caller's id, or one that is made up."""
        try:
            return checked_request_id(request_id) if request_id else new_request_id()
        except InputError as exc:
            self._about(exc)
            raise

    def _arguments(
        self,
        inputs: tuple[Any, ...],
        named: Mapping[str, Any],
        *,
        outputs: str | Iterable[str] = (),
        request_id: str = "",
        parameters: Mapping[str, Parameter] | None = None,
        out: Array | Mapping[str, Array] | None = None,
        top_k: int = 0,
    ) -> Arguments:
        client = self._client
        request_id = self._request_id(request_id)
        try:
            return Arguments(
                inputs,
                named,
                checked_outputs(outputs) if outputs else (),
                request_id,
                dict(checked_parameters(parameters)) if parameters else NO_PARAMETERS,
                top_k,
                out,
                client._locate if client._regions else None,
            )
        except InputError as exc:
            self._about(exc)
            raise


class Prepared:
    """What `PreparedCall` and `AsyncPreparedCall` share: a request that is made once, and anew for a changed model."""

    def __init__(self, arguments: Arguments, contract: Contract) -> None:
        self._arguments = arguments
        self._made = contract, self.made_for(contract)

    def made_for(self, contract: Contract) -> InferRequest:
        """Make the request for what is known of a model.

        Raises:
            InputError: it does not fit what is known of the model.
        """
        if contract.decoupled:
            raise refuse_decoupled(contract)
        return contract.prepare(self._arguments)

    def again(self, contract: Contract, request_id: str) -> InferRequest:
        """The request under another id.

        Raises:
            InputError: the model is another one by now, and does not take it.
        """
        made_for, request = self._made
        if made_for is not contract:
            request = self.made_for(contract)
            self._made = contract, request
        return request.again(request_id)


def checked_outputs(outputs: str | Iterable[str]) -> tuple[str, ...]:
    """The names of the outputs that a caller wants.

    Raises:
        InputError: they are no names.
    """
    names = (outputs,) if isinstance(outputs, str) else outputs
    if isinstance(names, Iterable):
        names = tuple(names)
        if all(isinstance(name, str) for name in names):
            return names
    raise InputError(f"The 'outputs' parameter must be the name of an output, or several, got {outputs!r} instead")


def checked_parameters(parameters: Mapping[str, Parameter] | None) -> Mapping[str, Parameter]:
    """A caller's parameters of a request.

    Raises:
        InputError: they have values that the protocol does not know.
    """
    for name, value in (parameters or {}).items():
        if not isinstance(name, str) or not _can_be_sent(name) or not _can_be_sent(value):
            raise InputError(
                f"The parameter {name!r} must be a bool, a number that is finite and fits 64 bits, or text, "
                f"got {value!r} instead"
            )
    return parameters or {}


def _can_be_sent(value: object) -> bool:
    if isinstance(value, int):
        return -(2**63) <= value < 2**64
    if isinstance(value, float):
        return math.isfinite(value)
    # Half a pair of surrogates is no character, and has no UTF-8.
    return isinstance(value, str) and not _SURROGATES.search(value)


def checked_top_k(top_k: int) -> int:
    """How many classes are wanted.

    Raises:
        InputError: no number of them.
    """
    if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
        raise InputError(f"The 'top_k' parameter of classify must be 1 or more, got {top_k!r} instead")
    return top_k


class SequenceState:
    """Where a sequence stands: what goes with its next request.

    Attributes:
        correlation_id: what its requests have in common.
        begun: whether its first request was made.
        ended: whether its last one was.
    """

    def __init__(self, correlation_id: int | str | None) -> None:
        if correlation_id is None:
            # Models may be told it as a number of 32 bits.
            correlation_id = random.randint(1, 2**31 - 1)  # noqa: S311 — to be different, not to be secret
        if isinstance(correlation_id, bool) or not (
            (isinstance(correlation_id, int) and 0 < correlation_id <= _LARGEST_ID)
            or (isinstance(correlation_id, str) and 0 < len(correlation_id) <= 128)
        ):
            raise InputError(
                "The 'correlation_id' parameter of sequence must be a whole number from 1 to 2**63 - 1, or text of 1 "
                f"to 128 characters, got {correlation_id!r} instead"
            )
        self.correlation_id = correlation_id
        self.begun = False
        self.ended = False
        self.last: tuple[tuple[Any, ...], Mapping[str, Any]] = ((), {})

    def parameters(self, *, last: bool, more: Mapping[str, Parameter] | None) -> dict[str, Parameter]:
        """Those of the next request.

        Raises:
            InputError: the last one was made already.
        """
        if self.ended:
            raise InputError(f"The sequence {self.correlation_id!r} has ended; begin another one")
        return {
            **checked_parameters(more),
            "sequence_id": self.correlation_id,
            "sequence_start": not self.begun,
            "sequence_end": last,
        }

    def prepare(self, contract: Contract, arguments: Arguments) -> InferRequest:
        """Make a request of the next call. It is never sent twice.

        Raises:
            InputError: it does not fit what is known of the model.
        """
        contract.check_correlation(self.correlation_id)
        if contract.decoupled:
            raise refuse_decoupled(contract)
        request = contract.prepare(arguments)
        request.repeatable = False
        return request

    def stepped(self, inputs: tuple[Any, ...], named: Mapping[str, Any], *, last: bool) -> None:
        """A request was answered."""
        self.begun, self.ended, self.last = True, last, (inputs, named)


def refuse_decoupled(contract: Contract) -> InputError:
    """The error for a model that may answer any number of times, and is called as if it answered once."""
    return InputError(f"{contract.metadata.name!r} answers any number of times: use stream(), over gRPC")


def refuse_stream(urls: Sequence[str]) -> InputError:
    """The error for a stream over HTTP."""
    return InputError(f"Streams need gRPC: make a client of grpc:// or grpcs:// instead of {urls[0]}")
