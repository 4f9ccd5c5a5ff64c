"""BentoML: a method for each model, on the event loop of two workers; a row comes and goes in base64, as JSON."""

from __future__ import annotations

import base64
import gc

import bentoml  # type: ignore[import-not-found, unused-ignore]
from benchmarks.peers._served import served


@bentoml.service(workers=2, threads=1, metrics={"enabled": False}, logging={"access": {"enabled": False}})  # type: ignore[untyped-decorator, unused-ignore]
class Models:
    """A method that is not `async` would hop to a thread, a batchable one wait for a batch: both take longer."""

    def __init__(self) -> None:
        self._models = served()
        gc.freeze()

    @bentoml.api  # type: ignore[untyped-decorator, unused-ignore]
    async def cnn(self, row: str) -> str:
        """The model of that name."""
        return self._answer("cnn", row)

    @bentoml.api  # type: ignore[untyped-decorator, unused-ignore]
    async def mlp(self, row: str) -> str:
        """The model of that name."""
        return self._answer("mlp", row)

    def _answer(self, name: str, row: str) -> str:
        return base64.b64encode(self._models[name].one(base64.b64decode(row))).decode()
