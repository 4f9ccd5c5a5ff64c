"""Everything that is asked of a server beside inference: where HTTP and gRPC take it, and how they answer.

A query says both; a transport uses its half. Answers are plain JSON types in either.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ._errors import InputError
from ._request import model_path


def _as_it_is(answer: Any) -> Any:
    return answer


@dataclass(frozen=True, slots=True)
class Query:
    """One question or command.

    Attributes:
        method: of HTTP.
        path: of HTTP, after the server's own.
        body: what is posted as JSON.
        rpc: of gRPC; the message is the one that is called so, with ``Request`` behind it.
        fields: of that message.
        from_rpc: what of its answer, as JSON, HTTP answers.
        model: which model it is about, for errors.
        repeatable: whether asking twice does no harm.
        yes_or_no: whether the status alone is the answer: 2xx or not.
    """

    method: str
    path: str
    rpc: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    from_rpc: Callable[[Any], Any] = _as_it_is
    model: str | None = None
    repeatable: bool = True
    yes_or_no: bool = False
    # There is no place for an id in these.
    request_id: ClassVar[str] = ""

    @property
    def operation(self) -> str:
        """What those who watch are told."""
        return self.rpc

    @property
    def version(self) -> str:
        """The version that is asked for; empty if none is."""
        version: str = self.fields.get("version", "")
        return version


def checked_model(name: str, version: str | int | None) -> tuple[str, str]:
    """A model's name and version, as they go into paths and messages.

    Raises:
        InputError: they cannot be those of a model.
    """
    if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or not name.isprintable():
        raise InputError(f"The 'name' parameter of model must be the name of a model, got {name!r} instead")
    if version is None:
        return name, ""
    if isinstance(version, bool) or not re.fullmatch(r"[0-9]+|[A-Za-z][\w.-]{0,63}", str(version), re.ASCII):
        raise InputError(f"The 'version' parameter of model must be a version such as 3, got {version!r} instead")
    return name, str(version)


def readiness(model: str | None) -> Query:
    """What asks whether the server, or a model on it, is ready."""
    return server_ready() if model is None else model_ready(*checked_model(model, None))


def server_ready() -> Query:
    """Whether the server is ready."""
    return Query("GET", "/v2/health/ready", "ServerReady", from_rpc=_ready, yes_or_no=True)


def model_ready(name: str, version: str = "") -> Query:
    """Whether a model is."""
    path = f"{model_path(name, version)}/ready"
    fields = {"name": name, "version": version}
    return Query("GET", path, "ModelReady", fields, from_rpc=_ready, model=name, yes_or_no=True)


def server_metadata() -> Query:
    """The server's name, version and extensions."""
    return Query("GET", "/v2", "ServerMetadata")


def model_metadata(name: str, version: str) -> Query:
    """A model's versions, inputs and outputs."""
    return Query("GET", model_path(name, version), "ModelMetadata", {"name": name, "version": version}, model=name)


def model_config(name: str, version: str) -> Query:
    """A model's configuration in use; an extension of Triton."""
    path, fields = f"{model_path(name, version)}/config", {"name": name, "version": version}
    return Query("GET", path, "ModelConfig", fields, from_rpc=lambda answer: answer.get("config", {}), model=name)


def statistics(name: str = "", version: str = "") -> Query:
    """Triton's counters, of a model or of all."""
    path = f"{model_path(name, version)}/stats" if name else "/v2/models/stats"
    return Query("GET", path, "ModelStatistics", {"name": name, "version": version}, model=name or None)


def repository_index() -> Query:
    """Every model of the server's repository with its state."""
    answer: Callable[[Any], Any] = lambda answer: answer.get("models", [])  # noqa: E731 — reads as the others do
    return Query("POST", "/v2/repository/index", "RepositoryIndex", body={}, from_rpc=answer)


def load(name: str, config: Mapping[str, Any] | None) -> Query:
    """Load a model, or load it again; with a config of its own instead of the folder's, if there is one."""
    path = f"/v2/repository{model_path(name)[3:]}/load"
    message: dict[str, Any] = {"model_name": name}
    body: dict[str, Any] = {}
    if config is not None:
        text = json.dumps(config)
        message["parameters"] = {"config": {"string_param": text}}
        body["parameters"] = {"config": text}
    return Query("POST", path, "RepositoryModelLoad", message, body=body, model=name, repeatable=False)


def unload(name: str) -> Query:
    """Take a model out of service."""
    path = f"/v2/repository{model_path(name)[3:]}/unload"
    return Query("POST", path, "RepositoryModelUnload", {"model_name": name}, body={}, model=name, repeatable=False)


def register_shared_memory(name: str, key: str, size_bytes: int) -> Query:
    """Let the server map a region of shared memory."""
    return Query(
        "POST",
        f"/v2/systemsharedmemory/region/{name}/register",
        "SystemSharedMemoryRegister",
        {"name": name, "key": key, "offset": 0, "byte_size": size_bytes},
        body={"key": key, "offset": 0, "byte_size": size_bytes},
        repeatable=False,
    )


def unregister_shared_memory(name: str) -> Query:
    """Let the server unmap it. Doing so twice is as doing it once."""
    path = f"/v2/systemsharedmemory/region/{name}/unregister"
    return Query("POST", path, "SystemSharedMemoryUnregister", {"name": name}, body={})


def _ready(answer: Any) -> bool:
    return bool(answer.get("ready"))
