"""TLS before a server that has none: certificates of an authority of the test's own, and a proxy that ends TLS."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import trustme

_CHUNK_BYTES = 65536
_ALPN = {"http": "http/1.1", "grpc": "h2"}


@dataclass(frozen=True)
class Certificates:
    """PEM files, and what a server needs.

    Attributes:
        authority: who signed the server's certificate and the client's.
        stranger: an authority that signed neither.
        client_chain: a client's certificate.
        client_key: its private key.
        client_both: both in one file.
    """

    authority: Path
    stranger: Path
    client_chain: Path
    client_key: Path
    client_both: Path
    _signer: trustme.CA

    @classmethod
    def write(cls, folder: Path) -> Certificates:
        """Make them, in a folder that is there."""
        signer = trustme.CA()
        client = signer.issue_cert("somebody@example.org")
        ca, other, chain, key, both = (folder / f"{name}.pem" for name in ("ca", "other", "chain", "key", "both"))
        made = cls(ca, other, chain, key, both, signer)
        signer.cert_pem.write_to_path(made.authority)
        trustme.CA().cert_pem.write_to_path(made.stranger)
        client.private_key_pem.write_to_path(made.client_key)
        for blob in client.cert_chain_pems:
            blob.write_to_path(made.client_chain, append=True)
        client.private_key_and_cert_chain_pem.write_to_path(made.client_both)
        return made

    def context(self, *names: str, asks_back: bool) -> ssl.SSLContext:
        """TLS of a server that is called so, and that may want the client's certificate too."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._signer.issue_cert(*names).configure_cert(context)
        if asks_back:
            self._signer.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


@contextmanager
def tls_before(server_url: str, context: ssl.SSLContext) -> Iterator[str]:
    """A proxy that ends TLS and passes all bytes on to an http:// or grpc:// server; its URL, until the block ends."""
    parts = urlsplit(server_url)
    context.set_alpn_protocols([_ALPN[parts.scheme]])
    proxy = _Proxy(parts.hostname or "", parts.port or 0, context)
    thread = threading.Thread(target=asyncio.run, args=(proxy.serve(),), name="tls-proxy")
    thread.start()
    try:
        assert proxy.ready.wait(timeout=10)
        yield f"{parts.scheme}s://127.0.0.1:{proxy.port}"
    finally:
        proxy.stop()
        thread.join(timeout=10)
        assert not thread.is_alive()


class _Proxy:
    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        self._server = (host, port)
        self._context = context
        self.ready = threading.Event()
        self.port = 0

    async def serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        # Whoever does not trust it ends the handshake, which is nothing to report.
        self._loop.set_exception_handler(lambda _loop, _context: None)
        listener = await asyncio.start_server(self._converse, "127.0.0.1", 0, ssl=self._context)
        self.port = listener.sockets[0].getsockname()[1]
        self.ready.set()
        await self._stopping.wait()
        listener.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.CancelledError):
            from_server, to_server = await asyncio.open_connection(*self._server)
            try:
                await asyncio.gather(_pass_on(reader, to_server), _pass_on(from_server, writer))
            finally:
                to_server.transport.abort()
        writer.transport.abort()


async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(_CHUNK_BYTES):
        sink.write(data)
        await sink.drain()
    raise ConnectionResetError  # ends the other direction too
