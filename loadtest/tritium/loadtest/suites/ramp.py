"""Ramp: more and more users, or requests a second, to find the knee."""

from __future__ import annotations

from tritium.loadtest.suites._suite import register
from tritium.loadtest.users import TritonGrpcUser, TritonHttpUser


class HttpRamp(TritonHttpUser):
    """Over HTTP."""


class GrpcRamp(TritonGrpcUser):
    """Over gRPC."""


register("ramp", HttpRamp, GrpcRamp)
