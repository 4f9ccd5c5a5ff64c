"""gRPC for `AsyncClient`: one channel, in one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio

from . import _answers as answers
from . import _grpc_wire as wire
from ._deadline import Deadline
from ._endpoint import Endpoint
from ._errors import InputError
from ._options import Limits, Tls
from ._queries import Query
from ._request import InferAnswer, InferRequest


class AsyncGrpcTransport:
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
        self._credentials = wire.channel_credentials(tls) if endpoint.secure else None
        self._options = wire.channel_options(endpoint, limits)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._draining: set[asyncio.Task[None]] = set()
        self._under_way = 0
        self._channel: Any = None
        self._calls: Any = None

    def _opened(self) -> None:
        """Open the channel at the first use: it belongs to the loop that runs then."""
        if self._closed:
            raise answers.client_closed()
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._loop is not None:
            raise InputError("This AsyncClient belongs to another event loop; make one in each loop that needs one")
        self._loop = loop
        address = self.endpoint.address
        if self._credentials is not None:
            self._channel = grpc.aio.secure_channel(address, self._credentials, self._options)
        else:
            self._channel = grpc.aio.insecure_channel(address, self._options)
        self._calls = wire.Calls.over(self._channel)

    async def infer(self, request: InferRequest, deadline: Deadline) -> InferAnswer:
        """Run a model."""
        self._opened()
        left_s = deadline.need_s(self.endpoint)
        sent = wire.serialise(request, left_s)
        self._under_way += 1
        try:
            response = await self._calls.infer(sent, timeout=left_s, metadata=wire.traced(self._metadata))
        except grpc.RpcError as exc:
            raise wire.failure(exc, self.endpoint, request.model, deadline) from exc
        finally:
            # What `_over` does, without a coroutine of its own on the way of every call.
            self._under_way -= 1
            if self._closed:
                await self._close_if_unused()
        return wire.answer(request, response, self.endpoint)

    async def ask(self, query: Query, deadline: Deadline) -> Any:
        """Anything else, answered as plain JSON types."""
        self._opened()
        left_s, call = deadline.need_s(self.endpoint), getattr(self._calls.stub, query.rpc)
        self._under_way += 1
        try:
            response = await call(wire.message(query), timeout=left_s, metadata=self._metadata)
        except grpc.RpcError as exc:
            if wire.failed_no(query, exc):
                return False
            raise wire.failure(exc, self.endpoint, query.model, deadline) from exc
        finally:
            await self._over()
        return wire.result(query, response)

    async def stream(self, request: InferRequest, deadline: Deadline, *, cancel: bool) -> AsyncIterator[InferAnswer]:
        """Run a model that answers any number of times; `cancel` says whether leaving early may cancel it."""
        self._opened()
        left_s = deadline.need_s(self.endpoint)
        # One request, and no more: the server ends the stream after its last answer.
        messages = iter([wire.serialise(request, left_s)])
        call = self._calls.stream(messages, timeout=left_s, metadata=wire.traced(self._metadata))
        self._under_way += 1
        try:
            async for message in call:
                if message.error_message:
                    raise wire.stream_error(message.error_message, self.endpoint, request.model)
                if message.infer_response.outputs:
                    yield wire.read(request, message.infer_response, self.endpoint)
        except grpc.RpcError as exc:
            raise wire.failure(exc, self.endpoint, request.model, deadline) from exc
        finally:
            if cancel:
                call.cancel()
            elif not call.done():
                # Nobody listens any more; what still comes is let pass until the end or the deadline.
                self._under_way += 1
                draining = asyncio.create_task(self._drain(call))
                self._draining.add(draining)
                draining.add_done_callback(self._draining.discard)
            await self._over()

    async def close(self) -> None:
        """Close the channel, at the latest when its last call ends; streams that were left early are waited for.

        Closing it under them would cancel them, and Triton 2.51 may die of that.
        """
        self._closed = True
        if self._loop is not asyncio.get_running_loop():
            return  # its channel went with its loop
        if self._draining:
            await asyncio.wait(self._draining)
        await self._close_if_unused()

    async def _over(self) -> None:
        """A call has ended."""
        self._under_way -= 1
        if self._closed:
            await self._close_if_unused()

    async def _close_if_unused(self) -> None:
        if not self._under_way:
            await self._channel.close()

    async def _drain(self, call: AsyncIterator[Any]) -> None:
        try:
            with suppress(grpc.RpcError, asyncio.CancelledError):
                async for _ in call:
                    pass
        finally:
            await self._over()
