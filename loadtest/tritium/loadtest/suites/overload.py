"""Overload: requests that come whether the server is ready for them or not, up to twice of what it can take."""

from __future__ import annotations

from tritium.loadtest.suites._suite import register
from tritium.loadtest.users import TritonGrpcUser, TritonHttpUser


class HttpOverload(TritonHttpUser):
    """Over HTTP."""


class GrpcOverload(TritonGrpcUser):
    """Over gRPC."""


register("overload", HttpOverload, GrpcOverload)
