"""MLServer's runtime for the models, by its V2 protocol.

Over gRPC a row comes as raw bytes of FP32, over HTTP in base64 as one element of a BYTES tensor: its HTTP has no binary
tensors, and numbers as JSON take longer.
"""

from __future__ import annotations

import base64
import gc

import numpy as np
from benchmarks.peers._served import OUTPUT, Served, models
from mlserver import MLModel  # type: ignore[import-not-found, unused-ignore]
from mlserver.codecs import NumpyCodec, StringCodec  # type: ignore[import-not-found, unused-ignore]
from mlserver.types import (  # type: ignore[import-not-found, unused-ignore]
    InferenceRequest,
    InferenceResponse,
)


class Runtime(MLModel):  # type: ignore[misc, unused-ignore]
    """One model, on the event loop: `parallel_workers` is 0."""

    async def load(self) -> bool:
        """At start."""
        self._model = Served(**models()[self.settings.name])
        gc.freeze()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """A batch that MLServer has joined."""
        (tensor,) = payload.inputs
        if tensor.datatype == "BYTES":
            answers = self._model.batch([base64.b64decode(row) for row in tensor.data])
            output = StringCodec.encode_output(OUTPUT, [base64.b64encode(answer).decode() for answer in answers])
        else:
            rows = NumpyCodec.decode_input(tensor).astype(np.float32, copy=False)
            output = NumpyCodec.encode_output(OUTPUT, self._model.rows(rows))
        return InferenceResponse(model_name=self.name, outputs=[output])
