"""A model on a server, as a callable."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from . import _queries as queries
from ._base import EXPLANATION_S, record, told
from ._bulk import Rows, checked_in_flight, pipelined, refuse_iterator
from ._contract import Contract
from ._deadline import Deadline
from ._errors import CallError, InputError, TransportError, TritiumError
from ._handle import (
    CHANGED,
    BaseModel,
    Prepared,
    SequenceState,
    checked_top_k,
    refuse_decoupled,
    refuse_stream,
)
from ._metadata import ModelMetadata
from ._request import InferRequest, Parameter
from ._tensors import Array

if TYPE_CHECKING:
    from ._client import Client

R = TypeVar("R")


class Model(BaseModel):
    """A handle on one model: ``client.model("digits_cnn")``.

    Names, dtypes and shapes come from the server, are asked for at the first use and kept, and are asked for again when
    the server shows that the model is not the same any more.
    """

    _client: Client

    @property
    def metadata(self) -> ModelMetadata:
        """Inputs, outputs and versions, as the server declares them.

        Raises:
            ModelNotFoundError: there is no such model; the message names the closest one.
        """
        return self._declared(self._client._deadline(None)).metadata

    @property
    def config(self) -> dict[str, Any]:
        """The model's configuration in use, in Triton's JSON form; empty where the server has none.

        Raises:
            ModelNotFoundError: there is no such model; the message names the closest one.
        """
        return self._declared(self._client._deadline(None)).config

    def statistics(self) -> dict[str, Any]:
        """Triton's counters of the served versions: requests, batch sizes formed, nanoseconds in queue and compute.

        Raises:
            InputError: the server is no Triton, and counts nothing.
        """
        query = queries.statistics(self.name, self.version)
        return self._client._statistics(query)

    def __call__(
        self,
        *inputs: Any,
        outputs: str | Iterable[str] = (),
        timeout_s: float | None = None,
        request_id: str = "",
        parameters: Mapping[str, Parameter] | None = None,
        out: Array | Mapping[str, Array] | None = None,
        **named: Any,
    ) -> Any:
        """Run the model.

        Args:
            inputs: the inputs in the model's order, or one mapping from names to inputs, or a DataFrame with a column
                for each. Arrays and what can be read as one, lists or scalars, of the declared shape; where the model
                has a batch axis it may be left out, and is then absent from the outputs too.
            outputs: the name of the output wanted, or several; all by default.
            timeout_s: seconds until the answer must be there, what is asked about the model at its first use included;
                the client's own by default.
            request_id: shown in the server's log and trace; one is made up by default.
            parameters: of the request, such as ``{"priority": 1}``.
            out: an array in shared memory for the only output, or such arrays by name; they are what is returned.
            named: the inputs by name.

        Returns:
            One output as an ndarray, several as :class:`Outputs`. Strings are ``str`` where they are valid UTF-8.
            Other arrays are views on what was received.

        Raises:
            InputError: an input is missing or unknown, or its dtype or shape does not fit; no inference was sent.
            TransportError: no answer arrived.
            ServerError: the server refused the request, or the model failed.
        """
        arguments = self._arguments(
            inputs, named, outputs=outputs, request_id=request_id, parameters=parameters, out=out
        )
        return self._run(lambda contract: contract.prepare(arguments), self._client._deadline(timeout_s))

    def prepare(
        self,
        *inputs: Any,
        outputs: str | Iterable[str] = (),
        timeout_s: float | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        **named: Any,
    ) -> PreparedCall:
        """Encode the inputs of a call once, to make it many times.

        >>> call = model.prepare(x)
        >>> first, second = call(), call()

        Args:
            inputs: as for a call. They are kept: nothing in them may be changed as long as the result is in use.
                Servers that take no binary tensors get JSON, which is made anew every time.
            outputs: as for a call.
            timeout_s: seconds that asking the server about the model may take; the client's own by default.
            parameters: as for a call.
            named: the inputs by name.

        Raises:
            InputError: as for a call.
        """
        arguments = self._arguments(inputs, named, outputs=outputs, parameters=parameters)
        deadline = self._client._deadline(timeout_s)
        return PreparedCall(self, self._fitting(lambda contract: Prepared(arguments, contract), deadline))

    def classify(
        self, *inputs: Any, top_k: int = 3, output: str | None = None, timeout_s: float | None = None, **named: Any
    ) -> Any:
        """The likeliest classes, with the names from the model's label file.

        Args:
            inputs: as for a call.
            top_k: how many, the likeliest first.
            output: whose values to rank; the only output by default, or the only one with labels.
            timeout_s: as for a call.
            named: the inputs by name.

        Returns:
            A list of `top_k` :class:`Classification`; a list of such lists where the inputs have a batch axis.

        Raises:
            InputError: as for a call; or it is not clear which output is meant.
        """
        deadline = self._client._deadline(timeout_s)
        name = self._fitting(lambda contract: contract.label_output(output), deadline)
        arguments = self._arguments(inputs, named, outputs=name, top_k=checked_top_k(top_k))
        return self._run(lambda contract: contract.prepare(arguments), deadline)

    def predict(
        self,
        *inputs: Any,
        outputs: str | Iterable[str] = (),
        parameters: Mapping[str, Parameter] | None = None,
        batch_size: int | None = None,
        in_flight: int = 4,
        progress: bool | Callable[[int, int], object] = False,
        timeout_s: float | None = None,
        **named: Any,
    ) -> Any:
        """Run the model on any number of rows: they are sent in batches, several at once.

        Args:
            inputs: as for a call, with the batch axis.
            outputs: as for a call.
            parameters: as for a call, of each request.
            batch_size: rows in a request; as many as the model takes by default.
            in_flight: requests under way at once.
            progress: True for a bar (needs tqdm), or a function that is called with the rows done and all rows.
            timeout_s: as for a call, of each request.
            named: the inputs by name.

        Returns:
            As a call, for all rows in their order; the arrays are the caller's own.

        Raises:
            BulkError: rows have no result; it says which, and has the results of the others. Where no server answers,
                the rest is not sent.
            InputError: as for a call.
        """
        refuse_iterator(inputs)
        first = self._arguments(inputs, named, outputs=outputs, parameters=parameters)
        deadline = self._client._deadline(timeout_s)
        rows = self._fitting(lambda contract: Rows(contract, first, batch_size, progress), deadline)

        def run(span: range) -> Any:
            arguments = self._arguments(*rows.part(span), outputs=first.outputs, parameters=first.parameters)
            return self._run(lambda contract: contract.prepare(arguments), self._client._deadline(timeout_s))

        with rows, _pool(in_flight) as pool:
            for span, future in pipelined(
                rows.spans(), lambda span: pool.submit(copy_context().run, run, span), in_flight
            ):
                try:
                    rows.add(span, future.result())
                except TritiumError as exc:
                    rows.fail(span, exc)
        return rows.results()

    def map(
        self,
        batches: Iterable[Any],
        *,
        outputs: str | Iterable[str] = (),
        parameters: Mapping[str, Parameter] | None = None,
        in_flight: int = 4,
        timeout_s: float | None = None,
    ) -> Iterator[Any]:
        """Run the model on each item of an iterable, which may be endless: a batch, a row, a mapping of inputs.

        Args:
            batches: what a call takes as its only argument. It is read only as far ahead as requests are under way.
            outputs: as for a call.
            parameters: as for a call, of each request.
            in_flight: requests under way at once.
            timeout_s: as for a call, of each request.

        Yields:
            What a call returns, in the order of the items.

        Raises:
            TritiumError: what a call raises, at the place of the item that it is about.
        """
        wanted = (outputs,) if isinstance(outputs, str) else tuple(outputs)

        def run(item: Any) -> Any:
            return self(item, outputs=wanted, parameters=parameters, timeout_s=timeout_s)

        with _pool(in_flight) as pool:
            for _, future in pipelined(batches, lambda item: pool.submit(copy_context().run, run, item), in_flight):
                yield future.result()

    def stream(
        self,
        *inputs: Any,
        outputs: str | Iterable[str] = (),
        timeout_s: float | None = None,
        request_id: str = "",
        parameters: Mapping[str, Parameter] | None = None,
        **named: Any,
    ) -> Iterator[Any]:
        """Run a decoupled model, which may answer any number of times. Over gRPC only.

        Args:
            inputs: as for a call.
            outputs: as for a call.
            timeout_s: seconds until the last answer must be there; the client's own by default.
            request_id: as for a call.
            parameters: as for a call.
            named: the inputs by name.

        Returns:
            An iterator of what a call returns, one for each answer, as they arrive. Leaving it early ends the
            request, on servers that live through that; Triton 2.51 computes it to its end, or to the deadline.

        Raises:
            InputError: as for a call; or the client uses HTTP.
        """
        deadline = self._client._deadline(timeout_s)
        arguments = self._arguments(inputs, named, outputs=outputs, request_id=request_id, parameters=parameters)
        if not self._client._over_grpc:
            raise self._about(refuse_stream(self._client.urls))
        request = self._fitting(lambda contract: contract.prepare(arguments), deadline)
        request.operation, request.repeatable = "stream", False

        cancel = self._client._may_cancel

        def answers() -> Iterator[Any]:
            began_s = time.perf_counter()
            error: CallError | None = None
            replica = self._client._replicas.next()
            transport: Any = replica.transport
            try:
                for answer in transport.stream(request, deadline, cancel=cancel):
                    yield request.reading.result(answer)
                replica.succeeded()
            except CallError as exc:
                error = exc
                replica.failed(told(exc, request))
                raise
            finally:
                if self._client._on_request is not None:
                    self._client._on_request(record(request, replica, None, began_s, error))

        return answers()

    def sequence(self, correlation_id: int | str | None = None) -> Sequence:
        """A sequence of requests that belong together, for a model that keeps state between them.

        >>> with model.sequence() as step:
        ...     first = step(x0)
        ...     second = step(x1, last=True)

        Args:
            correlation_id: what its requests have in common: a whole number above 0, or text; made up by default.
        """
        return Sequence(self, correlation_id)

    def _declared(self, deadline: Deadline) -> Contract:
        """What is known of the model; asked for if it is not known yet."""
        return self._known or self._client._contract(self.name, self.version, deadline)

    def _run(self, made: Callable[[Contract], InferRequest], deadline: Deadline) -> Any:
        known = self._client._contracts.get(self._key)
        contract = known or self._declared(deadline)
        while True:
            try:
                if contract.decoupled:
                    raise refuse_decoupled(contract)
                request = made(contract)
                if request.reading.empty:
                    return request.reading.result(contract.nothing())
                answer = self._client._send(request, deadline)
                if contract.changed(request, answer):
                    self._client._refresh(self.name)
                return request.reading.result(answer)
            except CHANGED as exc:
                contract = self._newer(exc, contract, deadline, asked=contract is not known)
            except CallError as exc:
                self._about(told(exc, request))
                raise

    def _fitting(self, use: Callable[[Contract], R], deadline: Deadline) -> R:
        """Use what is known of the model, and where that does not fit, what the server says of it now."""
        known = self._known
        contract = known or self._declared(deadline)
        while True:
            try:
                return use(contract)
            except InputError as exc:
                contract = self._newer(exc, contract, deadline, asked=contract is not known)

    def _newer(self, exc: TritiumError, contract: Contract, deadline: Deadline, *, asked: bool) -> Contract:
        """What the server says of the model now, if it was not `asked` for this call and that is something else.

        Raises:
            TritiumError: the error that made one look, where there is nothing newer.
        """
        if not asked:
            with suppress(TritiumError):
                newer = self._client._contract(self.name, self.version, deadline.shortened(EXPLANATION_S))
                if newer != contract:
                    return newer
        raise self._about(exc)


class PreparedCall:
    """A call whose inputs are encoded once: what :meth:`Model.prepare` returns.

    Several threads may make it at once. Where the server shows that the model is not the same any more, the inputs are
    encoded anew.
    """

    def __init__(self, model: Model, prepared: Any) -> None:
        self._model = model
        self._prepared: Prepared = prepared

    def __repr__(self) -> str:
        """As in ``PreparedCall(Model(…))``."""
        return f"{type(self).__name__}({self._model!r})"

    def __call__(self, *, timeout_s: float | None = None, request_id: str = "") -> Any:
        """Run the model.

        Args:
            timeout_s: as for a call of the model.
            request_id: as for a call of the model.

        Returns:
            As a call of the model.

        Raises:
            InputError: the model is another one by now, and does not take the inputs.
            TransportError: no answer arrived.
            ServerError: the server refused the request, or the model failed.
        """
        model, prepared = self._model, self._prepared
        chosen = model._request_id(request_id)
        return model._run(lambda contract: prepared.again(contract, chosen), model._client._deadline(timeout_s))


class Sequence:
    """Requests that belong together: ``with model.sequence() as step``.

    They all go to one server, and none twice.

    If the last request was not marked with ``last=True``, the end of the block ends the sequence by sending the inputs
    of the last one again, so that the server need not wait for more.

    Attributes:
        correlation_id: what its requests have in common.
    """

    def __init__(self, model: Model, correlation_id: int | str | None) -> None:
        self._model = model
        self._state = SequenceState(correlation_id)
        self._replica = model._client._replicas.choose()
        self.correlation_id: int | str = self._state.correlation_id

    def __repr__(self) -> str:
        """As in ``Sequence(Model(…), 7)``."""
        return f"Sequence({self._model!r}, {self.correlation_id!r})"

    def __enter__(self) -> Sequence:
        """The sequence itself, which is called as the model is."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the sequence, if its last request did not."""
        # A server that did not answer before would only be waited for again.
        if not self._state.begun or self._state.ended or isinstance(exc, TransportError):
            return
        inputs, named = self._state.last
        try:
            self(*inputs, last=True, **named)
        except TritiumError:
            if exc is None:
                raise

    def __call__(
        self,
        *inputs: Any,
        last: bool = False,
        outputs: str | Iterable[str] = (),
        timeout_s: float | None = None,
        request_id: str = "",
        parameters: Mapping[str, Parameter] | None = None,
        **named: Any,
    ) -> Any:
        """The next request: as a call of the model. `last` ends the sequence with it.

        Raises:
            InputError: the sequence has ended; or as a call of the model.
        """
        more = self._state.parameters(last=last, more=parameters)
        model, client = self._model, self._model._client
        deadline = client._deadline(timeout_s)
        arguments = model._arguments(inputs, named, outputs=outputs, request_id=request_id, parameters=more)
        request = model._fitting(lambda contract: self._state.prepare(contract, arguments), deadline)
        answer = client._send(request, deadline, self._replica)
        self._state.stepped(inputs, named, last=last)
        try:
            return request.reading.result(answer)
        except TritiumError as exc:
            model._about(told(exc, request))
            raise


def _pool(in_flight: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(checked_in_flight(in_flight), thread_name_prefix="tritium-bulk")
