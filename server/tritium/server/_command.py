"""The command line that Triton is started with."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tritium.repository import Repository, cache_dir

from ._access import ADMIN_HEADER
from ._backends import PYTHON_BASED, backend_directory
from ._errors import StartError
from ._flags import Features
from ._native import NativeBackend
from ._runtime import Runtime

_SHELL_SAFE = re.compile(r"[\w/.+-]+", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class CommandLine:
    """What of a server's command line stays the same whenever Triton is started.

    Attributes:
        repository: what is served.
        address: the interface that every port is opened on.
        closed_groups: what takes the secret, as Triton calls it.
        secret: what administering the server takes.
        shutdown_timeout_s: seconds that requests under way, and then the models, get to finish.
        shm_prefix: what the names of its shared memory begin with.
        features: what it is asked for beyond its models.
    """

    repository: Repository
    address: str
    closed_groups: Sequence[str]
    secret: str = field(repr=False)
    shutdown_timeout_s: float
    shm_prefix: str
    features: Features

    def command(
        self,
        runtime: Runtime,
        onnx: NativeBackend,
        *,
        ports: Mapping[str, int],
        there: Sequence[str],
        models: Sequence[str],
    ) -> list[str]:
        """The program and its arguments.

        Args:
            runtime: where Triton lies.
            onnx: what runs ONNX models.
            ports: for ``http``, ``grpc`` and ``metrics``.
            there: the models that may be loaded sooner or later.
            models: those that are loaded at once.

        Raises:
            StartError: Triton cannot start a process of a Python-based model from where the cache lies.
        """
        complete = all(self.repository.has_complete_config(model) for model in there)
        backends = backend_directory(runtime, onnx.library if onnx.kind == "native" else None)
        if not _SHELL_SAFE.fullmatch(str(backends)) and not self._all_run_within(onnx, there):
            raise StartError(
                "Triton starts Python-based backends by a shell line without quotes, so the cache's path must have "
                f"letters, digits and /.+-_ only, got {cache_dir()} instead. Name another folder in TRITIUM_CACHE_DIR"
            )
        flags = {
            "model-repository": self.repository.path,
            "model-control-mode": "explicit",
            "backend-directory": backends,
            "cache-directory": runtime.caches,
            "exit-timeout-secs": max(1, math.ceil(self.shutdown_timeout_s)),
            # Its end waits for half of this; the default is two seconds.
            "metrics-interval-ms": 500,
            "allow-sagemaker": "false",
            "allow-vertex-ai": "false",
        }
        for kind, port in ports.items():
            flags |= {f"{kind}-address": self.address, f"{kind}-port": port}
        if self.closed_groups:
            closed = f"{','.join(self.closed_groups)}:{ADMIN_HEADER}={self.secret}"
            flags |= dict.fromkeys(("http-restricted-api", "grpc-restricted-protocol"), closed)
        command = [str(runtime.binary), *(f"--{name}={value}" for name, value in flags.items())]
        command += [f"--load-model={model}" for model in models]
        # To complete a config the model is read once more, by a process of its own where the backend is Python-based.
        command += ["--disable-auto-complete-config"] if complete else []
        # The prefix lets us remove what is ours, and only that, after a crash.
        settings = dict.fromkeys(("python", *PYTHON_BASED), f"shm-region-prefix-name={self.shm_prefix}")
        if onnx.kind == "native":
            settings["onnxruntime"] = f"ort-library={onnx.ort_library}"
        command += [f"--backend-config={name},{setting}" for name, setting in settings.items()]
        return command + self.features.flags()

    def _all_run_within(self, onnx: NativeBackend, models: Sequence[str]) -> bool:
        """Whether every config says that its model needs no process of its own."""
        within = {"onnxruntime", "ensemble"} if onnx.kind == "native" else {"ensemble"}
        return all(
            self.repository.has_complete_config(model)
            and (config := self.repository.config(model)).backend + config.platform in within
            for model in models
        )
