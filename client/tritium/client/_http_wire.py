"""The V2 protocol over HTTP/1.1: requests as the buffers that a socket takes, responses as answers. Pure.

Source: the Open Inference Protocol (KServe's V2) and Triton's extensions of it for binary tensors, classification,
schedule policy, sequences and shared memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from . import _answers as answers
from ._encoding import NONSENSE, Data, from_binary, from_json_list
from ._endpoint import Endpoint
from ._errors import ServerError
from ._http_reader import ResponseReader
from ._queries import Query
from ._request import KEPT_ANSWERS, InferAnswer, InferRequest, Parameter, queue_timeout_us
from ._tensors import Array
from ._trace import trace_context

# What a server that lies about its errors may say in an error message of ours.
_LONGEST_MESSAGE = 2_000
_KINDS = {True: "application/octet-stream", False: "application/json"}


class _Known(NamedTuple):
    """What an answer holds whose JSON is known: name, dtype, shape and bytes of each tensor, one after the other."""

    version: str
    shapes: dict[str, tuple[int, ...]]
    tensors: list[tuple[str, np.dtype[Any], tuple[int, ...], int]]
    size_bytes: int


class HttpWire:
    """How one server is spoken to.

    Args:
        endpoint: where it is.
        headers: sent with every request.
    """

    def __init__(self, endpoint: Endpoint, headers: Mapping[str, str]) -> None:
        self._endpoint = endpoint
        lines = {"Host": endpoint.address, **headers}
        self._fixed = "".join(f"{name}: {value}\r\n" for name, value in lines.items())

    def __repr__(self) -> str:
        """Headers may be secrets and are left out."""
        return f"HttpWire({str(self._endpoint)!r})"

    def inference(self, request: InferRequest, left_s: float) -> list[Data]:
        """A request to run a model: the head with the JSON, then each tensor's own bytes."""
        layout, request_id = request.layout, request.request_id
        said = f'{{"id":{_quoted(request_id)},{_parameters(request, left_s)},'
        header = f"{said}{layout.binary_json if request.binary else layout.plain_json(request.arrays)}".encode()
        length = len(header)
        extra = f"X-Request-ID: {request_id}\r\n" if request_id.isascii() else ""
        for name, value in trace_context().items():
            extra += f"{name}: {value}\r\n"
        if request.binary:
            extra += f"Inference-Header-Content-Length: {length}\r\n"
            length += layout.sent_bytes
        head = (
            f"POST {self._endpoint.path}{layout.path} HTTP/1.1\r\n{self._fixed}{extra}"
            f"Content-Type: {_KINDS[request.binary]}\r\nContent-Length: {length}\r\n\r\n"
        )
        return [head.encode("ascii") + header, *request.data]

    def query(self, query: Query) -> list[Data]:
        """Any other request."""
        head = f"{query.method} {self._endpoint.path}{query.path} HTTP/1.1\r\n{self._fixed}"
        if query.body is None:
            return [f"{head}\r\n".encode("ascii")]
        body = json.dumps(query.body).encode()
        return [f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode("ascii") + body]

    def answer(self, request: InferRequest, response: ResponseReader) -> InferAnswer:
        """What came back for a request to run a model.

        Raises:
            ServerError: the server refused it, or the model failed.
            ProtocolError: it is no answer to this request.
        """
        if response.status != 200:
            raise self._error(response, request.model)
        try:
            return _decode(request, response)
        except (*NONSENSE, MemoryError, RecursionError) as exc:
            raise answers.no_answer(self._endpoint, f"{type(exc).__name__}: {exc}") from exc

    def result(self, query: Query, response: ResponseReader) -> Any:
        """What came back for a query.

        Raises:
            ServerError: the server refused it.
            ProtocolError: it is no answer to it.
        """
        if query.yes_or_no and response.status in (200, 204):
            return True
        if query.yes_or_no and response.status in (400, 404, 503):
            return False
        if response.status not in (200, 204):
            raise self._error(response, query.model)
        try:
            return json.loads(response.body.tobytes()) if response.body.size else {}
        except (ValueError, RecursionError) as exc:
            raise answers.no_answer(self._endpoint, f"no JSON: {exc}") from exc

    def _error(self, response: ResponseReader, model: str | None) -> ServerError:
        text = response.body[: 4 * _LONGEST_MESSAGE].tobytes().decode(errors="replace")
        kind = None
        try:
            said = json.loads(text)
            message = said.get("error") or text
            if "detail" in said:  # FastAPI's form, which several V2 servers are made with
                message = _details(said["detail"])
                kind = ServerError if response.status in (404, 405) else None
        except (ValueError, AttributeError, RecursionError):
            # A proxy, or something that is no inference server at all: its page may be long and full of markup.
            message = " ".join(text.split()) if "<" not in text else f"HTTP {response.status} and a page"
            if response.status in (404, 405):
                message += ", but not as a Triton server does. Is this its HTTP port, and not that of its metrics?"
                kind = ServerError
        after = response.headers.get(b"retry-after", b"")
        return answers.server_error(
            str(message)[:_LONGEST_MESSAGE],
            str(response.status),
            self._endpoint,
            model,
            kind=kind,
            retry_after_s=answers.retry_after_s(after.decode("latin-1")),
        )


