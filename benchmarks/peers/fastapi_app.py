"""What one writes instead of Triton: FastAPI around ONNX Runtime. One row of float32 in, float32 out, as raw bytes.

BENCH_MODELS names the models: a JSON object of path, ONNX file and shape of one row.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
from fastapi import FastAPI, Request, Response  # type: ignore[import-not-found, unused-ignore]

app = FastAPI(openapi_url=None)


def _serve(path: str, file: str, shape: Sequence[int]) -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    # On the event loop: a hop to a thread costs more than these models do.
    async def infer(request: Request) -> Response:
        row = np.frombuffer(await request.body(), np.float32).reshape(shape)
        return Response(session.run(None, {name: row})[0].tobytes(), media_type="application/octet-stream")

    # FastAPI's own kind of route. Starlette's bare one (`app.add_route`) answers a fifth to a half more, but then
    # nothing of FastAPI is left in the way of a request: that would be another peer.
    app.add_api_route(path, infer, methods=["POST"])


for _model in json.loads(os.environ["BENCH_MODELS"]):
    _serve(**_model)
# What is here now stays; the collector need not walk over it under load.
gc.freeze()
