"""Tritium's clients, tritonclient's, and ONNX Runtime in process: each is measured in a process of its own.

`python -m benchmarks._contenders SIDE`; each side imports what it needs itself, so that no other's threads run beside.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import numpy as np
from benchmarks._turns import Array, AsyncCall, Call, Job, Subject, take_async_turns, take_turns

BATCH_SIZE = 64
# How many rows are sent one by one where rows are counted: all 20 000 would only take longer.
LOOPED_ROWS = 2_000


@contextmanager
def tritium(protocol: str, job: Job) -> Iterator[Mapping[str, Call]]:
    """`m(x)`."""
    from tritium.client import Client

    with Client(_url(protocol, job)) as client:
        yield {name: partial(client.model(name), subject.rows) for name, subject in job.subjects.items()}


@asynccontextmanager
async def tritium_async(protocol: str, job: Job) -> AsyncIterator[Mapping[str, AsyncCall]]:
    """`await m(x)`."""
    from tritium.client import AsyncClient

    async with AsyncClient(_url(protocol, job)) as client:
        yield {name: partial(client.model(name), subject.rows) for name, subject in job.subjects.items()}


@contextmanager
def tritium_bulk(protocol: str, job: Job) -> Iterator[Mapping[str, Call]]:
    """`m.predict(X)`."""
    from tritium.client import Client

    with Client(_url(protocol, job)) as client:
        yield {
            name: partial(client.model(name).predict, subject.rows, batch_size=BATCH_SIZE)
            for name, subject in job.subjects.items()
        }


@asynccontextmanager
async def tritium_bulk_async(protocol: str, job: Job) -> AsyncIterator[Mapping[str, AsyncCall]]:
    """`await m.predict(X)`."""
    from tritium.client import AsyncClient

    async with AsyncClient(_url(protocol, job)) as client:
        yield {
            name: partial(client.model(name).predict, subject.rows, batch_size=BATCH_SIZE)
            for name, subject in job.subjects.items()
        }


@contextmanager
def tritonclient(protocol: str, job: Job) -> Iterator[Mapping[str, Call]]:
    """`infer` with inputs and requested outputs that are made once."""
    module = _tritonclient(protocol)
    with module.InferenceServerClient(getattr(job, protocol)) as client:
        yield {name: _infer(module, client, subject) for name, subject in job.subjects.items()}


@asynccontextmanager
async def tritonclient_async(protocol: str, job: Job) -> AsyncIterator[Mapping[str, AsyncCall]]:
    """The same of its asyncio clients."""
    module = _tritonclient(f"{protocol}.aio")
    async with module.InferenceServerClient(getattr(job, protocol)) as client:
        yield {name: _infer_async(module, client, subject) for name, subject in job.subjects.items()}


@contextmanager
def tritonclient_loop(protocol: str, job: Job) -> Iterator[Mapping[str, Call]]:
    """One row a request, one request after another; the tensor is filled anew for each."""
    module = _tritonclient(protocol)
    with module.InferenceServerClient(getattr(job, protocol)) as client:
        yield {name: _loop(module, client, subject) for name, subject in job.subjects.items()}


@contextmanager
def onnxruntime(job: Job) -> Iterator[Mapping[str, Call]]:
    """What the server does, without a server: batches as large, as many threads."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1

    def caller(subject: Subject) -> Call:
        session = ort.InferenceSession(subject.file, options, providers=["CPUExecutionProvider"])
        starts = range(0, len(subject.rows), BATCH_SIZE)

        def call() -> Array:
            batches = (subject.rows[start : start + BATCH_SIZE] for start in starts)
            return np.concatenate([session.run([subject.output], {subject.input: batch})[0] for batch in batches])

        return call

    yield {name: caller(subject) for name, subject in job.subjects.items()}


CONTENDERS: Mapping[str, Callable[[Job], AbstractContextManager[Mapping[str, Call]]]] = {
    "tritium_http": partial(tritium, "http"),
    "tritium_grpc": partial(tritium, "grpc"),
    "tritonclient_http": partial(tritonclient, "http"),
    "tritonclient_grpc": partial(tritonclient, "grpc"),
    "predict_http": partial(tritium_bulk, "http"),
    "predict_grpc": partial(tritium_bulk, "grpc"),
    "tritonclient_loop": partial(tritonclient_loop, "http"),
    "onnxruntime": onnxruntime,
}
ASYNC_CONTENDERS: Mapping[str, Callable[[Job], AbstractAsyncContextManager[Mapping[str, AsyncCall]]]] = {
    "tritium_http_aio": partial(tritium_async, "http"),
    "tritium_grpc_aio": partial(tritium_async, "grpc"),
    "tritonclient_http_aio": partial(tritonclient_async, "http"),
    "tritonclient_grpc_aio": partial(tritonclient_async, "grpc"),
    "predict_http_aio": partial(tritium_bulk_async, "http"),
    "predict_grpc_aio": partial(tritium_bulk_async, "grpc"),
}


def _url(protocol: str, job: Job) -> str:
    return f"{protocol}://{getattr(job, protocol)}"


def _tritonclient(name: str) -> Any:
    from importlib import import_module

    return import_module(f"tritonclient.{name}")


def _tensors(module: Any, subject: Subject) -> tuple[list[Any], list[Any]]:
    tensor = module.InferInput(subject.input, list(subject.rows.shape), "FP32")
    tensor.set_data_from_numpy(subject.rows)
    return [tensor], [module.InferRequestedOutput(subject.output)]


def _infer(module: Any, client: Any, subject: Subject) -> Call:
    inputs, outputs = _tensors(module, subject)

    def call() -> Array:
        answer: Array = client.infer(subject.name, inputs, outputs=outputs).as_numpy(subject.output)
        return answer

    return call


def _infer_async(module: Any, client: Any, subject: Subject) -> AsyncCall:
    inputs, outputs = _tensors(module, subject)

    async def call() -> Array:
        answer: Array = (await client.infer(subject.name, inputs, outputs=outputs)).as_numpy(subject.output)
        return answer

    return call


def _loop(module: Any, client: Any, subject: Subject) -> Call:
    tensor = module.InferInput(subject.input, [1, *subject.rows.shape[1:]], "FP32")
    outputs = [module.InferRequestedOutput(subject.output)]

    def call() -> Array:
        answers = []
        for row in range(LOOPED_ROWS):
            tensor.set_data_from_numpy(subject.rows[row : row + 1])
            answers.append(client.infer(subject.name, [tensor], outputs=outputs).as_numpy(subject.output))
        return np.concatenate(answers)

    return call


if __name__ == "__main__":
    side = sys.argv[1]
    if side in CONTENDERS:
        take_turns(CONTENDERS[side])
    else:
        take_async_turns(ASYNC_CONTENDERS[side])
