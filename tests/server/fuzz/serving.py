"""A Triton with the instrumented backend, and the asking of it."""

from __future__ import annotations

import http.client
import json
import mmap
import os
import re
import secrets
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import grpc

from tritium.client import ServerError, TritiumError
from tritium.repository import config_text
from tritium.server import ADMIN_GROUPS, TritonServer

from .hostile import good, make
from .models import Subject
from .pairs import Pair
from .pairs import make as make_pair
from .request import FuzzError, Request
from .wire import PATIENCE_S, REGION, SHELF_BYTES, GrpcWorker, HttpWorker, Shelf, Worker

WORKERS = 16
_FAILURES_SHOWN = 20
_COUNTED = ("requests", "runs", "errors")
_COUNTER = re.compile(
    r'"(?P<model>\w+)_\d+_\d+ answered (?P<requests>\d+) requests in (?P<runs>\d+) runs; (?P<errors>\d+) got'
)


class FuzzServer(TritonServer):
    """A server whose backends are those of a folder of ours, in an environment that has more in it.

    Args:
        repository: as `TritonServer`.
        backends: the backend directory; by default, what belongs to Tritium.
        variables: more of the environment.
    """

    def __init__(
        self, repository: Path, *, backends: Path | None = None, variables: Mapping[str, str] | None = None
    ) -> None:
        # An error of Triton's that names a file leaves the C library's locale locked under the sanitizers, and then it
        # never gets through its exit; what was asked for has been counted by then.
        super().__init__(repository, onnx_backend="native", open_groups=ADMIN_GROUPS, shutdown_timeout_s=1.0)
        self._backends = backends
        self._variables = dict(variables or {})

    def __enter__(self) -> FuzzServer:
        """Start it."""
        super().__enter__()
        return self

    def _command(self, *arguments: Any) -> list[str]:
        command = super()._command(*arguments)
        if self._backends is not None:
            # Of two such flags Triton takes the last.
            command.append(f"--backend-directory={self._backends}")
        # TritonServer gives Triton few variables, and that is right: these go in behind it.
        assigned = [f"{name}={value}" for name, value in self._variables.items()]
        return [str(shutil.which("env")), *assigned, *command] if assigned else command

    def whole_log(self) -> str:
        """What there is of Triton's log."""
        files = sorted(self.folder.glob(f"{self.log.name}*"), reverse=True)
        return "".join(file.read_text(encoding="utf-8", errors="replace") for file in files)

    @property
    def alive(self) -> bool:
        """Whether the process that was started still runs."""
        return self.wait(0.0) is None


def repository(folder: Path, subjects: Sequence[Subject]) -> Path:
    """A model repository of the subjects, made in the folder; one more model leaves its config to the backend."""
    path = folder / "models"
    for subject in subjects:
        _write(path / subject.name, subject.file, config_text(subject.config))
    _write(path / "bare", subjects[0].file, None)
    return path


def _write(folder: Path, file: bytes, config: str | None) -> None:
    (folder / "1").mkdir(parents=True)
    (folder / "1/model.onnx").write_bytes(file)
    if config is not None:
        (folder / "config.pbtxt").write_text(config, encoding="utf-8")


class Asking:
    """Asks requests by number, several at a time.

    Attributes:
        asked: how many of each kind.
        answered: how many of each kind got an answer that was no error, and was not wrong.
        failures: what the server did that it must not do.
    """

    def __init__(self, server: FuzzServer, subjects: Sequence[Subject], seed: int) -> None:
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.failures: list[str] = []
        self._server = server
        self._subjects = subjects
        self._seed = seed

    def ask(self, numbers: Sequence[int]) -> None:
        """Ask the requests of these numbers. It ends early if the server does, or does too much wrong."""
        rest = iter(numbers)
        lock = threading.Lock()
        if not self._server.alive:
            return

        def work(shelf: Shelf, torn: Shelf) -> None:
            with (
                closing(HttpWorker(self._server.http_url.removeprefix("http://"))) as http,
                grpc.insecure_channel(self._server.grpc_url.removeprefix("grpc://")) as channel,
            ):
                workers: dict[str, Worker] = {"http": http, "grpc": GrpcWorker(channel)}
                while len(self.failures) < _FAILURES_SHOWN and self._server.alive:
                    with lock:
                        number = next(rest, None)
                    if number is None:
                        break
                    request = make(number, self._seed, self._subjects)
                    self._one(request, workers[request.protocol], torn if request.torn else shelf, lock)

        with _shared_memory(self._server) as shelves, ThreadPoolExecutor(WORKERS) as pool:
            torn = shelves[-1]
            with _scribbling(torn):
                for future in [pool.submit(work, shelf, torn) for shelf in shelves[:-1]]:
                    future.result()

    def _one(self, request: Request, worker: Worker, shelf: Shelf, lock: threading.Lock) -> None:
        failure, answer = None, None
        try:
            answer = worker.ask(request, shelf)
            request.check(answer)
        except FuzzError as exc:
            failure = str(exc)
        with lock:
            self.asked[request.kind] += 1
            if failure is not None:
                self.failures.append(failure)
            elif isinstance(answer, list):
                self.answered[request.kind] += 1


