"""What a client can be told: retries, limits, credentials, TLS. Small values without behaviour of their own."""

from __future__ import annotations

import math
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ._deadline import positive
from ._errors import InputError

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_GRPC_NAME = re.compile(r"(?!grpc-)[0-9a-z_.-]+(?<!-bin)", re.ASCII)
_HEADER_VALUE = re.compile(r"[\x20-\x7e\t]*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Retries:
    """When a call is tried again.

    A call is repeated where it cannot have run: no connection, HTTP 503 or gRPC UNAVAILABLE, HTTP 429 that says after
    how long. A request that was sent before its connection broke may have run, which does no harm for a model without
    state: see `resend`. Calls of a sequence, streams, loading and unloading are never repeated. All tries share the
    call's ``timeout_s``.

    Attributes:
        attempts: tries in all; 1 for none but the first.
        backoff_s: the longest pause before the second try. It doubles with each further one, and what is waited is
            a random part of it, so that many clients do not come back together.
        max_backoff_s: what it does not grow beyond.
        budget: tries beyond the first that the client may make for each call, on average; ten more are granted at the
            start. When most calls fail, repeating them all would only make it worse. Turning to another server that
            is well is not counted.
        resend: whether an inference is repeated that may have run already.
    """

    attempts: int = 3
    backoff_s: float = 0.05
    max_backoff_s: float = 1.0
    budget: float = 0.2
    resend: bool = True

    def __post_init__(self) -> None:
        """Refuse what is no number of tries."""
        if not isinstance(self.attempts, int) or isinstance(self.attempts, bool) or self.attempts < 1:
            raise InputError(f"The 'attempts' parameter of Retries must be 1 or more, got {self.attempts!r} instead")
        positive(self.backoff_s, "backoff_s")
        positive(self.max_backoff_s, "max_backoff_s")
        number = isinstance(self.budget, int | float) and not isinstance(self.budget, bool)
        if not number or not 0 <= self.budget < math.inf:
            raise InputError(f"The 'budget' parameter of Retries must be 0 or more, got {self.budget!r} instead")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a client may hold.

    Attributes:
        max_connections: connections over HTTP to each server; further calls wait for one within their ``timeout_s``.
            Over gRPC all calls share one.
        connect_timeout_s: seconds after which a server that does not take a connection is given up, so that another
            one can be tried within the call's time.
    """

    max_connections: int = 100
    connect_timeout_s: float = 5.0

    def __post_init__(self) -> None:
        """Refuse what is no limit."""
        most = self.max_connections
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise InputError(
                f"The 'max_connections' parameter of Limits must be 1 or more, got {self.max_connections!r} instead"
            )
        positive(self.connect_timeout_s, "connect_timeout_s")


@dataclass(frozen=True, kw_only=True)
class Tls:
    """How https and grpcs check the server, and what they show of themselves. All files are in PEM form.

    Attributes:
        ca_file: the certificates that are trusted instead of the system's.
        cert_file: the client's own certificate, with the chain that leads to it.
        key_file: its private key; may be left out if `cert_file` holds it too.
    """

    ca_file: str | Path | None = None
    cert_file: str | Path | None = None
    key_file: str | Path | None = None

    def __post_init__(self) -> None:
        """Refuse files that are not there, and a key without its certificate."""
        if self.key_file is not None and self.cert_file is None:
            raise InputError("The 'key_file' parameter of Tls needs 'cert_file' beside it")
        for name in ("ca_file", "cert_file", "key_file"):
            path = getattr(self, name)
            if path is not None and not Path(path).is_file():
                raise InputError(f"The {name!r} parameter of Tls must be a file, got {str(path)!r} instead")

    def context(self) -> ssl.SSLContext:
        """What Python's own TLS takes.

        Raises:
            InputError: a file does not hold what it should.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file, self.key_file)
        except (ssl.SSLError, OSError) as exc:
            raise InputError(f"The files of {self!r} cannot be used: {exc}") from exc
        context.set_alpn_protocols(["http/1.1"])
        return context

    def pem(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """What gRPC takes: the trusted certificates, the private key and the own certificate, None where there is none.

        Raises:
            InputError: a file does not hold what it should.
        """
        self.context()  # gRPC would find out only when it connects
        files = (self.ca_file, self.key_file or self.cert_file, self.cert_file)
        ca, key, certificate = (None if path is None else Path(path).read_bytes() for path in files)
        return ca, key, certificate


@dataclass(frozen=True)
class ApiKey:
    """A key that is sent in a header with every call.

    Attributes:
        key: the key itself; shown nowhere.
        header: the header's name.
    """

    key: str
    header: str = "X-API-Key"

    def __post_init__(self) -> None:
        """Refuse what no header can carry."""
        _checked_secret(self.key, "'key' parameter of ApiKey")

    def __repr__(self) -> str:
        """The key is a secret and left out."""
        return f"ApiKey('…', header={self.header!r})"

    def headers(self) -> dict[str, str]:
        """What is sent."""
        return {self.header: self.key}


@dataclass(frozen=True)
class BearerToken:
    """A token that is sent as ``Authorization: Bearer …`` with every call.

    Attributes:
        token: the token itself; shown nowhere.
    """

    token: str

    def __post_init__(self) -> None:
        """Refuse what no header can carry."""
        _checked_secret(self.token, "'token' parameter of BearerToken")

    def __repr__(self) -> str:
        """The token is a secret and left out."""
        return "BearerToken('…')"

    def headers(self) -> dict[str, str]:
        """What is sent."""
        return {"Authorization": f"Bearer {self.token}"}


class Headers(dict[str, str]):
    """Headers whose values may be secrets: they are shown nowhere."""

    def __repr__(self) -> str:
        """The names only."""
        return f"Headers({', '.join(self)})"


# What the protocol decides itself.
_OWN = frozenset(
    (
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "inference-header-content-length",
        "te",
        "transfer-encoding",
        "upgrade",
        "x-request-id",
    )
)


def checked_headers(
    headers: Mapping[str, str] | None, auth: ApiKey | BearerToken | None, *, over_grpc: bool
) -> Headers:
    """The headers of every call.

    Raises:
        InputError: one cannot be sent, or would change what the protocol itself says. Values are not repeated.
    """
    if auth is not None and not isinstance(auth, ApiKey | BearerToken):
        raise InputError("The 'auth' parameter must be an ApiKey or a BearerToken")
    given, more = dict(headers or {}), {} if auth is None else auth.headers()
    for name, value in (*given.items(), *more.items()):
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name) or name.lower() in _OWN:
            raise InputError(f"A header of the client cannot be called {name!r}")
        if over_grpc and not _GRPC_NAME.fullmatch(name.lower()):
            raise InputError(f"A header of the client cannot be called {name!r} over gRPC")
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
            raise InputError(f"The value of the header {name!r} must be text of printable ASCII characters")
    twice = {name.lower() for name in given} & {name.lower() for name in more}
    if twice:
        raise InputError(f"The header {min(twice)!r} is given by 'headers' and by 'auth'")
    return Headers(given | more)


def _checked_secret(secret: str, what: str) -> None:
    if not isinstance(secret, str) or not secret or not _HEADER_VALUE.fullmatch(secret):
        raise InputError(f"The {what} must be text of printable ASCII characters, and not empty")
