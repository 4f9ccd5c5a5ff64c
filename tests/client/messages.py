"""Requests and responses of the client without a connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tritium.client._endpoint import Endpoint
from tritium.client._http_reader import ResponseReader
from tritium.client._reading import Reading
from tritium.client._request import InferRequest, Layout

HTTP = Endpoint.parse("http://server:8000/prefix")
GRPC = Endpoint.parse("grpc://server:8001")


def request(
    layout: Layout | None = None,
    data: Sequence[bytes] = (),
    request_id: str = "id",
    parameters: dict[str, Any] | None = None,
    *,
    queue_timeout: bool = False,
) -> InferRequest:
    """A request whose inputs have those bytes."""
    return InferRequest(
        layout=layout or Layout("m", "", (), ()),
        reading=Reading("m", (), (), False, 0, {}, False),
        arrays=[],
        data=list(data),
        request_id=request_id,
        parameters=parameters or {},
        binary=True,
        queue_timeout=queue_timeout,
        repeatable=True,
    )


def received(body: bytes, json_length: int | None = None, status: int = 200) -> ResponseReader:
    """A response with that body, after it was read."""
    reader = ResponseReader()
    said = "" if json_length is None else f"Inference-Header-Content-Length: {json_length}\r\n"
    data = f"HTTP/1.1 {status} X\r\n{said}Content-Length: {len(body)}\r\n\r\n".encode() + body
    while data:
        space = reader.space()
        count = min(len(space), len(data))
        space[:count] = data[:count]
        data = data[count:]
        reader.filled(count)
    return reader
