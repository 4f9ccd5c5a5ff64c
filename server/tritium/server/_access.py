"""What only the owner of a server may do, and what it takes."""

from __future__ import annotations

# As Triton names the groups. Configs and statistics stay readable: clients need them.
ADMIN_GROUPS = ("shared-memory", "model-repository", "trace", "logging")
ADMIN_HEADER = "tritium-admin"


def admin_headers(url: str, secret: str) -> dict[str, str]:
    """What a client sends along to administer a server at this URL."""
    return {f"triton-grpc-protocol-{ADMIN_HEADER}" if url.startswith("grpc") else ADMIN_HEADER: secret}
