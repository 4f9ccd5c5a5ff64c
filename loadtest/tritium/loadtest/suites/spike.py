"""Spike: a calm, eight times its load, and a calm again."""

from __future__ import annotations

from tritium.loadtest.suites._suite import register
from tritium.loadtest.users import TritonGrpcUser, TritonHttpUser


class HttpSpike(TritonHttpUser):
    """Over HTTP."""


class GrpcSpike(TritonGrpcUser):
    """Over gRPC."""


register("spike", HttpSpike, GrpcSpike)
