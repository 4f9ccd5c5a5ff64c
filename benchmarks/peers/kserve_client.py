"""KServe's InferenceRESTClient, run in its own environment: `python -m benchmarks.peers.kserve_client`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from benchmarks._turns import Array, AsyncCall, Job, Subject, take_async_turns
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig  # type: ignore[import-not-found]


@asynccontextmanager
async def opened(job: Job) -> AsyncIterator[Mapping[str, AsyncCall]]:
    """One client for all models; tensors go and come as bytes, and the input is made once."""
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    try:
        yield {name: _caller(client, f"http://{job.http}", subject) for name, subject in job.subjects.items()}
    finally:
        await client.close()


def _caller(client: InferenceRESTClient, url: str, subject: Subject) -> AsyncCall:
    tensor = InferInput(subject.input, list(subject.rows.shape), "FP32")
    tensor.set_data_from_numpy(subject.rows, binary_data=True)
    request = InferRequest(subject.name, [tensor], parameters={"binary_data_output": True})

    async def call() -> Array:
        response = await client.infer(url, request, model_name=subject.name)
        answer: Array = response.outputs[0].as_numpy()
        return answer

    return call


if __name__ == "__main__":
    take_async_turns(opened)
