"""A server's address."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from ._errors import InputError

_DEFAULT_PORTS = {"http": 8000, "https": 443, "grpc": 8001, "grpcs": 443}
_ENDPOINT = re.compile(r"^(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/@]+)(:(?P<port>\d{1,5}))?$")
_PATH = re.compile(r"(/[\w.~%!$&'()*+,;=:@-]+)*", re.ASCII)


@dataclass(frozen=True)
class Endpoint:
    """A server's address: the scheme chooses the protocol and whether TLS is used.

    Attributes:
        path: what a proxy wants before ``/v2``, without a slash at the end; empty for gRPC.
    """

    scheme: str
    host: str
    port: int
    path: str = ""

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Read ``http://``, ``https://``, ``grpc://`` or ``grpcs://``, a host and, if need be, a port and a path.

        Raises:
            InputError: the URL has no such scheme, no host, or parts that mean nothing here.
        """
        try:
            parts = urlsplit(url)
        except (ValueError, AttributeError, TypeError) as exc:
            raise InputError(f"The 'url' parameter must be a URL, got {_shown(url)} instead") from exc
        if parts.scheme not in _DEFAULT_PORTS or not parts.netloc:
            raise InputError(
                f"The 'url' parameter must start with http://, https://, grpc:// or grpcs://, got "
                f"{_shown(url)} instead; for example http://127.0.0.1:8000 or grpc://127.0.0.1:8001"
            )
        match = _ENDPOINT.match(parts.netloc)
        path = parts.path.rstrip("/")
        if match is None or parts.query or parts.fragment or not _PATH.fullmatch(path):
            raise InputError(
                "The 'url' parameter must be scheme://host:port (for http also a path) and nothing more, got "
                f"{_shown(url)} instead"
            )
        if path and parts.scheme.startswith("grpc"):
            raise InputError(f"The 'url' parameter must have no path for gRPC, got {_shown(url)} instead")
        if path.endswith("/v2"):
            raise InputError(
                f"The 'url' parameter must end before /v2, which the client adds itself, got {_shown(url)}"
            )
        port = int(match["port"] or _DEFAULT_PORTS[parts.scheme])
        if not 0 < port < 65536:
            raise InputError(f"The port of the 'url' parameter must be 1 to 65535, got {port} instead")
        try:
            host = match["host"].encode("idna").decode() if not match["host"].isascii() else match["host"]
        except UnicodeError as exc:
            raise InputError(f"The host of the 'url' parameter is no name, got {_shown(url)} instead") from exc
        return cls(parts.scheme, host, port, path)

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"{self.host}:{self.port}"

    @property
    def local(self) -> bool:
        """Whether it is on this machine's loopback."""
        return self.host in ("localhost", "[::1]") or self.host.startswith("127.")

    @property
    def secure(self) -> bool:
        """Whether TLS is used."""
        return self.scheme in ("https", "grpcs")

    @property
    def protocol(self) -> str:
        """``HTTP`` or ``gRPC``."""
        return "HTTP" if self.scheme.startswith("http") else "gRPC"

    def __str__(self) -> str:
        """The whole URL."""
        return f"{self.scheme}://{self.address}{self.path}"


def _shown(url: object) -> str:
    """A URL as a message may show it: who logs in, queries and fragments may hold secrets."""
    text = re.sub(r"[?#].*", "", str(url), flags=re.DOTALL)
    scheme, found, rest = text.rpartition("//")
    return repr(f"{scheme}{found}…@{rest.rpartition('@')[2]}" if "@" in rest else text)
