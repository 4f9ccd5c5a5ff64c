"""A user with `tritonclient.http` as NVIDIA's examples write one: inputs that are made once, and an unread answer."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import tritonclient.http as triton
from benchmarks.generators._counted import REQUEST
from locust import User, constant, task


class TritonClient(User):
    """Sends the same input again and again."""

    wait_time = constant(0)

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        row = np.array(REQUEST["row"], np.float32)
        self._client = triton.InferenceServerClient((self.host or "").partition("://")[2])
        self._inputs = [triton.InferInput(REQUEST["input"], list(row.shape), "FP32").set_data_from_numpy(row)]
        self._outputs = [triton.InferRequestedOutput(REQUEST["output"])]

    @task
    def infer(self) -> None:
        """One request."""
        error: Exception | None = None
        started = time.perf_counter()
        try:
            self._client.infer(REQUEST["model"], self._inputs, outputs=self._outputs).as_numpy(REQUEST["output"])
        except Exception as exc:
            error = exc
        self.environment.events.request.fire(
            request_type="triton",
            name=REQUEST["model"],
            response_time=(time.perf_counter() - started) * 1000,
            response_length=0,
            exception=error,
            context={},
        )
