"""Mixed: all models at random, by their weights."""

from __future__ import annotations

from tritium.loadtest.suites._suite import register
from tritium.loadtest.users import TritonGrpcUser, TritonHttpUser


class HttpMixed(TritonHttpUser):
    """Over HTTP."""


class GrpcMixed(TritonGrpcUser):
    """Over gRPC."""


register("mixed", HttpMixed, GrpcMixed)
