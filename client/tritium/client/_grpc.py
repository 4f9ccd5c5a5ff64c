"""gRPC for `Client`: one channel that all its threads share."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NoReturn

import grpc

from . import _answers as answers
from . import _grpc_wire as wire
from ._deadline import Deadline
from ._endpoint import Endpoint
from ._errors import InputError, TritiumError
from ._fork import renew_after_fork
from ._options import Limits, Tls
from ._queries import Query
from ._request import InferAnswer, InferRequest


class GrpcTransport:
    """One server over gRPC.

    Args:
        endpoint: where it is.
        headers: sent with every call.
        tls: how the server is checked, for grpcs.
        limits: how long a connection may take to be made.
    """

    def __init__(self, endpoint: Endpoint, headers: Mapping[str, str], tls: Tls, limits: Limits) -> None:
        self.endpoint = endpoint
        self._metadata = wire.metadata(headers)
        options = wire.channel_options(endpoint, limits)
        if endpoint.secure:
            channel = grpc.secure_channel(endpoint.address, wire.channel_credentials(tls), options)
        else:
            channel = grpc.insecure_channel(endpoint.address, options)
        self._calls: wire.Calls | None = wire.Calls.over(channel)
        self._left_to_the_parent: wire.Calls | None = None
        self._draining: set[threading.Thread] = set()
        renew_after_fork(self)

    def infer(self, request: InferRequest, deadline: Deadline) -> InferAnswer:
        """Run a model."""
        calls, left_s = self._calls or self._refuse(), deadline.need_s(self.endpoint)
        sent = wire.serialise(request, left_s)
        try:
            response = calls.infer(sent, timeout=left_s, metadata=wire.traced(self._metadata))
        except grpc.RpcError as exc:
            raise self._failure(exc, request.model, deadline) from exc
        finally:
            del calls  # an error that is kept has this frame, and would keep the channel
        return wire.answer(request, response, self.endpoint)

    def ask(self, query: Query, deadline: Deadline) -> Any:
        """Anything else, answered as plain JSON types."""
        calls, left_s = self._calls or self._refuse(), deadline.need_s(self.endpoint)
        try:
            response = getattr(calls.stub, query.rpc)(wire.message(query), timeout=left_s, metadata=self._metadata)
        except grpc.RpcError as exc:
            if wire.failed_no(query, exc):
                return False
            raise self._failure(exc, query.model, deadline) from exc
        finally:
            del calls
        return wire.result(query, response)

    def stream(self, request: InferRequest, deadline: Deadline, *, cancel: bool) -> Iterator[InferAnswer]:
        """Run a model that answers any number of times; `cancel` says whether leaving early may cancel it."""
        calls, left_s = self._calls or self._refuse(), deadline.need_s(self.endpoint)
        # One request, and no more: the server ends the stream after its last answer.
        messages = iter([wire.serialise(request, left_s)])
        call = calls.stream(messages, timeout=left_s, metadata=wire.traced(self._metadata))
        try:
            for message in call:
                if message.error_message:
                    raise wire.stream_error(message.error_message, self.endpoint, request.model)
                if message.infer_response.outputs:
                    yield wire.read(request, message.infer_response, self.endpoint)
        except grpc.RpcError as exc:
            raise self._failure(exc, request.model, deadline) from exc
        finally:
            if cancel:
                call.cancel()
            elif call.is_active():
                # Nobody listens any more; what still comes is let pass until the end or the deadline.
                drain = threading.Thread(target=self._drain, args=(call,), name="tritium-stream", daemon=True)
                self._draining.add(drain)
                drain.start()
            del calls, call

    def close(self) -> None:
        """Let the channel go, which closes when its last call ends; streams that were left early are waited for.

        Closing it now would cancel what is under way, and Triton 2.51 may die of that.
        """
        self._calls = None
        for drain in list(self._draining):
            drain.join()

    def after_fork(self) -> None:
        """In a process that was forked: gRPC's threads are in the parent only, and the channel is of no use without."""
        self._left_to_the_parent, self._calls = self._calls or self._left_to_the_parent, None

    def _drain(self, call: Iterator[Any]) -> None:
        with suppress(grpc.RpcError):
            for _ in call:
                pass
        self._draining.discard(threading.current_thread())

    def _failure(self, exc: grpc.RpcError, model: str | None, deadline: Deadline) -> TritiumError:
        exc.__traceback__ = None  # gRPC's own frames have the channel too
        return wire.failure(exc, self.endpoint, model, deadline)

    def _refuse(self) -> NoReturn:
        if self._left_to_the_parent is not None:
            raise InputError(
                "This process was forked from one that had a gRPC client, and gRPC cannot go on in it. Start it with "
                "the 'spawn' method, make the first gRPC client after the fork, or use http://"
            )
        raise answers.client_closed()
