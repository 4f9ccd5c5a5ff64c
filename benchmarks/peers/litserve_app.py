"""LitServe: an API for each model. BENCH_BATCHING=1 lets one worker make batches; else two answer row by row."""

import gc
import os
from typing import Annotated, Any

import litserve  # type: ignore[import-not-found, unused-ignore]
from benchmarks.peers._served import HOST, MAX_BATCH_SIZE, Served, models, port
from fastapi import Body, Response  # type: ignore[import-not-found, unused-ignore]

BATCHING = os.environ.get("BENCH_BATCHING") == "1"
WORKERS = 1 if BATCHING else 2
API_SERVERS = 2
BATCH_WAIT_S = 0.005


class Api(litserve.LitAPI):  # type: ignore[misc, unused-ignore]
    """Raw bytes in and out, also between the processes."""

    def __init__(self, model: dict[str, Any]) -> None:
        batching = {"max_batch_size": MAX_BATCH_SIZE, "batch_timeout": BATCH_WAIT_S} if BATCHING else {}
        super().__init__(api_path=f"/{model['name']}", **batching)
        self._settings = model

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe calls it so
        """In the worker."""
        self._model = Served(**self._settings)
        gc.freeze()

    def decode_request(self, request: Annotated[bytes, Body()]) -> bytes:
        """The body as it came: of any other annotation LitServe makes JSON."""
        return request

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """`Served` joins them."""
        return inputs

    def predict(self, rows: Any) -> Any:
        """A list of rows where there are batches."""
        return self._model.batch(rows) if BATCHING else self._model.one(rows)

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        """One answer each."""
        return output

    def encode_response(self, output: bytes) -> Response:
        """The answer as it is."""
        return Response(output, media_type="application/octet-stream")


if __name__ == "__main__":
    litserve.LitServer(
        [Api(model) for model in models().values()],
        accelerator="cpu",
        workers_per_device=WORKERS,
        fast_queue=True,
        disable_openapi_url=True,
    ).run(
        host=HOST,
        port=port("http"),
        num_api_servers=API_SERVERS,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
        loop="uvloop",
        http="httptools",
    )
