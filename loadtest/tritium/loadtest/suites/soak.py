"""Soak: the same load for a long time."""

from __future__ import annotations

from tritium.loadtest.suites._suite import register
from tritium.loadtest.users import TritonGrpcUser, TritonHttpUser


class HttpSoak(TritonHttpUser):
    """Over HTTP."""


class GrpcSoak(TritonGrpcUser):
    """Over gRPC."""


register("soak", HttpSoak, GrpcSoak)
