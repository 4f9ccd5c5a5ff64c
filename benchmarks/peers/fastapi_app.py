"""What one writes instead of Triton: FastAPI around ONNX Runtime. One row of float32 in, float32 out, as raw bytes."""

from __future__ import annotations

import gc

from benchmarks.peers._served import Served, served
from fastapi import FastAPI, Request, Response  # type: ignore[import-not-found, unused-ignore]

app = FastAPI(openapi_url=None)


def _serve(model: Served) -> None:
    # On the event loop: a hop to a thread costs more than these models do.
    async def infer(request: Request) -> Response:
        return Response(model.one(await request.body()), media_type="application/octet-stream")

    # FastAPI's own kind of route. Starlette's bare one (`app.add_route`) answers a fifth to a half more, but then
    # nothing of FastAPI is left in the way of a request: that would be another peer.
    app.add_api_route(f"/{model.name}", infer, methods=["POST"])


for _model in served().values():
    _serve(_model)
# What is here now stays; the collector need not walk over it under load.
gc.freeze()
