"""PyTriton's ModelClient, run in its own environment: `python -m benchmarks.peers.pytriton_client http`, or grpc."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from benchmarks._turns import Array, Call, Job, Subject, take_turns
from pytriton.client import ModelClient  # type: ignore[import-not-found]


@contextmanager
def opened(job: Job) -> Iterator[Mapping[str, Call]]:
    """A client for each model: that is how they are made."""
    protocol = sys.argv[1]
    url = f"{protocol}://{getattr(job, protocol)}"
    with ExitStack() as stack:
        yield {
            name: _caller(stack.enter_context(ModelClient(url, name)), subject)
            for name, subject in job.subjects.items()
        }


def _caller(client: ModelClient, subject: Subject) -> Call:
    inputs = {subject.input: subject.rows}

    def call() -> Array:
        answer: Array = client.infer_batch(**inputs)[subject.output]
        return answer

    return call


if __name__ == "__main__":
    take_turns(opened)