def _details(detail: Any) -> str:
    """The words of a validation error: one for each fault, with its place."""
    if not isinstance(detail, list):
        return str(detail)
    return "; ".join(f"{'.'.join(map(str, item.get('loc', ())))}: {item.get('msg', item)}" for item in detail)


def _quoted(request_id: str) -> str:
    return f'"{request_id}"' if request_id.isalnum() and request_id.isascii() else json.dumps(request_id)


def _parameters(request: InferRequest, left_s: float) -> str:
    """The parameters of a request, as a member of its JSON header."""
    more: dict[str, Parameter] = {"binary_data_output": True} if request.binary else {}
    if request.parameters or not request.binary:
        said = json.dumps(request.parameters_within(left_s) | more, separators=(",", ":"))
        return f'"parameters":{said}'
    if request.queue_timeout:
        return f'"parameters":{{"timeout":{queue_timeout_us(left_s)},"binary_data_output":true}}'
    return '"parameters":{"binary_data_output":true}'


def _decode(request: InferRequest, response: ResponseReader) -> InferAnswer:
    """Take an answer apart. One that differs from another of the same layout in nothing but its id is known already."""
    body, length = response.body, response.json_length
    if length is None:
        return _read(request, json.loads(body.tobytes()), body, 0)
    text = body[:length].tobytes()
    before, found, after = text.partition(b'"id":' + _quoted(request.request_id).encode())
    known = request.layout.answers.get((before, after)) if found else None
    if known is None or length + known.size_bytes != body.size:
        answer = _read(request, json.loads(text), body, length)
        if found and len(request.layout.answers) < KEPT_ANSWERS:
            _keep(request, (before, after), answer)
        return answer
    arrays: dict[str, Array | None] = {}
    start = length
    for name, dtype, shape, size in known.tensors:
        arrays[name] = body[start : start + size].view(dtype).reshape(shape)
        start += size
    return InferAnswer(arrays, known.shapes, known.version, request.request_id)


def _keep(request: InferRequest, said: tuple[bytes, bytes], answer: InferAnswer) -> None:
    """Remember what an answer holds, if all of it are tensors of fixed lengths that follow the JSON."""
    if b'"data":' in said[0] or b'"data":' in said[1]:
        return
    tensors = []
    for name, array in answer.arrays.items():
        if array is None or array.dtype.kind == "O":
            return
        tensors.append((name, array.dtype, array.shape, array.nbytes))
    size = sum(array.nbytes for array in answer.arrays.values() if array is not None)
    request.layout.answers[said] = _Known(answer.version, answer.shapes, tensors, size)


def _read(request: InferRequest, header: Any, body: Array, start: int) -> InferAnswer:
    """Take an answer apart by its JSON; its tensors in binary form begin at `start`."""
    if header.get("id", request.request_id) != request.request_id:
        raise ValueError("it is the answer to another request")
    arrays: dict[str, Array | None] = {}
    shapes = {}
    place = start
    for output in header["outputs"]:
        name, dtype, shape = output["name"], output["datatype"], tuple(output["shape"])
        size = (output.get("parameters") or {}).get("binary_data_size")
        shapes[name] = shape
        if size is not None:
            end = place + size
            if not place <= end <= body.size:
                raise ValueError(f"{size} bytes of {name} in a body of {body.size}")
            arrays[name] = from_binary(body[place:end], dtype, shape)
            place = end
        elif "data" in output:
            arrays[name] = from_json_list(output["data"], dtype, shape)
        elif name in request.layout.placed:
            arrays[name] = None
        else:
            raise ValueError(f"the output {name} without its values")
    if start and place != body.size:
        raise ValueError(f"{body.size - place} bytes after the last tensor")
    return InferAnswer(arrays, shapes, str(header.get("model_version") or ""), str(header.get("id") or ""))
