"""Chaos: users that send again what may be, while the server's processes are killed and its versions reloaded."""

from __future__ import annotations

from tritium.loadtest.suites._suite import register
from tritium.loadtest.users import TritonGrpcUser, TritonHttpUser


class HttpChaos(TritonHttpUser):
    """Over HTTP."""


class GrpcChaos(TritonGrpcUser):
    """Over gRPC."""


register("chaos", HttpChaos, GrpcChaos)
