"""gRPC for `Client`: one channel that all its threads share."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from . import _answers as answers
from . import _grpc_wire as wire
from ._deadline import Deadline
from ._endpoint import Endpoint
from ._errors import InputError
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
            self._channel = grpc.secure_channel(endpoint.address, wire.channel_credentials(tls), options)
        else:
            self._channel = grpc.insecure_channel(endpoint.address, options)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        # The generated stub would serialise the message, which is serialised already, and take the answer apart.
        self._infer = self._channel.unary_unary(f"{wire.SERVICE}/ModelInfer")
        self._stream = self._channel.stream_stream(
            f"{wire.SERVICE}/ModelStreamInfer", response_deserializer=service_pb2.ModelStreamInferResponse.FromString
        )
        self._draining: set[threading.Thread] = set()
        self._forked = False
        renew_after_fork(self)

    def infer(self, request: InferRequest, deadline: Deadline) -> InferAnswer:
        """Run a model."""
        left_s = self._left_s(deadline)
        sent, headers = wire.serialise(request, left_s), wire.request_metadata(self._metadata, request)
        try:
            response = self._infer(sent, timeout=left_s, metadata=headers)
        except (grpc.RpcError, ValueError) as exc:
            raise self._failed(exc, request.model, deadline) from exc
        return wire.answer(request, response, self.endpoint)

    def ask(self, query: Query, deadline: Deadline) -> Any:
        """Anything else, answered as plain JSON types."""
        left_s = self._left_s(deadline)
        try:
            response = getattr(self._stub, query.rpc)(wire.message(query), timeout=left_s, metadata=self._metadata)
        except (grpc.RpcError, ValueError) as exc:
            if isinstance(exc, grpc.RpcError) and wire.failed_no(query, exc):
                return False
            raise self._failed(exc, query.model, deadline) from exc
        return wire.result(query, response)

    def stream(self, request: InferRequest, deadline: Deadline, *, cancel: bool) -> Iterator[InferAnswer]:
        """Run a model that answers any number of times; `cancel` says whether leaving early may cancel it."""
        left_s = self._left_s(deadline)
        # One request, and no more: the server ends the stream after its last answer.
        messages = iter([wire.serialise(request, left_s)])
        headers = wire.request_metadata(self._metadata, request)
        try:
            call = self._stream(messages, timeout=left_s, metadata=headers)
        except ValueError as exc:
            raise self._failed(exc, request.model, deadline) from exc
        try:
            for message in call:
                if message.error_message:
                    raise wire.stream_error(message.error_message, self.endpoint, request.model)
                if message.infer_response.outputs:
                    yield wire.read(request, message.infer_response, self.endpoint)
        except grpc.RpcError as exc:
            raise self._failed(exc, request.model, deadline) from exc
        finally:
            if cancel:
                call.cancel()
            elif call.is_active():
                # Nobody listens any more; what still comes is let pass until the end or the deadline.
                drain = threading.Thread(target=self._drain, args=(call,), name="tritium-stream", daemon=True)
                self._draining.add(drain)
                drain.start()

    def close(self) -> None:
        """Close the channel, once streams that were left early have ended: closing it would cancel them."""
        for drain in list(self._draining):
            drain.join()
        self._channel.close()

    def after_fork(self) -> None:
        """In a process that was forked: gRPC's threads are in the parent only."""
        self._forked = True

    def _drain(self, call: Iterator[Any]) -> None:
        with suppress(grpc.RpcError):
            for _ in call:
                pass
        self._draining.discard(threading.current_thread())

    def _left_s(self, deadline: Deadline) -> float:
        if self._forked:
            raise InputError(
                "This process was forked from one that had a gRPC client, and gRPC cannot go on in it. Start it with "
                "the 'spawn' method, make the first gRPC client after the fork, or use http://"
            )
        return deadline.need_s(self.endpoint)

    def _failed(self, exc: Exception, model: str | None, deadline: Deadline) -> Exception:
        if isinstance(exc, grpc.RpcError):
            return wire.failure(exc, self.endpoint, model, deadline)
        # gRPC's own words for a closed channel.
        return answers.client_closed() if "closed" in str(exc).lower() else exc