class Loading:
    """Loads pairs of a model and a config by number, one at a time, and asks each that loads once.

    Attributes:
        loaded: those that did.
        refused: those that did not, and said why.
        failures: as in `Asking`.
    """

    def __init__(self, server: FuzzServer, subjects: Sequence[Subject], seed: int) -> None:
        self.loaded: list[Pair] = []
        self.refused: list[Pair] = []
        self.failures: list[str] = []
        self._server = server
        self._subjects = subjects
        self._seed = seed
        self._shelf = Shelf(mmap.mmap(-1, SHELF_BYTES), 0)

    def load(self, numbers: Sequence[int]) -> None:
        """Load the pairs of these numbers; each is taken out again."""
        with grpc.insecure_channel(self._server.grpc_url.removeprefix("grpc://")) as channel:
            worker = GrpcWorker(channel)
            for number in numbers:
                if len(self.failures) >= _FAILURES_SHOWN or not self._server.alive:
                    break
                pair = make_pair(number, self._seed, self._subjects)
                folder = pair.write(self._server.repository.path)
                try:
                    self._one(pair, worker)
                except FuzzError as exc:
                    self.failures.append(str(exc))
                finally:
                    shutil.rmtree(folder)

    def _one(self, pair: Pair, worker: GrpcWorker) -> None:
        try:
            with self._server.client(protocol="grpc") as client:
                client.load(pair.name, timeout_s=PATIENCE_S)
        except ServerError as exc:
            self.refused.append(pair)
            if pair.good or not str(exc).strip():
                raise FuzzError(f"{pair} did not load: {exc!r}") from exc
            return
        except TritiumError as exc:
            raise FuzzError(f"{pair} got no answer: {exc!r}") from exc
        self.loaded.append(pair)
        request = good(pair.number, Random(pair.number), replace(pair.subject, name=pair.name), 3)
        request.protocol, request.shared = "grpc", False
        request.free = not pair.good
        request.check(worker.ask(request, self._shelf))
        self._server.unload(pair.name)


def reached(server: FuzzServer, subjects: Sequence[Subject]) -> Counter[str]:
    """Unload the models; how many ``requests``, ``runs`` and ``errors`` their instances had, by their own count.

    Raises:
        FuzzError: some instance says nothing.
    """
    instances = sum(group.count for subject in subjects for group in subject.config.instance_group)
    names = {subject.name for subject in subjects}
    for name in names:
        server.unload(name)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        counts = [match for match in _COUNTER.finditer(server.whole_log()) if match["model"] in names]
        if len(counts) == instances:
            return sum((Counter({key: int(match[key]) for key in _COUNTED}) for match in counts), Counter())
        time.sleep(0.1)
    raise FuzzError(f"{len(counts)} of {instances} instances have said how many requests they had")


@contextmanager
def _shared_memory(server: FuzzServer) -> Iterator[list[Shelf]]:
    """Shared memory that the server knows of: a shelf for each worker, and one more."""
    size = (WORKERS + 1) * SHELF_BYTES
    # The name by which the tests find what is left behind.
    path = Path(f"/dev/shm/tritium-{os.getpid()}-{secrets.token_hex(4)}")
    url = f"/v2/systemsharedmemory/region/{REGION}"
    connection = http.client.HTTPConnection(server.http_url.removeprefix("http://"), timeout=PATIENCE_S)
    path.write_bytes(bytes(size))
    try:
        with path.open("r+b") as file, mmap.mmap(file.fileno(), size) as memory:
            _post(connection, f"{url}/register", {"key": f"/{path.name}", "offset": 0, "byte_size": size})
            yield [Shelf(memory, worker * SHELF_BYTES) for worker in range(WORKERS + 1)]
            if server.alive:
                _unregister(connection, f"{url}/unregister")
    finally:
        connection.close()
        path.unlink()


def _unregister(connection: http.client.HTTPConnection, url: str) -> None:
    """Take the region back. A request lets go of it a little after it is answered; one that never does is a bug."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return _post(connection, url, {})
        except FuzzError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _post(connection: http.client.HTTPConnection, url: str, body: Mapping[str, Any]) -> None:
    connection.request("POST", url, json.dumps(body))
    response = connection.getresponse()
    if response.status != 200:
        raise FuzzError(f"Triton refuses {url}: {response.read()!r}")
    response.read()


@contextmanager
def _scribbling(shelf: Shelf) -> Iterator[None]:
    """Change the highest byte of the first length on the shelf, there and back, faster than anybody can look."""
    done = threading.Event()

    def scribble() -> None:
        while not done.wait(0.002):
            for _ in range(200):
                shelf.tear()

    thread = threading.Thread(target=scribble)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
