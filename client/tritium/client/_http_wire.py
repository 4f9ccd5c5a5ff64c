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
from ._encoding import NONSENSE, SMALL_BYTES, Data, from_binary, from_json_list
from ._endpoint import Endpoint
from ._errors import ServerError
from ._http_reader import ResponseReader
from ._queries import Query
from ._request import KEPT_ANSWERS, InferAnswer, InferRequest, Layout, queue_timeout_us
from ._tensors import Array
from ._trace import trace_context

# What a server that lies about its errors may say in an error message of ours.
_LONGEST_MESSAGE = 2_000
# A request's head and JSON. First comes what all of a layout have in common, then the headers that each has of its own.
_BINARY = (
    b"%b%bContent-Type: application/octet-stream\r\nInference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n"
    b"%b%b"
)
_PLAIN = b"%b%bContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b%b"


class _Form(NamedTuple):
    """What requests of a layout have in common: the begin of the head, and the end of the JSON."""

    head: bytes
    json: bytes


class _Known(NamedTuple):
    """An answer that arrived before: its JSON, but for the id, and name, dtype, shape and place of each tensor."""

    before_id: bytes
    after_id: bytes
    version: str
    shapes: dict[str, tuple[int, ...]]
    tensors: list[tuple[str, np.dtype[Any], tuple[int, ...], int]]


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
        """A request to run a model: the head with the JSON, then each tensor's bytes; in one piece if it is small."""
        layout = request.layout
        form = layout.ready.get(self)
        if form is None:
            form = layout.ready[self] = self._form(layout, request)
        said, own = _said(request, left_s), _own_headers(request.request_id)
        if not request.binary:
            values = layout.plain_json(request.arrays).encode()
            return [_PLAIN % (form.head, own, len(said) + len(values), said, values)]
        length = len(said) + len(form.json)
        head = _BINARY % (form.head, own, length, length + layout.sent_bytes, said, form.json)
        if layout.sent_bytes > SMALL_BYTES:
            return [head, *request.data]
        # A copy of little costs less than telling the system of one piece more.
        return [b"".join((head, *request.data))]

    def _form(self, layout: Layout, request: InferRequest) -> _Form:
        head = f"POST {self._endpoint.path}{layout.path} HTTP/1.1\r\n{self._fixed}"
        return _Form(head.encode("ascii"), layout.binary_json().encode() if request.binary else b"")

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
            return json.loads(response.body.tobytes()) if response.body else {}
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


def _is_plain(request_id: str) -> bool:
    """Whether an id is in JSON as it is; one that was made up is."""
    return request_id.isalnum() and request_id.isascii()


def _quoted(request_id: str) -> bytes:
    return b'"%b"' % request_id.encode() if _is_plain(request_id) else json.dumps(request_id).encode()


def _own_headers(request_id: str) -> bytes:
    """An id and a trace's context, for those who see no more than headers."""
    own = b"X-Request-ID: %b\r\n" % request_id.encode() if request_id.isascii() else b""
    traced = trace_context()
    return own + "".join(f"{name}: {value}\r\n" for name, value in traced.items()).encode("ascii") if traced else own


def _said(request: InferRequest, left_s: float) -> bytes:
    """The begin of the JSON header, which each request has of its own: its id and its parameters."""
    request_id = request.request_id
    if request.binary and request.queue_timeout and not request.parameters and _is_plain(request_id):
        timeout_us = queue_timeout_us(left_s)
        return b'{"id":"%b","parameters":{"timeout":%d,"binary_data_output":true},' % (request_id.encode(), timeout_us)
    more = {"binary_data_output": True} if request.binary else {}
    said = {"id": request_id, "parameters": request.parameters_within(left_s) | more}
    return json.dumps(said, separators=(",", ":")).encode()[:-1] + b","


def _decode(request: InferRequest, response: ResponseReader) -> InferAnswer:
    """Take an answer apart. One that differs from another of the same layout in nothing but its id is known already."""
    body, length, request_id = response.body, response.json_length, request.request_id
    if length is None:
        return _read(request, json.loads(body.tobytes()), body, 0)
    text = body[:length].tobytes()
    sizes = length, len(body), len(request_id)
    known = request.layout.answers.get(sizes)
    if known is not None and text == b"%b%b%b" % (known.before_id, _quoted(request_id), known.after_id):
        arrays: dict[str, Array | None] = {}
        for name, dtype, shape, place in known.tensors:
            arrays[name] = np.ndarray(shape, dtype, body, place)
        return InferAnswer(arrays, known.shapes, known.version, request_id)
    answer = _read(request, json.loads(text), body, length)
    if len(request.layout.answers) < KEPT_ANSWERS or known is not None:
        _keep(request, sizes, text, answer)
    return answer


def _keep(request: InferRequest, sizes: tuple[int, int, int], text: bytes, answer: InferAnswer) -> None:
    """Remember what an answer holds, if all of it are tensors of fixed lengths that follow the JSON."""
    before, found, after = text.partition(b'"id":' + _quoted(request.request_id))
    if not found:
        return
    tensors, place = [], sizes[0]
    for name, array in answer.arrays.items():
        if array is None or array.dtype.kind == "O":
            return
        tensors.append((name, array.dtype, array.shape, place))
        place += array.nbytes
    if place != sizes[1]:  # some have their values in the JSON
        return
    request.layout.answers[sizes] = _Known(before + b'"id":', after, answer.version, answer.shapes, tensors)


def _read(request: InferRequest, header: Any, received: memoryview, start: int) -> InferAnswer:
    """Take an answer apart by its JSON; its tensors in binary form begin at `start`."""
    if header.get("id", request.request_id) != request.request_id:
        raise ValueError("it is the answer to another request")
    body = np.frombuffer(received, np.uint8)
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
