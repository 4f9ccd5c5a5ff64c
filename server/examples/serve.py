"""Serve a model repository for as long as a `with` block, and ask it what it serves."""

from __future__ import annotations

import sys

from tritium.server import TritonServer


def main(repository: str) -> int:
    with TritonServer(repository, progress=print) as server, server.client(protocol="grpc") as client:
        print(server.http_url, server.grpc_url, server.metrics_url)
        for status in client.models():
            print(status.name, status.version, status.state)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:] or ["model_repository"]))
