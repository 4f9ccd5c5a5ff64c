"""Ray Serve: an application for each model, of two replicas. `python -m benchmarks.peers.ray_app`.

Rows come and go as raw bytes; over gRPC in protobuf's own message for bytes. The throughput-optimised mode and HAProxy
are asked for by the environment, as Ray's documentation has it.
"""

from __future__ import annotations

import gc
import os
import signal
from typing import Any

import grpc
import ray  # type: ignore[import-not-found, unused-ignore]
from benchmarks.peers._served import HOST, MAX_BATCH_SIZE, Served, models, port
from google.protobuf.wrappers_pb2 import BytesValue
from ray import serve
from starlette.requests import Request  # type: ignore[import-not-found, unused-ignore]
from starlette.responses import Response  # type: ignore[import-not-found, unused-ignore]

REPLICAS = 2
BATCH_WAIT_S = float(os.environ["BENCH_BATCH_WAIT_S"])
# As many as come: what waits in a replica can be batched, what waits outside cannot.
MAX_UNDER_WAY = 512
OBJECT_STORE_BYTES = 80_000_000
SERVICE = "benchmarks.Model"


class Model:
    """One model, on the replica's event loop."""

    def __init__(self, model: dict[str, Any]) -> None:
        self._model = Served(**model)
        gc.freeze()

    @serve.batch(  # type: ignore[untyped-decorator, unused-ignore]
        max_batch_size=MAX_BATCH_SIZE, batch_wait_timeout_s=BATCH_WAIT_S
    )
    async def answers(self, rows: list[bytes]) -> list[bytes]:
        """A batch that Ray Serve has joined."""
        return self._model.batch(rows)

    async def __call__(self, request: Request) -> Response:
        """Over HTTP."""
        return Response(await self.answers(await request.body()), media_type="application/octet-stream")

    async def infer(self, request: BytesValue) -> BytesValue:
        """Over gRPC."""
        return BytesValue(value=await self.answers(request.value))


def add_service(servicer: Any, server: grpc.Server) -> None:
    """What protobuf's compiler would write for a service of one method."""
    method = grpc.unary_unary_rpc_method_handler(
        servicer.infer, request_deserializer=BytesValue.FromString, response_serializer=BytesValue.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"infer": method}),))


def main() -> None:
    """Serve until a signal comes."""
    quiet = {"enable_access_log": False, "log_level": "WARNING"}
    ray.init(
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=OBJECT_STORE_BYTES,
        _temp_dir=os.environ["BENCH_FOLDER"],
    )
    grpc_options = {"port": port("grpc"), "grpc_servicer_functions": [f"{__spec__.name}.add_service"]}
    serve.start(http_options={"host": HOST, "port": port("http")}, grpc_options=grpc_options, logging_config=quiet)
    deployment = serve.deployment(
        num_replicas=REPLICAS,
        max_ongoing_requests=MAX_UNDER_WAY,
        # The share of a core that Ray sets aside, not one that it keeps to.
        ray_actor_options={"num_cpus": 0.1},
        logging_config=quiet,
    )(Model)
    serve.run_many(
        [
            serve.RunTarget(deployment.bind(model), name=name, route_prefix=f"/{name}")
            for name, model in models().items()
        ]
    )
    signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()
