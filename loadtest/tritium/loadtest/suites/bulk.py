"""Bulk: as many rows in each request as the model takes."""

from __future__ import annotations

from tritium.loadtest.suites._suite import register
from tritium.loadtest.users import TritonGrpcUser, TritonHttpUser


class HttpBulk(TritonHttpUser):
    """Over HTTP."""


class GrpcBulk(TritonGrpcUser):
    """Over gRPC."""


register("bulk", HttpBulk, GrpcBulk)
