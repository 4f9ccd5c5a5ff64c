"""Locust in processes of its own, because importing it patches the one that does."""

from __future__ import annotations

import json
import math
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from tritium.client import MissingExtraError

from ._errors import LoadError
from ._plan import Plan
from ._requests import Requests

# What Locust gets beyond the run itself and its last requests: its own start and end.
_GRACE_S = 60.0
# How long Locust may take to write down what it has when Ctrl-C ends it.
_LAST_WORDS_S = 10.0
# How long workers of other machines are waited for.
_REMOTE_S = 300.0
# Every request of a run.
_RESULT = "requests.npz"
_SUITES = Path(__file__).parent / "suites"
# Of each suite's locustfile the user class for a URL.
_KINDS = {"http": "Http", "https": "Http", "grpc": "Grpc", "grpcs": "Grpc"}


@dataclass(frozen=True, kw_only=True)
class Job:
    """What Locust is to do.

    Attributes:
        suite: whose locustfile it runs.
        url: the server.
        repository: whose golden cases are sent.
        plan: when.
        models: what is sent to; all if empty.
        weights: how often each model comes beside the others.
        timeout_s: that a request may take.
        retries: whether users send again what may be.
        seed: decides when the requests of open-loop stages are due.
        workers: processes that send beside one that conducts them; 0 for one process that does both.
        bind: the address at which workers of other machines find the conductor.
        port: at which.
        remote: workers that somebody else starts, perhaps on other machines, beside those.
    """

    suite: str
    url: str
    repository: Path
    plan: Plan
    models: Sequence[str] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    timeout_s: float = 30.0
    retries: bool = False
    seed: int = 0
    workers: int = 0
    bind: str = "127.0.0.1"
    port: int = 0
    remote: int = 0


def run_locust(job: Job) -> Requests:
    """Let Locust do it; every request that it sent, until the plan's end or until Ctrl-C.

    Raises:
        MissingExtraError: Locust is not installed.
        LoadError: it did not run to its end.
        KeyboardInterrupt: before the plan had begun.
    """
    # As many in each process as the one with the most needs: who sends is decided there.
    senders = max(job.workers + job.remote, 1)
    users = math.ceil(max(stage.users for stage in job.plan.stages) / senders) * senders
    command = [
        *_locust(job.suite, job.url.partition("://")[0]),
        "--headless",
        "--only-summary",
        "--host",
        job.url,
        "--exit-code-on-error",
        "0",
    ]
    command += ["--users", str(users), "--spawn-rate", str(users)]
    command += ["--repository", str(job.repository.resolve()), "--plan", job.plan.to_json(), "--seed", str(job.seed)]
    command += ["--weights", json.dumps(dict(job.weights)), "--timeout", str(job.timeout_s)]
    command += ["--retry"] if job.retries else []
    command += ["--models", *job.models] if job.models else []
    # The last requests may take their time.
    patience_s = job.plan.duration_s + job.timeout_s + _GRACE_S
    with tempfile.TemporaryDirectory(prefix="tritium-load-") as name:
        folder = Path(name)
        command += ["--result", str(folder / _RESULT)]
        if not job.workers and not job.remote:
            cut_at_s = _run([command], patience_s, folder)
        else:
            conductor = ["--master", "--master-bind-host", job.bind, "--master-bind-port", str(job.port)]
            count = str(job.workers + job.remote)
            conductor += ["--expect-workers", count, "--worker-count", count]
            conductor += ["--expect-workers-max-wait", f"{_REMOTE_S if job.remote else _GRACE_S:.0f}"]
            own = [worker_command(job.suite, job.url.partition("://")[0], _own(job.bind), job.port)] * job.workers
            waiting_s = _REMOTE_S if job.remote else 0.0
            cut_at_s = _run([command + conductor, *own], patience_s + waiting_s, folder)
        requests = Requests.load(folder / _RESULT)
    if cut_at_s is None:
        return requests
    if not 0 < requests.began_s < cut_at_s:
        raise KeyboardInterrupt
    return replace(requests, cut_s=cut_at_s - requests.began_s)


def worker_command(suite: str, scheme: str, host: str, port: int) -> list[str]:
    """What starts a worker of a run whose conductor is found there; everything else that tells it."""
    return [*_locust(suite, scheme), "--worker", "--master-host", host, "--master-port", str(port)]


def _locust(suite: str, scheme: str) -> list[str]:
    file = str(_SUITES / f"{suite}.py")
    user_class = f"{_KINDS[scheme]}{suite.capitalize()}"
    return [sys.executable, "-m", "locust", "-f", file, "--loglevel", "WARNING", user_class]


def _own(bind: str) -> str:
    """Where a process of this machine finds what listens at an address."""
    return "127.0.0.1" if bind in ("0.0.0.0", "*") else bind  # noqa: S104 — it is compared, not bound


def run_worker(suite: str, scheme: str, host: str, port: int, repository: Path) -> int:
    """Be a worker of a run that is conducted elsewhere; what Locust exits with."""
    command = [*worker_command(suite, scheme, host, port), "--repository", str(repository.resolve())]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        return process.wait()


def free_port(host: str) -> int:
    """A port of an address that nobody listens at."""
    with socket.create_server((host, 0)) as listener:
        return int(listener.getsockname()[1])


def _run(commands: Sequence[Sequence[str]], timeout_s: float, folder: Path) -> float | None:
    """Run the conductor, which comes first, and its workers, until the conductor ends; none of them outlives this.

    Returns:
        When Ctrl-C ended them, in seconds of Unix time; None if they ended by themselves.
    """
    logs = [folder / f"locust-{number}.log" for number in range(len(commands))]
    processes: list[subprocess.Popen[bytes]] = []
    deadline = time.monotonic() + timeout_s
    cut_at_s = None
    try:
        for command, log in zip(commands, logs, strict=True):
            with log.open("wb") as output:
                processes.append(
                    subprocess.Popen(
                        command,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        stdin=subprocess.DEVNULL,
                        # Ctrl-C is for this process, which then tells them in turn.
                        process_group=0,
                    )
                )
        try:
            for process in processes:  # workers end when their conductor has told them to
                process.wait(max(deadline - time.monotonic(), 0.0))
        except KeyboardInterrupt:
            cut_at_s = time.time()
            # The conductor's workers are told by it.
            processes[0].send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                processes[0].wait(_LAST_WORDS_S)
            if not (folder / _RESULT).exists():
                raise
    except subprocess.TimeoutExpired as exc:
        raise LoadError(f"Locust was still running {timeout_s:g} s after its start:\n{_last_words(logs)}") from exc
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            process.wait()
    words = _last_words(logs)
    if "No module named locust" in words:
        raise MissingExtraError("locust", "loadtest")
    if cut_at_s is None and (processes[0].returncode or not (folder / _RESULT).exists()):
        raise LoadError(f"Locust ended with exit code {processes[0].returncode}:\n{words}")
    return cut_at_s


def _last_words(logs: Sequence[Path]) -> str:
    texts = [log.read_text(encoding="utf-8", errors="replace").strip() for log in logs if log.exists()]
    return "\n".join(text[-2000:] for text in texts if text)
