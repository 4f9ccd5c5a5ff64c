"""Smoke: every model's golden cases, one after the other."""

from __future__ import annotations

from tritium.loadtest.suites._suite import register
from tritium.loadtest.users import TritonGrpcUser, TritonHttpUser


class HttpSmoke(TritonHttpUser):
    """Over HTTP."""


class GrpcSmoke(TritonGrpcUser):
    """Over gRPC."""


register("smoke", HttpSmoke, GrpcSmoke)
