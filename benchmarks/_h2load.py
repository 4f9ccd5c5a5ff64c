"""gRPC servers that h2load loads with one ready-made request: nghttp2's load generator, in C as wrk is."""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path

import grpc
import numpy as np
from benchmarks._shared import BenchError
from benchmarks._wrk import HOST, Side

# Before each message: whether it is compressed, and its length.
_PREFIX = struct.Struct(">BI")
TIMEOUT_S = 30.0


def framed(message: bytes) -> bytes:
    """A message as it goes over the wire."""
    return _PREFIX.pack(0, len(message)) + message


def ask_grpc(side: Side, model: str) -> bytes:
    """The answer to the very request that h2load sends."""
    call = side.calls[model]
    message = call.body.read_bytes()[_PREFIX.size :]
    with grpc.insecure_channel(f"{HOST}:{side.port}") as channel:
        infer = channel.unary_unary(call.path)
        try:
            answer: bytes = infer(message, timeout=TIMEOUT_S, metadata=tuple(call.headers.items()))
        except grpc.RpcError as exc:
            raise BenchError(f"{side.name} answers {model} with {exc}") from exc
    return answer


def h2load(
    side: Side, model: str, connections: int, duration_s: int, *, answer_bytes: int, folder: Path
) -> dict[str, int]:
    """Load one side, with one request at a time on each connection; the figures of wrk.lua.

    A call that failed has a response of status 200 too, but no message: so errors are told by the bytes that came, of
    which each good answer has `answer_bytes`. What each request took is written into the folder, and read there.
    """
    call, log = side.calls[model], folder / "h2load.log"
    log.unlink(missing_ok=True)
    headers = {"content-type": "application/grpc", "te": "trailers", **call.headers}
    command = ["h2load", "-t1", f"-c{connections}", "-m1", f"-D{duration_s}", f"--log-file={log}", f"-d{call.body}"]
    command += [argument for name, value in headers.items() for argument in ("-H", f"{name}: {value}")]
    command.append(f"http://{HOST}:{side.port}{call.path}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=duration_s + 60)
    data = re.search(r"\((\d+)\) data$", done.stdout, re.MULTILINE)
    lost = re.search(r"(\d+) errored, (\d+) timeout$", done.stdout, re.MULTILINE)
    if done.returncode or data is None or lost is None:
        raise BenchError(f"h2load ended with exit code {done.returncode}: {done.stderr or done.stdout}")
    lines = log.read_text().splitlines()
    rows = np.array([line.split() for line in lines], np.int64).reshape(-1, 3)
    begun_us, _, took_us = rows.T
    good = min(int(data[1]) // answer_bytes, len(rows))
    p50_us, p99_us = np.percentile(took_us, (50, 99)) if len(rows) else (0, 0)
    return {
        "requests": good,
        "duration_us": int((begun_us + took_us).max() - begun_us.min()) if len(rows) else duration_s * 1_000_000,
        "p50_us": int(p50_us),
        "p99_us": int(p99_us),
        "errors": len(rows) - good + int(lost[1]) + int(lost[2]),
    }
