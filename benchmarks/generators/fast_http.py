"""Locust's own fast HTTP user, which posts ready-made bytes and looks at no answer."""

from __future__ import annotations

from benchmarks.generators._counted import BODY, REQUEST
from locust import FastHttpUser, constant, task


class FastHttp(FastHttpUser):
    """Posts the same bytes again and again."""

    wait_time = constant(0)

    @task
    def infer(self) -> None:
        """One request."""
        # It takes bytes, whatever its annotation says.
        self.client.post(REQUEST["path"], data=BODY, headers=REQUEST["headers"])  # type: ignore[arg-type]
