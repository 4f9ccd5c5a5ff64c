"""LitServe: an API for each model, whose two workers answer row by row. `python -m benchmarks.peers.litserve_app`."""

import gc
from typing import Annotated, Any

import litserve  # type: ignore[import-not-found, unused-ignore]
from benchmarks.peers._served import HOST, Served, models, port
from fastapi import Body, Response  # type: ignore[import-not-found, unused-ignore]

WORKERS = 2
API_SERVERS = 2


class Api(litserve.LitAPI):  # type: ignore[misc, unused-ignore]
    """Raw bytes in and out, also between the processes."""

    def __init__(self, model: dict[str, Any]) -> None:
        super().__init__(api_path=f"/{model['name']}")
        self._settings = model

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe calls it so
        """In the worker."""
        self._model = Served(**self._settings)
        gc.freeze()

    def decode_request(self, request: Annotated[bytes, Body()]) -> bytes:
        """The body as it came: of any other annotation LitServe makes JSON."""
        return request

    def predict(self, row: bytes) -> bytes:
        """One row."""
        return self._model.one(row)

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
