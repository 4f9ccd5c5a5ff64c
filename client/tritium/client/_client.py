"""The client: a server's address and what can be asked of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, Protocol

from . import _queries as queries
from ._answers import explained
from ._base import EXPLANATION_S, POLL_S, UNEXPLAINED, BaseClient, not_offered, record, told
from ._contract import Contract
from ._deadline import Deadline, positive
from ._endpoint import Endpoint
from ._errors import (
    AccessDeniedError,
    CallError,
    InputError,
    ModelNotFoundError,
    ModelNotReadyError,
    ServerError,
    TritiumError,
)
from ._metadata import ModelStatus, numbers
from ._model import Model
from ._options import Headers, Limits, Tls
from ._queries import Query
from ._replicas import Attempts, Replica
from ._request import InferAnswer, InferRequest
from ._shared_memory import SharedMemory, guarded


class Transport(Protocol):
    """The way to one server. Every method raises only what is in ``_errors``."""

    endpoint: Endpoint

    def infer(self, request: InferRequest, deadline: Deadline) -> InferAnswer:
        """Run a model."""

    def ask(self, query: Query, deadline: Deadline) -> Any:
        """Anything else, answered as plain JSON types."""

    def close(self) -> None:
        """Close every connection."""


class Client(BaseClient[Transport]):
    """A Triton Inference Server, or any other that speaks the V2 protocol, over HTTP or gRPC.

    >>> with Client("http://127.0.0.1:8000") as client:
    ...     digits = client.model("digits_cnn")
    ...     probabilities = digits(image)

    One client may be shared by any number of threads. Over HTTP it goes on working in a forked process; gRPC does not,
    and says so.

    Args:
        url: ``http://``, ``https://``, ``grpc://`` or ``grpcs://``, a host and a port, over HTTP also a path; the
            scheme chooses the protocol. Several URLs are replicas of one server: they are asked in turn, and one that
            fails is left alone for a while.
        timeout_s: seconds that a call may take in all, further tries included, unless it says otherwise. What is left
            of it goes along as the limit for the server's queue.
        headers: sent with every call.
        auth: an API key or a bearer token.
        tls: how https and grpcs check the server and show who they are; the system's certificates by default.
        retries: when a call is tried again.
        limits: how many connections there may be.
        on_request: called with a :class:`RequestRecord` after every call, in the thread that made it. What it raises
            reaches the caller.

    Raises:
        InputError: an argument cannot be used.
    """

    def _transports(self, headers: Headers, tls: Tls, limits: Limits) -> list[Transport]:
        if self._over_grpc:
            # Imported here: HTTP has no need of it.
            from ._grpc import GrpcTransport

            return [GrpcTransport(endpoint, headers, tls, limits) for endpoint in self._endpoints]
        from ._http import HttpTransport

        context = tls.context() if any(endpoint.secure for endpoint in self._endpoints) else None
        return [
            HttpTransport(endpoint, headers, context if endpoint.secure else None, limits)
            for endpoint in self._endpoints
        ]

    def __enter__(self) -> Client:
        """The client itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection."""
        self.close()

    def close(self) -> None:
        """Close every connection, those in use when their calls end. Streams that were left early are waited for."""
        for replica in self._replicas.all:
            replica.transport.close()

    def model(self, name: str, version: str | int | None = None) -> Model:
        """A handle on a model. Asks the server nothing yet.

        Args:
            name: the model's name.
            version: the version that is to answer; by default the server chooses.

        Raises:
            InputError: they cannot be those of a model.
        """
        return Model(self, *queries.checked_model(name, version))

    def models(self) -> list[ModelStatus]:
        """Every model in the server's repository, with the state of each version.

        Raises:
            ServerError: the server does not tell.
        """
        return self._models(self._deadline(None))

    def is_ready(self, model: str | None = None) -> bool:
        """Whether the server, or a model on it, says that it is ready.

        Args:
            model: the model's name; the server itself by default.

        Raises:
            TransportError: no server answered.
        """
        query = queries.readiness(model)
        return bool(self._send(query, self._deadline(None)))

    def wait_ready(self, model: str | None = None, *, timeout_s: float = 60.0) -> None:
        """Wait until the server, or a model on it, is ready; a server that is not there yet may still come.

        Args:
            model: the model's name; the server itself by default.
            timeout_s: seconds to wait at most.

        Raises:
            DeadlineExceededError: it was not, within `timeout_s`.
        """
        deadline = Deadline(positive(timeout_s))
        # What fails now is asked again here, and not at the cost of the retries that other calls may need.
        query = replace(queries.readiness(model), repeatable=False)
        reason: CallError | None = None
        while deadline.left_s() > 0:
            try:
                if self._send(query, deadline):
                    return
            except AccessDeniedError:
                raise
            except CallError as exc:
                reason = exc
            time.sleep(max(0.0, min(POLL_S, deadline.left_s())))
        raise self._never_ready(model, deadline, reason) from reason

    def load(self, name: str, *, config: Mapping[str, Any] | None = None, timeout_s: float = 300.0) -> None:
        """Load a model, or load it again with the versions that its folder has now.

        If that fails, the versions that were being served go on being served. With several URLs, every server loads it.

        Args:
            name: the model's name.
            config: the config to load it with, as a handle's `config` has it; the folder's by default. Triton only.
            timeout_s: seconds that loading may take.

        Raises:
            ServerError: the model does not load; the message has the server's reason.
        """
        try:
            self._ask_all(queries.load(queries.checked_model(name, None)[0], config), self._deadline(timeout_s))
        finally:
            self._forget(name)

    def unload(self, name: str) -> None:
        """Take a model out of service, on every server. Returns before the last requests are answered.

        Args:
            name: the model's name.

        Raises:
            ServerError: the server does not allow it.
        """
        self._ask_all(queries.unload(queries.checked_model(name, None)[0]), self._deadline(None))
        self._forget(name)

    def statistics(self) -> dict[str, Any]:
        """Triton's counters of all models: requests, batch sizes formed, nanoseconds in queue and compute.

        Raises:
            InputError: the server is no Triton, and counts nothing.
        """
        return self._statistics(queries.statistics())

    @contextmanager
    def shared_memory(self, size_bytes: int) -> Iterator[SharedMemory]:
        """Memory that this process and a server on the same machine both see, until the end of the ``with`` block.

        Arrays made by :meth:`SharedMemory.array` go to a model by reference when they are its inputs, and receive its
        outputs as its ``out``. Linux only; the server must allow it.

        Args:
            size_bytes: how large it is to be.

        Raises:
            InputError: there is no such memory here, or not as much.
            ServerError: the server does not take it.
        """
        if len(self._replicas.all) > 1:
            raise InputError("Shared memory needs a client of one server")
        with guarded(self, size_bytes) as region:
            self._register(region)
            self._regions.append(region)
            try:
                yield region
            except BaseException:
                with suppress(TritiumError):  # what ended the block says more
                    self._unregister(region)
                raise
            else:
                self._unregister(region)

    def _register(self, region: SharedMemory) -> None:
        try:
            self._send(region.registration(), self._deadline(None))
        except ServerError:
            region.registered = False  # refused; after any other failure nobody knows
            raise

    def _unregister(self, region: SharedMemory) -> None:
        self._regions.remove(region)
        if not region.mine():
            return
        deadline = self._deadline(None)
        while region.registered:
            try:
                self._send(region.unregistration(), deadline)
                region.registered = False
            except ServerError as exc:
                # Triton answers before it lets go of the memory that it answered from.
                if "in use" not in str(exc) or deadline.left_s() <= POLL_S:
                    raise
                time.sleep(POLL_S)

    def _models(self, deadline: Deadline) -> list[ModelStatus]:
        return self._statuses(self._send(queries.repository_index(), deadline))

    def _ask_all(self, query: Query, deadline: Deadline) -> None:
        for replica in self._replicas.all:
            self._send(query, deadline, replica)

    def _send(self, call: InferRequest | Query, deadline: Deadline, pinned: Replica[Transport] | None = None) -> Any:
        """Send a request or a query until there is an answer, or a failure that is for good."""
        began_s = time.perf_counter()
        error: BaseException | None = None
        replica, attempts = pinned or self._replicas.next(), None
        try:
            while True:
                try:
                    if isinstance(call, InferRequest):
                        answer: Any = replica.transport.infer(call, deadline)
                    else:
                        answer = replica.transport.ask(call, deadline)
                except CallError as exc:
                    if attempts is None:
                        attempts = Attempts(self._replicas, replica, deadline, repeatable=call.repeatable)
                    pause_s = attempts.pause_s(told(exc, call))
                    if pause_s is None:
                        raise
                    replica = attempts.replica
                    time.sleep(pause_s)
                else:
                    if replica.failures:
                        replica.succeeded()
                    return answer
        except (ModelNotFoundError, ModelNotReadyError) as exc:
            error = self._explained(exc, deadline) if call.operation not in UNEXPLAINED else exc
            if error is exc:
                raise
            raise error from exc
        except BaseException as exc:
            error = exc
            raise
        finally:
            if self._on_request is not None:
                self._on_request(record(call, replica, attempts, began_s, error))
            error = None  # its traceback holds this frame: together they would keep the inputs alive

    def _explained(self, exc: ServerError, deadline: Deadline) -> ServerError:
        """The same error with what there is instead, where the server tells."""
        try:
            # The answer is there already; a better message must not cost much more.
            return explained(exc, self._models(deadline.shortened(EXPLANATION_S)))
        except TritiumError:
            return exc

    def _contract(self, name: str, version: str, deadline: Deadline) -> Contract:
        """What the server says of a model now."""
        metadata = self._send(queries.model_metadata(name, version), deadline)
        config = self._if_offered(queries.model_config(name, version), deadline)
        self._ask_server(deadline)
        contract = self._contract_of(metadata, config, version)
        self._contracts[name, version] = contract
        return contract

    def _ask_server(self, deadline: Deadline) -> None:
        """Know what the server says of itself."""
        if self._server is None:
            self._server = self._if_offered(queries.server_metadata(), deadline)

    def _statistics(self, query: Query) -> dict[str, Any]:
        deadline = self._deadline(None)
        self._ask_server(deadline)
        self._need("statistics")
        return dict(numbers(self._send(query, deadline)))

    def _if_offered(self, query: Query, deadline: Deadline) -> Any:
        """The answer to what not every V2 server knows; None if this one does not."""
        try:
            return self._send(query, deadline)
        except ServerError as exc:
            if not_offered(exc):
                return None
            raise
