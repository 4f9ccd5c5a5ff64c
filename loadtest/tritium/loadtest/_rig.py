"""What the tuner measures with: a server of its own over copies of one model, and a process that loads it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

from tritonclient.grpc.model_config_pb2 import ModelConfig

from tritium.repository import Repository, Verdict, config_text, served_versions, verify_server
from tritium.repository.lint import Finding, Severity, lint
from tritium.server import TritonServer

from ._errors import LoadError
from ._figures import Figures
from ._sender import Block
from ._space import Knobs, configured

_TIMEOUT_S = 10.0
# Of a block, before anything counts; and after a load, whose first runs are slower.
_SETTLE_SHARE = 0.2
_WARM_UP_S = 0.4


@dataclass(frozen=True)
class Sample:
    """What a block came to.

    Attributes:
        figures: the latencies and rates.
        errors: how often each came.
    """

    figures: Figures
    errors: Mapping[str, int]


class Rig:
    """Two copies of a model in a server of their own: one that stays as it is, and one that every choice is tried on.

    The load comes from one process that lives as long as the rig and runs Tritium's own asynchronous client. Locust
    would take a start of three seconds for each measurement, in which nothing is measured; and in the tuner's own
    process, the two would take turns at one interpreter. What the client costs is in all figures alike, so the
    differences that are found are those that callers on the same machine would see.

    A machine is not equally fast for minutes on end. Both copies are in memory all the time, so the one that stays can
    be measured right before the other, and what counts is the ratio; the idle one costs nothing but memory.

    Each choice is written to the copy's `config.pbtxt` and loaded from there, the way it would be in production. The
    repository itself is only read.

    Args:
        repository: where the model is.
        model: its name.
        users: requests under way at once.
        onnx_backend: see :class:`TritonServer`.

    Raises:
        TritiumError: there is no such model, or it has no golden cases, or does not load as it is.
    """

    def __init__(self, repository: Repository, model: str, *, users: int, onnx_backend: str = "auto") -> None:
        self.model = model
        self.config = repository.config(model)
        self.block_s = 0.5
        self._users = users
        self._onnx_backend = onnx_backend
        self._source = repository
        # It is in errors, in the server's log and nowhere else.
        self._still = f"{model[:59]}.now"
        self._fresh = {model: True, self._still: True}
        self._blocks = 0
        self._stack = ExitStack()

    def __enter__(self) -> Rig:
        """Copy the model, start the server and the process that loads it."""
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop both; nothing is left."""
        self._stack.close()

    def _start(self) -> None:
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="tritium-tune-")))
        self._copy = Repository(folder / "models", create=True)
        _copy_model(self._source, self.model, self._copy.path / self.model)
        # Only its config will be another file.
        shutil.copytree(self._copy.path / self.model, self._copy.path / self._still, copy_function=os.link)
        still = ModelConfig()
        still.CopyFrom(self.config)
        still.name = self._still
        self._write(self._still, still)
        self._running = self._stack.enter_context(ExitStack())
        self._serve()

    def _serve(self) -> None:
        """Start the server, and the process that loads it; in the place of those before, if there are any."""
        self._running.close()
        self._fresh = dict.fromkeys(self._fresh, True)
        self._server = self._running.enter_context(TritonServer(self._copy.path, onnx_backend=self._onnx_backend))
        self._sender = self._running.enter_context(_Process(self._server.http_url, self._copy.path))

    @property
    def backend(self) -> str:
        """What runs the model, as in ``onnxruntime (native)``."""
        kind = f" ({self._server.onnx_backend})" if self.config.backend == "onnxruntime" else ""
        return f"{self.config.backend or self.config.platform}{kind}"

    def load(self, knobs: Knobs) -> None:
        """Try another choice from now on. A server that has died, perhaps of the one before, is started again.

        Raises:
            TritiumError: Triton does not load it; it has the reason.
        """
        self._write(self.model, configured(self.config, knobs))
        if self._server.is_running:
            self._server.load(self.model)
        else:
            self._serve()
        self._fresh[self.model] = True

    def block(self, *, still: bool = False) -> Sample:
        """Load the choice for :attr:`block_s` seconds, or the copy that stays as it is.

        Raises:
            TritiumError: nothing could be sent.
        """
        model = self._still if still else self.model
        settle_s = self.block_s * _SETTLE_SHARE + (_WARM_UP_S if self._fresh[model] else 0.0)
        self._blocks += 1
        asked = Block(
            model=model,
            users=self._users,
            settle_s=settle_s,
            block_s=self.block_s,
            timeout_s=_TIMEOUT_S,
            fresh=self._fresh[model],
            seed=self._blocks * self._users,
        )
        found = self._sender.ask(asked)
        self._fresh[model] = False
        return found

    def verify(self) -> list[Verdict]:
        """Send the golden cases to the choice, in batches as large as it allows."""
        # A client of before knows another largest batch.
        with self._server.client(timeout_s=_TIMEOUT_S) as client:
            return list(verify_server(client, self._copy, [self.model]))

    def findings(self) -> list[Finding]:
        """What lint says of the choice, that it does not say of the model as it is."""
        serious = [finding for finding in lint(self._copy) if finding.severity != Severity.NOTE]
        own = {
            (finding.code, finding.message.replace(self._still, self.model))
            for finding in serious
            if self._still in finding.place.parts
        }
        return [
            finding
            for finding in serious
            if self._still not in finding.place.parts and (finding.code, finding.message) not in own
        ]

    def _write(self, model: str, config: ModelConfig) -> None:
        path = self._copy.path / model / "config.pbtxt"
        # A new file, because the copies share theirs.
        path.unlink(missing_ok=True)
        path.write_text(config_text(config), encoding="utf-8")


class _Process:
    """The process that sends."""

    def __init__(self, url: str, repository: Path) -> None:
        self._job = {"url": url, "repository": str(repository)}

    def __enter__(self) -> _Process:
        # A session of its own: Ctrl-C is for the tuner, which ends this one in its turn.
        self._log: IO[bytes] = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tritium.loadtest._sender"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
            text=True,
        )
        self._orders, self._answers = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        self._tell(self._job)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def ask(self, block: Block) -> Sample:
        self._tell(asdict(block))
        line = self._answers.readline()
        if not line:
            raise LoadError(f"The process that sends has ended:\n{self._last_words()}")
        document = json.loads(line)
        if "error" in document:
            raise LoadError(document["error"])
        return Sample(Figures(**document["figures"]), document["errors"])

    def _tell(self, document: Mapping[str, Any]) -> None:
        try:
            self._orders.write(f"{json.dumps(document)}\n")
            self._orders.flush()
        except BrokenPipeError as exc:
            raise LoadError(f"The process that sends has ended:\n{self._last_words()}") from exc

    def _last_words(self) -> str:
        self._process.wait()
        self._log.seek(0)
        return self._log.read()[-2000:].decode(errors="replace").strip()


def _copy_model(repository: Repository, model: str, target: Path) -> None:
    """What the server serves of a model: its files, and the versions that its policy names."""
    folder = repository.model_folder(model)
    served = {str(version) for version in served_versions(repository, model)}
    unserved = {str(version) for version in repository.versions(model)} - served

    def left_out(path: str, names: list[str]) -> set[str]:
        return {name for name in names if name.startswith(".") or name in unserved} if Path(path) == folder else set()

    shutil.copytree(folder, target, ignore=left_out)
