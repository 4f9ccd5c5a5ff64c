"""A runtime of MLServer, run in its own environment."""

from __future__ import annotations

from mlserver import MLModel  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput  # type: ignore[import-not-found]


class Echo(MLModel):  # type: ignore[misc]
    """Answers every input `x` with an output `x_again` that is the same."""

    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        outputs = [
            ResponseOutput(name=f"{item.name}_again", datatype=item.datatype, shape=item.shape, data=item.data)
            for item in payload.inputs
        ]
        return InferenceResponse(model_name=self.name, model_version=self.version, id=payload.id, outputs=outputs)
