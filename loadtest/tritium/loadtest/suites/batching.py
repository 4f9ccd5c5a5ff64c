"""Batching: copies of one model in turns, with dynamic batching off and on, with several delays."""

from __future__ import annotations

from tritium.loadtest.suites._suite import register
from tritium.loadtest.users import TritonGrpcUser, TritonHttpUser


class HttpBatching(TritonHttpUser):
    """Over HTTP."""


class GrpcBatching(TritonGrpcUser):
    """Over gRPC."""


register("batching", HttpBatching, GrpcBatching)
