"""What no server can pass: the load generators' own ceiling, and ONNX Runtime in process on the same cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks._h2load import framed, h2load
from benchmarks._shared import BenchError, Model, free_port
from benchmarks._wrk import HOST, Side, ask, wrk
from benchmarks.peers import _calls
from benchmarks.peers._running import ROOT, process

# HAProxy answers a request itself, as soon as it has it whole, with the bytes of a file.
_HAPROXY = """\
global
  nbthread 1
defaults
  mode http
  timeout connect 10s
  timeout client 60s
  timeout server 60s
{frontends}"""
_FRONTEND = """\
frontend {protocol}
  bind {host}:{port} {options}
  http-request wait-for-body time 10s
  http-request return status 200 content-type application/octet-stream file {answer}
"""


def ceilings(
    haproxy: Path, model: Model, levels: Sequence[int], duration_s: int, folder: Path
) -> dict[str, dict[str, float]]:
    """Requests a second of wrk and of h2load, by what is in flight, for a server that does nothing."""
    folder.mkdir(parents=True)
    answers = {"http": model.expected.tobytes(), "grpc": framed(model.expected.tobytes())}
    ports = {protocol: free_port() for protocol in answers}
    frontends = ""
    for protocol, answer in answers.items():
        file = folder / f"answer.{protocol}"
        file.write_bytes(answer)
        options = "proto h2" if protocol == "grpc" else ""
        frontends += _FRONTEND.format(protocol=protocol, host=HOST, port=ports[protocol], options=options, answer=file)
    config = folder / "haproxy.cfg"
    config.write_text(_HAPROXY.format(frontends=frontends))
    http = Side("HAProxy", ports["http"], {model.name: _calls.raw(model, folder)})
    grpc = Side("HAProxy", ports["grpc"], {model.name: _calls.ray_grpc(model, folder)})
    with process([str(haproxy), "-db", "-f", str(config)], os.environ, folder) as (popen, log):
        while not _answers(http, model):
            if popen.poll() is not None:
                raise BenchError(f"HAProxy does not start:\n{log.read_text()}")
            time.sleep(0.02)
        found: dict[str, dict[str, float]] = {"http": {}, "grpc": {}}
        for level in levels:
            found["http"][str(level)] = _rate(wrk(http, model.name, level, duration_s, strict=False))
            answer_bytes = len(answers["grpc"])
            loaded = h2load(grpc, model.name, level, duration_s, answer_bytes=answer_bytes, folder=folder)
            found["grpc"][str(level)] = _rate(loaded)
    return found


def in_process(models: Sequence[Model], duration_s: int) -> dict[str, dict[str, float]]:
    """Rows a second of ONNX Runtime, by the model and the batch size: a process with one thread for each core.

    Measured by a process of its own: what it leaves is no server's.
    """
    job = [{"name": model.name, "file": str(model.file), "shape": model.row.shape} for model in models]
    command = [sys.executable, "-m", "benchmarks.peers._in_process", json.dumps(job), str(duration_s)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return found


def _answers(side: Side, model: Model) -> bool:
    try:
        model.check(ask(side, model.name), side.name)
    except BenchError:
        return False
    return True


def _rate(found: dict[str, int]) -> float:
    return found["requests"] / found["duration_us"] * 1e6
