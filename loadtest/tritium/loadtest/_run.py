"""Running a suite: Locust in a process of its own, because importing it patches the one that does."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tritium.client import Client, InputError, MissingExtraError
from tritium.repository import Repository, has_manifest, load_golden

from ._errors import LoadError
from ._result import LoadResult

# The user class for each kind of URL, by suite.
SUITES = {"smoke": {"http": "HttpSmoke", "https": "HttpSmoke", "grpc": "GrpcSmoke", "grpcs": "GrpcSmoke"}}
# What Locust gets beyond the run itself: its own start, and the last requests.
_GRACE_S = 60.0


def run_suite(
    suite: str,
    *,
    url: str,
    repository: str | Path | Repository,
    models: Sequence[str] = (),
    users: int = 16,
    duration_s: float = 10.0,
) -> LoadResult:
    """Run a suite against a server.

    Args:
        suite: one of SUITES.
        url: the server; the scheme chooses HTTP or gRPC.
        repository: the model repository whose versions the server runs; the golden cases are read from it.
        models: whose golden cases to send; all by default.
        users: how many requests are under way at once (a closed loop: each user waits for its answer).
        duration_s: seconds to send for; Locust counts whole ones, so this is rounded, and at least 1.

    Raises:
        InputError: the suite, the URL or a number cannot be used.
        LoadError: Locust did not run to its end.
    """
    if suite not in SUITES:
        raise InputError(f"There is no suite {suite!r}; there are {', '.join(SUITES)}")
    scheme = url.partition("://")[0]
    if scheme not in SUITES[suite]:
        raise InputError(f"The 'url' parameter must start with {'://, '.join(SUITES[suite])}://, got {url!r} instead")
    Client(url).close()  # it refuses what is no address
    if users < 1 or not 0 < duration_s < math.inf:
        raise InputError(f"A run needs 1 user or more and more than 0 s, got {users} and {duration_s:g}")
    source = repository if isinstance(repository, Repository) else Repository(repository)
    # What is missing is said here, and not by a traceback of Locust's.
    if not source.models():
        raise InputError(f"There are no models in {source.path}")
    for model in models or [name for name in source.models() if has_manifest(source, name)]:
        config = source.config(model)
        load_golden(source.version_folder(model), config)
    with tempfile.TemporaryDirectory(prefix="tritium-load-") as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-m", "locust", "-f", str(Path(__file__).parent / "suites" / f"{suite}.py")]
        command += ["--headless", "--only-summary", "--loglevel", "WARNING", "--host", url, "--users", str(users)]
        command += ["--spawn-rate", str(users), "--run-time", f"{max(1, round(duration_s))}s"]
        command += ["--repository", str(source.path), "--result", str(result), SUITES[suite][scheme]]
        command += ["--models", *models] if models else []
        _run_locust(command, duration_s + _GRACE_S, folder)
        return LoadResult.load(result)


def _run_locust(command: Sequence[str], timeout_s: float, folder: str) -> None:
    log = Path(folder) / "locust.log"
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired as exc:
            raise LoadError(f"Locust was still running {timeout_s:g} s after its start") from exc
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
    text = log.read_text(encoding="utf-8")
    if "No module named locust" in text:
        raise MissingExtraError("locust", "loadtest")
    # 1 says that requests failed, and the result says which.
    if process.returncode not in (0, 1) or not (Path(folder) / "result.json").exists():
        raise LoadError(f"Locust ended with exit code {process.returncode}:\n{text[-2000:].strip()}")
